//! What both backends refuse in the same words, before anything is sent.

use std::collections::HashSet;

use crate::coordinator::{CoordinatorError, Result, Write};

/// Whether `writes` can be one transaction: no key twice, since "in which order" has no answer in
/// a transaction, and no key without a name.
pub(crate) fn check_writes(writes: &[Write]) -> Result<()> {
    let mut seen = HashSet::new();
    for write in writes {
        let (Write::Put(key, ..) | Write::Delete(key)) = write;
        if key.is_empty() || key.starts_with('/') {
            return Err(CoordinatorError::Invalid(format!(
                "{key:?} is not a key: keys are relative to the service's root"
            )));
        }
        if !seen.insert(key) {
            return Err(CoordinatorError::Invalid(format!(
                "one transaction cannot write the key {key:?} twice"
            )));
        }
    }
    Ok(())
}
