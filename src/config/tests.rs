//! Configurations, right and wrong.

use super::schema::SCHEMA;
use super::*;

const MINIMAL: &str = r#"
service = "orders-db"
node = "a"
state_dir = "/var/lib/mainstay"
mount = "/data"
coordination = "etcd://10.0.1.5:2379,10.0.2.5:2379"
peer.advertise = "10.0.1.5:7400"
[process]
command = ["postgres"]
"#;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut env = vec![("MAINSTAY_SECRET".to_owned(), "hush".to_owned())];
    env.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    env
}

fn load(text: &str, pairs: &[(&str, &str)]) -> Result<RunConfig, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Document::load(Some(file.path()), env(pairs))?.run()
}

fn problems(text: &str, pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let error = load(text, pairs).expect_err("refused");
    error.problems.into_iter().map(|problem| (problem.what, problem.fix)).collect()
}

#[test]
fn a_minimal_file_gets_the_defaults() {
    let config = load(MINIMAL, &[]).unwrap();
    assert_eq!(config.cluster.ttl.as_secs(), 5);
    assert_eq!(config.log_bytes_max, 4 << 30);
    assert_eq!(config.process.ready.probe, ReadyProbe::Started);
    assert_eq!(config.api_listen.port(), 7480);
    assert!(config.ambassador.is_none());
}

