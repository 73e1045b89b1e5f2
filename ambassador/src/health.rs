//! Health checks of static upstreams: can it be connected to?

use std::sync::Weak;

use tokio::time::sleep;

use crate::config::{Keepalive, UpstreamsConfig};
use crate::dial::dial;
use crate::router::Router;

/// Checks one upstream for as long as its route lives.
pub(crate) async fn check(router: Weak<Router>, upstreams: UpstreamsConfig, index: usize) {
    loop {
        let checked =
            dial(&upstreams.addresses[index], upstreams.check_timeout, Keepalive::default()).await;
        let Some(router) = router.upgrade() else { return };
        router.checked(index, checked.is_ok());
        drop(router);
        if let Ok(conn) = checked {
            conn.reset(); // leaves no TIME_WAIT behind
        }
        sleep(upstreams.check_interval).await;
    }
}
