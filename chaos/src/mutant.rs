//! Rules broken on purpose, in the build that `chaos mutants` makes and in no other: everywhere else
//! `mutant!` is the constant `false`.

#[cfg(not(mainstay_mutants))]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

#[cfg(mainstay_mutants)]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutant::is_chosen($name)
    };
}

/// Whether this run is to break that rule.
#[cfg(mainstay_mutants)]
pub(crate) fn is_chosen(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("MAINSTAY_MUTANT").ok()).as_deref() == Some(name)
}
