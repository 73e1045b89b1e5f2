//! The ambassador's part of the configuration: what holds for all routes, and each route's own.

use mainstay_ambassador::Address;

use super::super::types::{
    AccessLogConfig, AmbassadorConfig, CheckConfig, HoldConfig, KeepaliveConfig, RouteConfig,
    RouteTo,
};
use super::{Builder, count};

/// Every further route's keys stand below here, with its index.
const ROUTE: &str = "ambassador.route";
/// What holds for a route that says nothing else.
const ALL: &str = "ambassador";

impl Builder<'_> {
    pub(super) fn ambassador(&mut self) -> Option<AmbassadorConfig> {
        let document = self.document;
        let mut routes = Vec::new();
        if let Some(listen) = document.text("ambassador.listen") {
            let service = self.required("service", "\"orders-db\"");
            let to = RouteTo::Leader(service.clone());
            routes.push(self.options(ALL, service, listen, to));
        }
        for n in document.indexes(ROUTE) {
            routes.extend(self.route(n));
        }
        if routes.is_empty() {
            self.refuse(
                "ambassador.listen",
                "the ambassador listens nowhere".to_owned(),
                "set `ambassador.listen = \"127.0.0.1:6432\"` or an `[[ambassador.route]]`",
            );
            return None;
        }
        let leaders = routes.iter().find_map(|route| match &route.to {
            RouteTo::Leader(service) => Some(service.clone()),
            RouteTo::Upstreams { .. } => None,
        });
        let log = self.defaulted(document.text("ambassador.access_log"));
        let connections = document.number("ambassador.max_connections");
        Some(AmbassadorConfig {
            cluster: leaders.map(|service| self.coordination_of(service)),
            api_listen: document
                .is_given("ambassador.api.listen")
                .then(|| self.socket("ambassador.api.listen")),
            access_log: match log.as_str() {
                "off" => AccessLogConfig::Off,
                "stdout" => AccessLogConfig::Stdout,
                path => AccessLogConfig::File(path.into()),
            },
            connections_max: count(self.defaulted(connections)),
            drain_timeout: self.defaulted(document.duration("ambassador.drain_timeout")),
            routes,
        })
    }

    fn route(&mut self, n: usize) -> Option<RouteConfig> {
        let document = self.document;
        let prefix = format!("{ROUTE}.{n}");
        let at = |name: &str| format!("{prefix}.{name}");
        let leader = document.text(&at("service"));
        let upstreams = document.words(&at("upstreams"));
        let to = match (leader, upstreams) {
            (Some(service), None) => RouteTo::Leader(service),
            (None, Some(addresses)) => RouteTo::Upstreams {
                addresses: self.upstreams(&at("upstreams"), addresses),
                first_alive: document.text(&at("order")).as_deref() == Some("first-alive"),
                check: CheckConfig {
                    interval: self.defaulted(document.duration(&at("check.interval"))),
                    timeout: self.defaulted(document.duration(&at("check.timeout"))),
                    rise: count(self.defaulted(document.number(&at("check.rise")))),
                    fall: count(self.defaulted(document.number(&at("check.fall")))),
                },
            },
            _ => {
                self.refuse(
                    &at("listen"),
                    format!("`{prefix}` must lead to one of two"),
                    "give either `service` or `upstreams`",
                );
                return None;
            }
        };
        let listen = self.required(&at("listen"), "\"127.0.0.1:6432\"");
        let name = document.text(&at("name")).unwrap_or_else(|| format!("route-{n}"));
        Some(self.options(&prefix, name, listen, to))
    }

    /// The addresses, each of which must be one.
    fn upstreams(&mut self, path: &str, addresses: Vec<String>) -> Vec<String> {
        for text in &addresses {
            if let Err(error) = text.parse::<Address>() {
                let fix = "name each upstream so that it can be connected to";
                self.refuse(path, format!("`{path}`: {error}"), fix);
            }
        }
        addresses
    }

    /// A route whose options stand below `prefix`, or else below [`ALL`].
    fn options(&self, prefix: &str, name: String, listen: String, to: RouteTo) -> RouteConfig {
        let document = self.document;
        let path = |name: &str| {
            let own = format!("{prefix}.{name}");
            if document.is_given(&own) { own } else { format!("{ALL}.{name}") }
        };
        let number = |name| count(self.defaulted(document.number(&path(name))));
        let span = |name| self.defaulted(document.duration(&path(name)));
        // Below `ALL` these two are about the whole ambassador.
        let own = |name: &str| (prefix != ALL).then(|| format!("{prefix}.{name}"));
        let connections_max = own("max_connections").and_then(|path| document.number(&path));
        let access_log = own("access_log").and_then(|path| document.bool(&path));
        RouteConfig {
            name,
            listen,
            to,
            hold: HoldConfig { max: number("hold.max"), timeout: span("hold.timeout") },
            connect_timeout: span("connect_timeout"),
            idle_timeout: document.duration(&path("idle_timeout")),
            keepalive: KeepaliveConfig {
                idle: span("keepalive.idle"),
                interval: span("keepalive.interval"),
                probes: number("keepalive.probes"),
            },
            connections_max: connections_max.map(count),
            proxy_protocol: match document.text(&path("proxy_protocol")).as_deref() {
                Some("v1") => Some(1),
                Some("v2") => Some(2),
                _ => None,
            },
            accept_proxy: self.defaulted(document.bool(&path("accept_proxy"))),
            access_log: access_log.unwrap_or(true),
        }
    }
}
