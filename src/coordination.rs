//! From the configuration to a running coordinator.

use std::sync::Arc;

use mainstay_election::coordinator::{Coordinator, CoordinatorError};
use mainstay_election::{CoordinationAddress, EtcdOptions, Login, connect as open};

use crate::config::ClusterConfig;

/// Connects as configured. An etcd that does not answer yet is no error here.
///
/// # Errors
/// The address or a file that it needs is unusable.
pub async fn connect(config: &ClusterConfig) -> Result<Arc<dyn Coordinator>, CoordinatorError> {
    connect_to(config, &config.service).await
}

/// The same coordinator, for another service's keys.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to(
    config: &ClusterConfig,
    service: &str,
) -> Result<Arc<dyn Coordinator>, CoordinatorError> {
    let invalid = |what: String| CoordinatorError::Invalid(what);
    let address: CoordinationAddress =
        config.coordination.parse().map_err(|error| invalid(format!("coordination: {error}")))?;
    let etcd = &config.etcd;
    let login = match (&etcd.user, &etcd.password_file) {
        (Some(user), Some(file)) => {
            let password = std::fs::read_to_string(file).map_err(|error| {
                invalid(format!("etcd.password_file {}: {error}", file.display()))
            })?;
            Some(Login { user: user.clone(), password: password.trim().to_owned() })
        }
        _ => None,
    };
    let identity = etcd.cert.clone().zip(etcd.key.clone());
    let options = EtcdOptions { ca: etcd.ca.clone(), identity, login };
    open(&address, &options, service, config.ttl).await
}
