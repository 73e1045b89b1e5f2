//! The configuration's routes as the ambassador takes them.

use mainstay_ambassador::{
    Address, AddressError, Hold, Keepalive, Order, ProxyVersion, RouteConfig as Route, Source,
    UpstreamsConfig,
};

use super::ProxyError;
use crate::config::{AccessLogConfig, AmbassadorConfig, CheckConfig, RouteConfig};

/// One route, leading to `source`.
pub(super) fn route(
    config: &AmbassadorConfig,
    route: &RouteConfig,
    source: Source,
) -> Result<Route, ProxyError> {
    let keepalive = route.keepalive;
    Ok(Route {
        name: route.name.clone(),
        listen: address(route, &route.listen)?,
        source,
        hold: Hold { max: size(route.hold.max), timeout: route.hold.timeout },
        open_max: route.connections_max.map(size),
        connect_timeout: route.connect_timeout,
        idle_timeout: route.idle_timeout,
        keepalive: Keepalive {
            idle: keepalive.idle,
            interval: keepalive.interval,
            probes: keepalive.probes,
        },
        proxy_in: route.accept_proxy,
        proxy_out: route.proxy_protocol.map(|version| match version {
            1 => ProxyVersion::V1,
            _ => ProxyVersion::V2,
        }),
        access_log: route.access_log && config.access_log != AccessLogConfig::Off,
    })
}

/// The fixed addresses of a route.
pub(super) fn upstreams(
    route: &RouteConfig,
    addresses: &[String],
    first_alive: bool,
    check: CheckConfig,
) -> Result<UpstreamsConfig, ProxyError> {
    let addresses = addresses.iter().map(|text| address(route, text)).collect::<Result<_, _>>()?;
    Ok(UpstreamsConfig {
        addresses,
        order: if first_alive { Order::FirstAlive } else { Order::LeastConnections },
        check_interval: check.interval,
        check_timeout: check.timeout,
        rise: check.rise,
        fall: check.fall,
    })
}

fn address(route: &RouteConfig, text: &str) -> Result<Address, ProxyError> {
    text.parse().map_err(|error: AddressError| ProxyError::Route {
        route: route.name.clone(),
        why: error.to_string(),
    })
}

pub(super) fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
