//! Rules broken on purpose, in the build that `chaos mutants` makes and in no other: everywhere else
//! [`mutant!`] is the constant `false`, and this crate is empty.

/// Whether this run is to break the rule of that name: `mutant!("ack-before-durable")`.
#[cfg(not(mainstay_mutants))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}

/// Whether this run is to break the rule of that name: `mutant!("ack-before-durable")`.
#[cfg(mainstay_mutants)]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::is_chosen($name)
    };
}

/// Whether this run is to break that rule.
#[cfg(mainstay_mutants)]
#[must_use]
pub fn is_chosen(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("MAINSTAY_MUTANT").ok()).as_deref() == Some(name)
}
