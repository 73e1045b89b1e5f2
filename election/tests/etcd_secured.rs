//! etcd that asks who we are: certificates on either end, passwords, and tokens that expire while
//! a replica has nothing to say.
#![allow(clippy::print_stderr, reason = "skipped tests are named there")]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Permission, PermissionType, TlsOptions};
use mainstay_election::coordinator::{
    Compare, Coordinator, CoordinatorError, Event, Outcome, Write,
};
use mainstay_election::{EtcdOptions, Login};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use support::etcd::{Cluster, Options, installed};
use support::{PATIENT_TTL, coordinator, despite_stalls, eventually, next};
use tempfile::TempDir;

/// A CA, and what it signed, as PEM files.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let directory = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a CA of this test");
        let certificate = params.self_signed(&key).expect("signed");
        fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("written");
        Authority { directory, issuer: Issuer::new(params, key) }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for `host` and its key, for either end of a connection: etcd's own gateway
    /// uses the server's as a client.
    fn sign(&self, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let at = |suffix| self.directory.path().join(format!("{host}.{suffix}"));
        fs::write(at("pem"), certificate.pem()).expect("written");
        fs::write(at("key"), key.serialize_pem()).expect("written");
        (at("pem"), at("key"))
    }

    /// How a member proves that it is `host`.
    fn server(&self, host: Ipv4Addr) -> Options {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (certificate, key) = self.sign(&host.to_string());
        let arguments =
            vec!["--cert-file".into(), text(&certificate), "--key-file".into(), text(&key)];
        Options { arguments, tls: true }
    }
}

async fn connect(cluster: &Cluster, options: &EtcdOptions, ttl: Duration) -> Arc<dyn Coordinator> {
    coordinator(&format!("etcds://{}", cluster.members()), options, "s", ttl).await
}

fn put(key: &str) -> Vec<Write> {
    vec![Write::Put(key.into(), b"v".to_vec(), None)]
}

fn unreachable<T>(answer: Result<T, CoordinatorError>) -> String {
    match answer {
        Err(CoordinatorError::Unreachable(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_at_both_ends() {
    if installed("certificates_are_checked_at_both_ends") {
        despite_stalls("certificates_are_checked_at_both_ends", |_| check_certificates()).await;
    }
}

async fn check_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let cluster = Cluster::start(1, |host| {
        let mut options = authority.server(host);
        let ca = authority.ca().to_str().expect("UTF-8").to_owned();
        options.arguments.extend(["--client-cert-auth".into(), "--trusted-ca-file".into(), ca]);
        options
    });
    let identity = Some(authority.sign("client"));
    let options = EtcdOptions { ca: Some(authority.ca()), identity: identity.clone(), login: None };
    let us = connect(&cluster, &options, PATIENT_TTL).await;
    // It listens before it has elected itself.
    eventually("a write", async || us.transact(vec![], put("k")).await.ok()).await;
    let mut watch = us.watch(us.read().await.expect("a read").revision).await.expect("a watch");
    us.transact(vec![], put("k")).await.expect("written");
    assert!(matches!(next(&mut watch).await, Event::Put(_)));

    let wrong_ca = EtcdOptions { ca: Some(stranger.ca()), ..options.clone() };
    let text = unreachable(connect(&cluster, &wrong_ca, PATIENT_TTL).await.read().await);
    assert!(text.contains("certificate"), "the cause is not told: {text}");
    let none = EtcdOptions { identity: None, ..options.clone() };
    unreachable(connect(&cluster, &none, PATIENT_TTL).await.read().await);
    let forged = EtcdOptions { identity: Some(stranger.sign("client")), ..options };
    unreachable(connect(&cluster, &forged, PATIENT_TTL).await.read().await);
}

/// Makes the user `ann`, who may use the keys of service `s`, and closes the door to all others.
async fn require_login(cluster: &Cluster, ca: &Path) {
    let ca = Certificate::from_pem(fs::read(ca).expect("the CA"));
    let options = ConnectOptions::new().with_tls(TlsOptions::new().ca_certificate(ca));
    let member = [format!("https://{}", cluster.members())];
    let mut client = etcd_client::Client::connect(member, Some(options)).await.expect("a client");
    eventually("etcd takes writes", async || client.kv_client().put("x", "", None).await.ok())
        .await;
    let permission = Permission::new(PermissionType::Readwrite, "/mainstay/s/").with_prefix();
    client.role_add("replica").await.expect("a role");
    client.role_grant_permission("replica", permission).await.expect("granted");
    client.user_add("ann", "p@ss:word", None).await.expect("a user");
    client.user_grant_role("ann", "replica").await.expect("granted");
    client.user_add("root", "root", None).await.expect("a user");
    client.user_grant_role("root", "root").await.expect("granted");
    client.auth_enable().await.expect("enabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_lasts_though_its_tokens_expire() {
    if installed("a_login_lasts_though_its_tokens_expire") {
        despite_stalls("a_login_lasts_though_its_tokens_expire", |_| outlive_tokens()).await;
    }
}

async fn outlive_tokens() {
    let authority = Authority::new();
    let cluster = Cluster::start(1, |host| {
        let mut options = authority.server(host);
        let more = ["--auth-token", "simple", "--auth-token-ttl", "1", "--bcrypt-cost", "4"];
        options.arguments.extend(more.map(String::from));
        options
    });
    require_login(&cluster, &authority.ca()).await;
    let ca = Some(authority.ca());
    let login = Login { user: "ann".into(), password: "p@ss:word".into() };
    let options = EtcdOptions { ca: ca.clone(), identity: None, login: Some(login) };

    // Each kind of call is the first one after the token has expired.
    let us = connect(&cluster, &options, PATIENT_TTL).await;
    us.transact(vec![], put("k")).await.expect("written");
    let lease = us.grant(PATIENT_TTL).await.expect("a lease").id;
    expire().await;
    let known = us.read().await.expect("a read").revision;
    expire().await;
    let mut watch = us.watch(known).await.expect("a watch");
    expire().await;
    let compares = vec![Compare::Absent("new".into())];
    let outcome = us.transact(compares, put("new")).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
    let event = next(&mut watch).await;
    assert!(matches!(&event, Event::Put(entry) if entry.key == "new"), "{event:?}");
    expire().await;
    us.keep_alive(lease).await.expect("kept");
    us.grant(PATIENT_TTL).await.expect("a lease");
    expire().await;
    us.revoke(lease).await.expect("revoked");

    // In the address it does as well.
    let address = format!("etcds://ann:p@ss:word@{}", cluster.members());
    let in_address = EtcdOptions { ca: ca.clone(), ..EtcdOptions::default() };
    coordinator(&address, &in_address, "s", PATIENT_TTL).await.read().await.expect("a read");
    let other = coordinator(&address, &in_address, "other", PATIENT_TTL).await;
    let answers = [
        other.read().await.err(),
        other.transact(vec![], put("k")).await.err(),
        other.watch(known).await.err(),
    ];
    for answer in answers {
        assert!(matches!(answer, Some(CoordinatorError::Denied(_))), "{answer:?}");
    }
    for login in [None, Some(Login { user: "ann".into(), password: "guess".into() })] {
        let options = EtcdOptions { ca: ca.clone(), identity: None, login };
        let answer = connect(&cluster, &options, PATIENT_TTL).await.read().await;
        assert!(matches!(answer, Err(CoordinatorError::Denied(_))), "{answer:?}");
    }
}

/// Until a token that was just used is no longer known: etcd looks once a second.
async fn expire() {
    tokio::time::sleep(Duration::from_secs(4)).await;
}
