//! What to run, and as whom.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SuperviseError;
use super::account::Account;

/// A command with its user. Travels to the service's init as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Its user's name; the daemon's own user without one.
    pub user: Option<String>,
}

impl Spec {
    /// Looks for the program and the user without running anything.
    ///
    /// # Errors
    /// Either is not there.
    pub fn check(&self) -> Result<(), SuperviseError> {
        self.program()?;
        self.user.as_deref().map(Account::of).transpose()?;
        Ok(())
    }

    /// Where the program is.
    pub(super) fn program(&self) -> Result<PathBuf, SuperviseError> {
        let program = self.command.first().map_or("", String::as_str);
        let missing = |at: String| SuperviseError::NoProgram { program: program.to_owned(), at };
        if program.contains('/') {
            let path = Path::new(program);
            return if is_executable(path) { Ok(path.into()) } else { Err(missing(String::new())) };
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        std::env::split_paths(&path)
            .map(|folder| folder.join(program))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| missing(format!(" in PATH={}", path.to_string_lossy())))
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
