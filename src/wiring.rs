//! Joins the command line to the parts that do what it asks for.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use mainstay::cli::{Actions, Complaint, FilesBar, Offline, QuarantineTask};
use mainstay::config::{AmbassadorConfig, RunConfig};
use mainstay::proxy::{self, Reload};
use mainstay::replica::{self, ReplicaError};
use mainstay_sync::transport::Secret;
use mainstay_sync::volume::VolumeOptions;
use mainstay_sync::{export, fsck, import, quarantine};

/// The whole program's parts.
pub struct Wiring;

impl Actions for Wiring {
    fn run(&self, config: RunConfig, reload: Reload) -> Result<ExitCode, Complaint> {
        block_on(replica::run(config, reload))?.map_err(|error| complain(&error))?;
        Ok(ExitCode::SUCCESS)
    }

    fn ambassador(
        &self,
        config: AmbassadorConfig,
        reload: Reload,
        take_over: bool,
    ) -> Result<ExitCode, Complaint> {
        block_on(proxy::run(config, reload, take_over))?.map_err(failure)?;
        Ok(ExitCode::SUCCESS)
    }

    fn new_secret(&self) -> Result<String, Complaint> {
        Ok(Secret::generate().reveal())
    }

    fn offline(&self, state_dir: &Path, task: Offline) -> Result<String, Complaint> {
        let options = VolumeOptions::default();
        match task {
            Offline::Import { from } => {
                let mut bar = FilesBar::new("import");
                let told = &mut |done, total| bar.show(done, total);
                let done = import::import_telling(&from, state_dir, &options, told);
                bar.clear();
                let done = done.map_err(failure)?;
                Ok(format!(
                    "{} files imported at {}; start this replica first: it founds the cluster with them\n",
                    done.files, done.position
                ))
            }
            Offline::Export { to } => {
                let mut bar = FilesBar::new("export");
                let told = &mut |done, total| bar.show(done, total);
                let done = export::export_telling(state_dir, &options, &to, told);
                bar.clear();
                let done = done.map_err(failure)?;
                Ok(format!("{} files exported as of {}\n", done.files, done.position))
            }
            Offline::Fsck { repair } => {
                check(&fsck::fsck(state_dir, &options, repair).map_err(failure)?)
            }
            Offline::Quarantine(task) => set_aside(state_dir, task),
        }
    }
}

/// The report as text; what is left wrong is a failure.
fn check(report: &fsck::Report) -> Result<String, Complaint> {
    let head = report.head.map_or_else(|| "unknown".to_owned(), |head| head.to_string());
    let mut text = format!(
        "checkpoint {}, log up to {head}, {} ops not applied yet\n",
        report.checkpoint, report.unapplied
    );
    for problem in &report.problems {
        let state = if problem.repaired { "repaired" } else { "found" };
        let _ = writeln!(text, "{state}: {:?}: {}", problem.severity, problem.what);
        if !problem.repaired {
            let _ = writeln!(text, "  fix: {}", problem.what.advice());
        }
    }
    match report.worst() {
        None => Ok(text + "sound\n"),
        Some(_) => Err(Complaint::failure(text.trim_end().to_owned())
            .with_fix("`mainstay fsck --repair` mends what is safe to mend")),
    }
}

fn set_aside(state_dir: &Path, task: QuarantineTask) -> Result<String, Complaint> {
    match task {
        QuarantineTask::List => {
            let kept = quarantine::list(state_dir).map_err(failure)?;
            if kept.is_empty() {
                return Ok("nothing is in quarantine\n".to_owned());
            }
            let line = |kept: &quarantine::Kept| {
                let (mib, why) = (kept.bytes.div_ceil(1 << 20), &kept.manifest.why);
                format!("{:24} {mib:>8} MiB  {why}\n", kept.name)
            };
            Ok(kept.iter().map(line).collect())
        }
        QuarantineTask::Show { name } => {
            let kept = quarantine::show(state_dir, &name).map_err(failure)?;
            let text = serde_json::to_string_pretty(&kept).map_err(failure)?;
            Ok(text + "\n")
        }
        QuarantineTask::Export { name, to } => {
            quarantine::export(state_dir, &name, &to).map_err(failure)?;
            Ok(format!("{name} exported to {}\n", to.display()))
        }
        QuarantineTask::Drop { name } => {
            quarantine::drop_kept(state_dir, &name).map_err(failure)?;
            Ok(format!("{name} dropped\n"))
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Complaint> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Complaint::failure(format!("cannot start an event loop: {error}")))?;
    let result = runtime.block_on(work);
    // A thread that still waits for a dead disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    Ok(result)
}

fn complain(error: &ReplicaError) -> Complaint {
    let complaint = Complaint::failure(error.to_string());
    match error.fix() {
        Some(fix) => complaint.with_fix(fix),
        None => complaint,
    }
}

fn failure(error: impl std::fmt::Display) -> Complaint {
    Complaint::failure(error.to_string())
}
