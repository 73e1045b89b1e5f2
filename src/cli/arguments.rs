//! The command line's grammar and its help.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::telemetry::LogFormat;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 (status) the service is down.
Every key of the configuration can also be set by environment: see `mainstay config schema`.";

/// Keeps one stateful service alive across machines that share no disk.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
#[command(max_term_width = 90)]
pub(super) struct Arguments {
    /// The configuration file [env: MAINSTAY_CONFIG]
    #[arg(long, short, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How messages look; how many there are is up to MAINSTAY_LOG (error, warn, info, debug)
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run one replica, and the service while this replica leads
    Run {
        /// The service's command, instead of process.command
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Run only an ambassador, which forwards clients to the leader
    ///
    /// SIGHUP reads the configuration again. SIGUSR2 starts a successor, which takes the listening
    /// sockets over; open connections go on for ambassador.drain_timeout.
    Ambassador {
        /// Take over from the ambassador that started this one (what SIGUSR2 does)
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// Say who leads, what is safe and what to do
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Again every two seconds, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Hand leadership over, planned
    Switchover {
        /// To this node; otherwise to the best
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        /// At this time, such as 2030-01-31T03:00:00Z, or after this span, such as 90m
        #[arg(long, value_name = "TIME", conflicts_with = "no_wait")]
        at: Option<String>,
        /// Withdraw the switchover that is asked for or scheduled, if it has not begun
        #[arg(long, conflicts_with_all = ["to", "at", "no_wait"])]
        cancel: bool,
        /// Ask only; do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Allow no failover until `resume`
    Pause {
        /// Why, for the next operator to read
        #[arg(long, default_value = "no reason given")]
        reason: String,
    },
    /// Allow failover again
    Resume,
    /// Compare every follower's content with the leader's, while the service goes on
    Verify {
        /// Ask only; do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Make a node lead now, although nobody handed leadership over
    Failover {
        /// Which node
        #[arg(long, value_name = "NODE")]
        to: String,
        /// Even if acknowledged writes that it does not have are lost; says how many, and asks
        #[arg(long)]
        allow_data_loss: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Let a leader without a write quorum go on with fewer copies, until voters are back
    Degrade {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Put back the config that a coordinator lost, although not all of its voters are there
    Recover {
        /// The node whose disk has the config
        #[arg(long, value_name = "NODE")]
        from: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make the cluster's secret
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Take plain files into an empty replica that does not run
    Import {
        /// The directory whose content to take
        #[arg(value_name = "DIR")]
        from: PathBuf,
    },
    /// Write plain files out of a replica that does not run
    Export {
        /// An empty directory, or one to be made
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Check a replica that does not run
    Fsck {
        /// Mend what is safe to mend; without it nothing is changed
        #[arg(long)]
        repair: bool,
    },
    /// See to what lost: diverged tails and damaged copies
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Print a new secret: write it to secret_file on every node, readable by none but its user
    New,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say everything that is wrong with it
    Check,
    /// Print what holds for each key, and where that comes from
    Show,
    /// Print every key with its environment variable, default and meaning
    Schema,
}

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// Say what is kept
    List,
    /// Say more of one
    Show {
        /// Its name, as `list` prints it
        name: String,
    },
    /// Write one's files out
    Export {
        /// Its name, as `list` prints it
        name: String,
        /// An empty directory, or one to be made
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
    /// Remove one for good
    Drop {
        /// Its name, as `list` prints it
        name: String,
    },
}
