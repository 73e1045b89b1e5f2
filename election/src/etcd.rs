//! The coordinator that is an etcd cluster (3.4 or later).
//!
//! Relied upon: one transaction is atomic and linearizable, reads are linearizable, a lease never
//! ends earlier than its ttl after etcd took the last keepalive, a watch delivers every event in
//! order or says that it cannot. Not used: etcd's election service, which never checks its own
//! key again after it wrote it.
//!
//! Hazard: a transaction whose answer is lost may be applied later, even seconds later. It is
//! never sent twice from here; the caller finds out by reading.

mod fault;
mod members;
mod tls;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Compare as EtcdCompare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp,
};

use crate::address::EtcdOptions;
use crate::coordinator::{
    Compare, Contents, Coordinator, CoordinatorError, Entry, Grant, LeaseId, Outcome, Result,
    Revision, Watch, Write,
};
use crate::request::check_writes;
use fault::explain;
use members::Members;
use watch::EtcdWatch;

/// The keys of one service in an etcd cluster.
pub(crate) struct EtcdCoordinator {
    members: Members,
    root: String,
    patience: Duration,
}

impl EtcdCoordinator {
    /// Connects at the first call, not here. No call takes longer than `patience`.
    pub(crate) fn new(
        members: &[String],
        tls: bool,
        options: &EtcdOptions,
        root: String,
        patience: Duration,
    ) -> Result<EtcdCoordinator> {
        let connection = tls::connect_options(tls, options)?;
        let scheme = if tls { "https" } else { "http" };
        let members = members.iter().map(|member| format!("{scheme}://{member}")).collect();
        Ok(EtcdCoordinator { members: Members::new(members, connection, patience), root, patience })
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    fn compare(&self, compare: Compare) -> Vec<EtcdCompare> {
        let exists = |key: String| EtcdCompare::create_revision(key, CompareOp::Greater, 0);
        match compare {
            Compare::Absent(key) => {
                vec![EtcdCompare::create_revision(self.full(&key), CompareOp::Equal, 0)]
            }
            Compare::Value(key, value) => {
                let key = self.full(&key);
                vec![exists(key.clone()), EtcdCompare::value(key, CompareOp::Equal, value)]
            }
            // To etcd a key that is not there was last put at 0.
            Compare::Modified(key, Revision(at)) => {
                let key = self.full(&key);
                vec![exists(key.clone()), EtcdCompare::mod_revision(key, CompareOp::Equal, at)]
            }
        }
    }

    fn write(&self, write: Write) -> TxnOp {
        match write {
            Write::Put(key, value, lease) => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(self.full(&key), value, options)
            }
            Write::Delete(key) => TxnOp::delete(self.full(&key), None),
        }
    }
}

#[async_trait]
impl Coordinator for EtcdCoordinator {
    async fn read(&self) -> Result<Contents> {
        let answer = self
            .members
            .repeatable(|mut client| async move {
                let options = GetOptions::new().with_prefix();
                client.get(self.root.as_str(), Some(options)).await.map_err(explain)
            })
            .await?;
        let entries =
            answer.kvs().iter().map(|pair| entry(&self.root, pair)).collect::<Result<_>>()?;
        Ok(Contents { revision: revision(answer.header())?, entries })
    }

    async fn transact(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<Outcome> {
        check_writes(&writes)?;
        let compares: Vec<_> =
            compares.into_iter().flat_map(|compare| self.compare(compare)).collect();
        let writes: Vec<_> = writes.into_iter().map(|write| self.write(write)).collect();
        let transaction = Txn::new().when(compares).and_then(writes);
        let answer = self
            .members
            .once(|mut client| async move { client.txn(transaction).await.map_err(explain) })
            .await?;
        if !answer.succeeded() {
            return Ok(Outcome::Refused);
        }
        Ok(Outcome::Done(revision(answer.header())?))
    }

    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        // etcd counts in seconds; a shorter lease than was asked for would be a broken promise.
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000).max(1))
            .map_err(|_| CoordinatorError::Invalid(format!("{ttl:?} is too long for a lease")))?;
        let answer = self
            .members
            .repeatable(async |mut client| client.lease_grant(seconds, None).await.map_err(explain))
            .await?;
        Ok(Grant { id: LeaseId(answer.id()), ttl: length(answer.ttl()).ok_or_else(unclear)? })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        // A stream of its own for each call: on a shared one, the late answer to a call that was
        // given up would be taken for the answer to the next, and the lease for younger than it is.
        self.members
            .repeatable(|mut client| async move {
                let (mut keeper, mut answers) =
                    client.lease_keep_alive(lease.0).await.map_err(explain)?;
                // The client takes the first answer and does not show its ttl.
                keeper.keep_alive().await.map_err(explain)?;
                let answer = answers.message().await.map_err(explain)?.ok_or_else(unclear)?;
                length(answer.ttl()).ok_or(CoordinatorError::LeaseGone)
            })
            .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let answer = self
            .members
            .repeatable(
                |mut client| async move { client.lease_revoke(lease.0).await.map_err(explain) },
            )
            .await;
        match answer {
            Ok(_) | Err(CoordinatorError::LeaseGone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn watch(&self, after: Revision) -> Result<Box<dyn Watch>> {
        let watch = self
            .members
            .repeatable(|client| async move {
                EtcdWatch::begin(client, self.root.clone(), after, self.patience).await
            })
            .await?;
        Ok(Box::new(watch))
    }
}

/// A ttl as etcd says it, if there is any.
fn length(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Result<Revision> {
    header.map(|header| Revision(header.revision())).ok_or_else(unclear)
}

fn unclear() -> CoordinatorError {
    CoordinatorError::Unreachable("etcd's answer lacks what every answer has".to_owned())
}

/// One key below `root`, as etcd has it.
fn entry(root: &str, pair: &KeyValue) -> Result<Entry> {
    let key = std::str::from_utf8(pair.key()).ok().and_then(|key| key.strip_prefix(root));
    Ok(Entry {
        key: key
            .ok_or_else(|| {
                let key = String::from_utf8_lossy(pair.key());
                CoordinatorError::Invalid(format!("etcd's key {key:?} is not UTF-8 below {root}"))
            })?
            .to_owned(),
        value: pair.value().to_vec(),
        created: Revision(pair.create_revision()),
        modified: Revision(pair.mod_revision()),
        lease: (pair.lease() != 0).then_some(LeaseId(pair.lease())),
    })
}