#[test]
fn every_default_is_of_its_kind() {
    for key in SCHEMA {
        if let Some(default) = key.default {
            assert!(key.kind.read_text(default).is_ok(), "{} = {default}", key.path);
        }
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = load(
        MINIMAL,
        &[("MAINSTAY_NODE", "b"), ("MAINSTAY_PEER__LISTEN", "[::1]:9"), ("MAINSTAY_TTL", "7s")],
    )
    .unwrap();
    assert_eq!(config.node.as_str(), "b");
    assert_eq!(config.peer.listen.to_string(), "[::1]:9");
    assert_eq!(config.cluster.ttl.as_secs(), 7);
}

#[test]
fn commands_in_the_environment_are_words_or_a_list() {
    let words =
        |text| load(MINIMAL, &[("MAINSTAY_PROCESS__COMMAND", text)]).unwrap().process.command;
    assert_eq!(words("redis-server --port 6379"), ["redis-server", "--port", "6379"]);
    assert_eq!(words(r#"["sh", "-c", "a b"]"#), ["sh", "-c", "a b"]);
}

#[test]
fn the_environment_alone_is_enough() {
    let all = env(&[
        ("MAINSTAY_SERVICE", "s"),
        ("MAINSTAY_NODE", "a"),
        ("MAINSTAY_STATE_DIR", "/s"),
        ("MAINSTAY_MOUNT", "/m"),
        ("MAINSTAY_COORDINATION", "sqlite:///c.db"),
        ("MAINSTAY_PEER__LISTEN", "127.0.0.1:1"),
        ("MAINSTAY_PROCESS__COMMAND", "true"),
        ("MAINSTAY_AMBASSADOR__ROUTE__0__LISTEN", "127.0.0.1:2"),
        ("MAINSTAY_AMBASSADOR__ROUTE__0__UPSTREAMS", "x:1 y:2"),
    ]);
    let config = Document::load(None, all).unwrap().run().unwrap();
    assert_eq!(config.peer.advertise, "127.0.0.1:1");
    assert_eq!(config.ambassador.unwrap().routes.len(), 1);
}

#[test]
fn a_route_has_its_own_options_and_else_those_of_all_routes() {
    let text = r#"
coordination = "sqlite:///c.db"
[ambassador]
accept_proxy = true
connect_timeout = "3s"
hold = { max = 0 }
max_connections = 7
[[ambassador.route]]
listen = "unix:/run/cache"
service = "cache"
hold.timeout = "2s"
connect_timeout = "1s"
idle_timeout = "1h"
keepalive.probes = 9
max_connections = 5
accept_proxy = false
proxy_protocol = "v1"
access_log = false
[[ambassador.route]]
listen = "127.0.0.1:1"
upstreams = ["x:1"]
"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let config = Document::load(Some(file.path()), []).unwrap().ambassador().unwrap();
    assert_eq!((config.connections_max, config.access_log), (7, AccessLogConfig::Off));
    assert_eq!(config.cluster.unwrap().service, "cache");
    let [cache, x] = &config.routes[..] else { panic!("two routes") };
    assert_eq!((cache.hold.max, cache.hold.timeout.as_secs()), (0, 2));
    assert_eq!((cache.connect_timeout.as_secs(), cache.keepalive.probes), (1, 9));
    assert_eq!((cache.connections_max, cache.proxy_protocol), (Some(5), Some(1)));
    assert!(!cache.accept_proxy && !cache.access_log && cache.idle_timeout.is_some());
    assert_eq!((x.hold.timeout.as_secs(), x.connect_timeout.as_secs()), (30, 3));
    assert_eq!((x.connections_max, x.proxy_protocol, x.idle_timeout), (None, None, None));
    assert!(x.accept_proxy && x.access_log);
}

#[test]
fn an_ambassador_of_fixed_addresses_needs_no_coordinator() {
    let alone = [
        ("MAINSTAY_AMBASSADOR__ROUTE__0__LISTEN", "127.0.0.1:2"),
        ("MAINSTAY_AMBASSADOR__ROUTE__0__UPSTREAMS", "x:1 y:2"),
    ];
    let config = Document::load(None, env(&alone)).unwrap().ambassador().unwrap();
    assert_eq!(config.cluster, None);
    let led = [("MAINSTAY_AMBASSADOR__LISTEN", "127.0.0.1:2")];
    let error = Document::load(None, env(&led)).unwrap().ambassador().expect_err("refused");
    let missing: Vec<_> = error.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(missing, ["`service` is missing", "`coordination` is missing"]);
    let bad = [alone[0], ("MAINSTAY_AMBASSADOR__ROUTE__0__UPSTREAMS", "x:1 unix:sock")];
    let error = Document::load(None, env(&bad)).unwrap().ambassador().expect_err("refused");
    assert!(error.problems[0].what.contains("`unix:sock` is no address"), "{error}");
}

#[test]
fn a_misspelt_key_is_refused_with_a_guess() {
    let said = problems(&MINIMAL.replace("service", "servise"), &[]);
    assert_eq!(said[0].0, "`servise` is not a key that is known");
    assert_eq!(said[0].1, "did you mean `service`?");
    let said = problems(&MINIMAL.replace("peer.advertise", "advertise"), &[]);
    assert_eq!(said[0].1, "did you mean `peer.advertise`?");
}

#[test]
fn bad_values_name_key_value_reason_and_what_would_do() {
    let ttl = |value: &str| problems(&format!("ttl = {value}\n{MINIMAL}"), &[]).remove(0);
    assert_eq!(
        ttl("\"5 parsecs\""),
        (
            "`ttl` is \"5 parsecs\": it has the unit \"parsecs\", which is not known".into(),
            "give a time span from 1s to 5m, such as \"200ms\", \"5s\" or \"1m\"".into()
        )
    );
    assert_eq!(ttl("5").0, "`ttl` is 5: it is a number without a unit");
    assert_eq!(ttl("\"1ms\"").0, "`ttl` is \"1ms\": it is too short");
    let said = problems(&format!("{MINIMAL}\n[log]\nmax = \"4GB\""), &[]);
    assert_eq!(said[0].0, "`log.max` is \"4GB\": it has the unit \"GB\", which is not known");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let said = problems("ttl = 1\nnope = 2\n[peer]\nlisten = \"x\"", &[]);
    assert_eq!(said.len(), 3);
    let said = problems("", &[]);
    let missing: Vec<_> = said.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        missing,
        [
            "`node` is missing",
            "`service` is missing",
            "`coordination` is missing",
            "`state_dir` is missing",
            "`mount` is missing",
            "`peer.advertise` is missing",
            "there is no service to run: `process.command` is missing",
        ]
    );
}

#[test]
fn what_sync_cannot_keep_is_refused_with_what_would_do() {
    let table = [
        ("voters = 1", "`voters` is 1", "voters = 3"),
        ("write_quorum = 4", "`write_quorum` is 4, but there are only 3", "a majority, 2"),
        ("suspect_after = \"5s\"", "`suspect_after` is 5s, not below `ttl`, 5s", "2.5s"),
    ];
    for (line, what, fix) in table {
        let said = problems(&format!("{line}\n{MINIMAL}"), &[]);
        assert!(said[0].0.contains(what) && said[0].1.contains(fix), "{line}: {said:?}");
        let text = format!("durability = \"async\"\n{line}\n{MINIMAL}");
        assert!(problems(&text, &[]).is_empty(), "{line}: async asks for none of it");
    }
}

#[test]
fn a_mount_within_the_state_directory_is_refused() {
    let said = problems(&MINIMAL.replace("\"/data\"", "\"/var/lib/mainstay/data\""), &[]);
    assert!(said[0].0.contains("lie within one another"), "{said:?}");
}

#[test]
fn secrets_are_never_shown() {
    let text = MINIMAL.replace("etcd://", "etcds://root:hunter2@");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let document = Document::load(Some(file.path()), env(&[])).unwrap();
    let config = document.run().unwrap();
    let shown = format!("{}{config:?}", document.show());
    assert!(!shown.contains("hush") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(config.secret.expose(), "hush");
}

#[test]
fn a_secret_does_not_belong_into_the_file() {
    let said = problems(&format!("secret = \"x\"\n{MINIMAL}"), &[]);
    assert_eq!(said[0].1, "use MAINSTAY_SECRET or `secret_file`");
}

#[test]
fn foreign_variables_of_our_prefix_only_warn() {
    let all = env(&[("MAINSTAY_PORT", "tcp://10.0.0.1:80"), ("MAINSTAY_LOG", "debug")]);
    let document = Document::load(None, all).unwrap();
    assert_eq!(document.warnings.len(), 1);
    assert!(
        document.warnings[0].starts_with("MAINSTAY_PORT is ignored"),
        "{:?}",
        document.warnings
    );
}

#[test]
fn half_a_pair_is_refused() {
    let said = problems(&format!("{MINIMAL}\n[etcd]\nuser = \"root\""), &[]);
    assert_eq!(said[0].1, "give both or neither");
}
