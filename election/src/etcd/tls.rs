//! How a connection to etcd proves who is at either end.

use std::path::Path;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::address::EtcdOptions;
use crate::coordinator::{CoordinatorError, Result};

/// What every connection to the cluster has in common.
pub(super) fn connect_options(tls: bool, options: &EtcdOptions) -> Result<ConnectOptions> {
    let mut connection = ConnectOptions::new()
        // A member that lost its leader may be cut off for good: it must say so instead of
        // answering from what it remembers.
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(login) = &options.login {
        connection = connection.with_user(&login.user, &login.password);
    }
    match (tls, &options.ca) {
        (true, Some(ca)) => Ok(connection.with_tls(tls_options(ca, options)?)),
        (true, None) => Err(CoordinatorError::Invalid(
            "etcds:// needs the CA that signed etcd's certificates: set etcd.ca to its PEM file"
                .to_owned(),
        )),
        (false, None) if options.identity.is_none() => Ok(connection),
        (false, _) => Err(CoordinatorError::Invalid(
            "certificates for etcd are set, but the address begins with etcd://, which is not \
             encrypted: write etcds://"
                .to_owned(),
        )),
    }
}

fn tls_options(ca: &Path, options: &EtcdOptions) -> Result<TlsOptions> {
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(pem(ca)?));
    if let Some((certificate, key)) = &options.identity {
        tls = tls.identity(Identity::from_pem(pem(certificate)?, pem(key)?));
    }
    Ok(tls)
}

fn pem(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        CoordinatorError::Invalid(format!("cannot read {}, for etcd: {error}", path.display()))
    })
}
