//! One front door: its listening sockets, the tasks that accept from them, and the route behind.
//!
//! The route can be changed under a running door, which is what a reload does; the sockets can be
//! copied for a successor, which is what a restart does. Neither closes the door.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};

use crate::address::Address;
use crate::config::{RouteConfig, Settings};
use crate::conn::tune;
use crate::listen::{Arrived, Bound, Door};
use crate::route::ClientId;
use crate::router::Router;
use crate::session::serve;
use crate::worker::{Seat, choose};

/// What accepting tasks need.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) connections_max: usize,
    pub(crate) paused: Arc<AtomicU64>,
    pub(crate) next_client: AtomicU64,
    /// Of every forwarding thread.
    pub(crate) seats: Vec<Seat>,
}

/// Routes with port 0 listen each for itself.
pub(crate) type FrontKey = (Address, Option<String>);

/// The listening sockets of one address and the route behind them.
pub(crate) struct Front {
    listen: Address,
    /// Where it really listens.
    pub(crate) address: Address,
    /// Copies to hand over. The sockets live while one copy does.
    sockets: Mutex<Vec<OwnedFd>>,
    router: RwLock<Arc<Router>>,
    stop: watch::Sender<bool>,
    handed_over: AtomicBool,
}

impl Front {
    pub(crate) fn new(listen: Address, bound: Bound, router: Arc<Router>) -> Front {
        Front {
            listen,
            address: bound.address,
            sockets: Mutex::new(bound.sockets),
            router: RwLock::new(router),
            stop: watch::Sender::new(false),
            handed_over: false.into(),
        }
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another route behind the same door.
    pub(crate) fn lead_to(&self, router: Arc<Router>) {
        if !matches!(self.listen, Address::Unix(_)) {
            for socket in self.sockets().iter() {
                if let Err(error) = tune(socket, router.config.keepalive) {
                    tracing::warn!(listen = %self.listen, %error, "keeping the old keepalive");
                }
            }
        }
        *self.router.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// Leaves a Unix socket's file to whoever has a copy of the socket.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Relaxed);
    }

    /// Takes a Unix socket's name away, once: the next one of that name is not ours.
    fn unlink(&self) {
        if let (Address::Unix(path), false) = (&self.listen, self.handed_over.swap(true, Relaxed)) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Each accepting task empties its queue and closes its socket.
    pub(crate) fn close(&self) {
        self.unlink();
        self.sockets().clear();
        self.stop.send_replace(true);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Accepts from one socket until told to stop, then what is left in its queue. `seat`: of the
/// thread that this runs in, among [`Shared::seats`].
pub(crate) async fn accept(front: Arc<Front>, door: Door, shared: Arc<Shared>, seat: usize) {
    let mut stop = front.stop.subscribe();
    loop {
        let arrived = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            arrived = door.accept(&shared.paused) => arrived,
        };
        admit(arrived, &front, &shared, seat).await;
    }
    while let Some(arrived) = door.accept_queued() {
        admit(arrived, &front, &shared, seat).await;
    }
}

/// Starts a client's session once there is room for it; until then its thread accepts no more.
async fn admit(arrived: Arrived, front: &Front, shared: &Shared, seat: usize) {
    let Ok(permit) = shared.connections.clone().acquire_owned().await else { return };
    let router = front.router.read().unwrap_or_else(PoisonError::into_inner).clone();
    let id = ClientId(shared.next_client.fetch_add(1, Relaxed));
    let log = shared.settings.access_log.clone();
    shared.seats[choose(&shared.seats, seat)].spawn(|seated| async move {
        let _counted = (seated, permit);
        match arrived.open() {
            Ok(conn) => serve(conn, router, id, log).await,
            // Out of kernel memory for one more watched socket: the client is reset.
            Err(error) => tracing::warn!(%error, "cannot serve a client"),
        }
    });
}

pub(crate) fn front_key(config: &RouteConfig) -> FrontKey {
    let own = match &config.listen {
        Address::Tcp(tcp) => tcp.port() == 0,
        Address::Host(_, port) => *port == 0,
        Address::Unix(_) => false,
    };
    (config.listen.clone(), own.then(|| config.name.clone()))
}
