//! Coordinators' addresses, right and wrong.

use super::*;

fn members(text: &str) -> Vec<String> {
    match text.parse() {
        Ok(CoordinationAddress::Etcd { members, .. }) => members,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn etcd_addresses_name_every_member() {
    assert_eq!(members("etcd://10.0.0.1:2379,db2:4001"), ["10.0.0.1:2379", "db2:4001"]);
    assert_eq!(members("etcd://db1,[::1],[::1]:99/"), ["db1:2379", "[::1]:2379", "[::1]:99"]);
}

#[test]
fn a_login_is_understood_and_never_shown() {
    let address: CoordinationAddress = "etcds://ann:p@ss:word@db1:1".parse().expect("an address");
    let login = Login { user: "ann".into(), password: "p@ss:word".into() };
    assert_eq!(
        address,
        CoordinationAddress::Etcd {
            members: vec!["db1:1".into()],
            tls: true,
            login: Some(login.clone())
        }
    );
    assert_eq!(address.to_string(), "etcds://ann:***@db1:1");
    for shown in [format!("{address:?}"), format!("{login:?}")] {
        assert!(!shown.contains("p@ss"), "{shown}");
    }
    let error = "etcd://secretonly@db1".parse::<CoordinationAddress>().expect_err("no login");
    assert!(!error.to_string().contains("secretonly"), "{error}");
}

#[test]
fn sqlite_addresses_are_absolute() {
    let address: CoordinationAddress = "sqlite:///var/lib/c.db".parse().expect("an address");
    assert_eq!(address, CoordinationAddress::Sqlite { path: "/var/lib/c.db".into() });
    assert_eq!(address.to_string(), "sqlite:///var/lib/c.db");
    for bad in ["sqlite://c.db", "sqlite://", "sqlite:///"] {
        let error = bad.parse::<CoordinationAddress>().expect_err(bad);
        assert!(error.to_string().contains("three slashes"), "{error}");
    }
}

#[test]
fn errors_name_what_is_wrong_and_what_would_do() {
    for (bad, part) in [
        ("consul://x", "not with \"consul://\""),
        ("10.0.0.1:2379", "begins with `etcd://`"),
        ("etcd://", "the host is missing"),
        ("etcd://a:1,,b:2", "the host is missing"),
        ("etcd://a:0", "\"a:0\" is not an etcd member: the port"),
        ("etcd://a:http", "the port is not a number"),
        ("etcd://::1:2379", "goes in brackets"),
        ("etcd://[zz]:1", "no IPv6 address"),
        ("etcd://http://a:1", "is not an etcd member"),
        ("etcd://a b:1", "no host name has"),
    ] {
        let error = bad.parse::<CoordinationAddress>().expect_err(bad).to_string();
        assert!(error.contains(part), "{bad}: {error}");
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_anything_is_contacted() {
    let connect = async |text: &str, options: &EtcdOptions, service: &str| {
        let address = text.parse().expect("an address");
        match connect(&address, options, service, Duration::from_secs(5)).await {
            Err(CoordinatorError::Invalid(text)) => text,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{text} was taken"),
        }
    };
    let none = EtcdOptions::default();
    assert!(connect("etcd://a:1", &none, "a/b").await.contains("\"a/b\""));
    assert!(connect("etcds://a:1", &none, "s").await.contains("CA"));
    let options = EtcdOptions { ca: Some("/nowhere/ca.pem".into()), ..EtcdOptions::default() };
    assert!(connect("etcds://a:1", &options, "s").await.contains("/nowhere/ca.pem"));
    assert!(connect("etcd://a:1", &options, "s").await.contains("etcds://"));
}
