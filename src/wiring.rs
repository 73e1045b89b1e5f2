//! Joins the command line to the parts that do what it asks for.

use std::path::Path;
use std::process::ExitCode;

use mainstay::cli::{Actions, Complaint, Offline};
use mainstay::config::{AmbassadorConfig, ClusterConfig, RunConfig};

/// The whole program's parts.
pub struct Wiring;

fn not_joined(what: &str) -> Complaint {
    Complaint::failure(format!("`{what}` is not part of this build"))
        .with_fix("use a later version")
}

impl Actions for Wiring {
    fn run(&self, _: RunConfig) -> Result<ExitCode, Complaint> {
        Err(not_joined("run"))
    }

    fn ambassador(&self, _: ClusterConfig, _: AmbassadorConfig) -> Result<ExitCode, Complaint> {
        Err(not_joined("ambassador"))
    }

    fn new_secret(&self) -> Result<String, Complaint> {
        Err(not_joined("secret new"))
    }

    fn offline(&self, _: &Path, _: Offline) -> Result<String, Complaint> {
        Err(not_joined("import, export, fsck and quarantine"))
    }
}
