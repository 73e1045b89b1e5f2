//! Help, and what is said to wrong command lines and configurations.

use crate::golden::{compare, transcript};

#[test]
fn help() {
    let commands: [&[&str]; 15] = [
        &["--help"],
        &["run", "-h"],
        &["ambassador", "-h"],
        &["status", "-h"],
        &["switchover", "-h"],
        &["pause", "-h"],
        &["resume", "-h"],
        &["secret", "-h"],
        &["config", "-h"],
        &["import", "-h"],
        &["export", "-h"],
        &["fsck", "-h"],
        &["quarantine", "-h"],
        &["quarantine", "export", "-h"],
        &["secret", "new", "-h"],
    ];
    let all = commands.map(|words| transcript(words, &[])).join("\n");
    compare("help.txt", &all);
}

#[test]
fn schema() {
    compare("schema.txt", &transcript(&["config", "schema"], &[]));
}

#[test]
fn wrong_usage() {
    let commands: [&[&str]; 6] = [
        &[],
        &["statsu"],
        &["status", "--jsno"],
        &["export"],
        &["run", "postgres"],
        &["--log-format", "xml", "status"],
    ];
    let all = commands.map(|words| transcript(words, &[])).join("\n");
    compare("wrong-usage.txt", &all);
}

#[test]
fn wrong_configuration() {
    let bad = [
        ("MAINSTAY_API__LISTEN", "localhost"),
        ("MAINSTAY_COORDINATION", "zk://10.0.0.1:2181"),
        ("MAINSTAY_DURABILITY", "maybe"),
        ("MAINSTAY_LOG__MAX", "4GB"),
        ("MAINSTAY_PORT", "tcp://10.0.0.1:80"),
        ("MAINSTAY_TTL", "5"),
    ];
    let complete = [
        ("MAINSTAY_COORDINATION", "etcd://root:hunter2@10.0.0.1:2379"),
        ("MAINSTAY_DURABILITY", "sync"),
        ("MAINSTAY_MOUNT", "/var/lib/mainstay/data"),
        ("MAINSTAY_NODE", "a"),
        ("MAINSTAY_PEER__LISTEN", "10.0.0.1:7400"),
        ("MAINSTAY_SECRET_FILE", "/no/such/secret"),
        ("MAINSTAY_SERVICE", "orders-db"),
        ("MAINSTAY_STATE_DIR", "/var/lib/mainstay"),
    ];
    let all = [
        transcript(&["config", "check"], &[]),
        transcript(&["config", "check", "--config", "/no/such/file"], &[]),
        transcript(&["config", "check"], &bad),
        transcript(&["config", "check"], &complete),
        transcript(&["config", "show"], &complete),
        transcript(&["status"], &[("MAINSTAY_LOG", "louder=please=now")]),
    ];
    compare("wrong-configuration.txt", &all.join("\n"));
}
