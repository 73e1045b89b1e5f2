//! The counts as Prometheus text (exposition format 0.0.4).

use std::fmt::Write;

use crate::stats::{Histogram, RouteStats, RouteTarget, Stats};

/// Renders a snapshot for a scrape.
pub fn prometheus_text(stats: &Stats) -> String {
    let mut text = String::new();
    // A route being replaced has two lines of one name; a scrape takes one sample per label set.
    let routes: Vec<&RouteStats> = stats.routes.iter().filter(|route| !route.retired).collect();
    for (column, (name, help, _)) in stats.total.columns().into_iter().enumerate() {
        let gauge = name.ends_with("_now");
        let (kind, suffix) = if gauge { ("gauge", "") } else { ("counter", "_total") };
        let metric = format!("mainstay_ambassador_{name}{suffix}");
        head(&mut text, &metric, help, kind);
        for route in &routes {
            let value = route.tally.columns()[column].2;
            line(&mut text, &metric, &[("route", &route.name)], value);
        }
    }
    for (name, help, value) in stats.total.columns() {
        let gauge = name.ends_with("_now");
        let (kind, suffix) = if gauge { ("gauge", "") } else { ("counter", "_total") };
        // A name of its own: beside the routes' lines a sum over them would count it twice.
        let metric = format!("mainstay_ambassador_all_{name}{suffix}");
        head(&mut text, &metric, &format!("{help} Over all routes, former ones too."), kind);
        line(&mut text, &metric, &[], value);
    }
    let metric = "mainstay_ambassador_forwarding";
    head(&mut text, metric, "1 if an arriving client would be forwarded.", "gauge");
    for route in &routes {
        line(&mut text, metric, &[("route", &route.name)], u64::from(route.forwarding));
    }
    targets(&mut text, &routes);
    histogram(&mut text, "hold", "Time that held clients waited.", &routes, |r| &r.hold_time);
    histogram(&mut text, "connect", "Time to connect to a target.", &routes, |r| &r.connect_time);
    for (name, of) in [("all_hold", &stats.hold_time), ("all_connect", &stats.connect_time)] {
        let metric = format!("mainstay_ambassador_{name}_seconds");
        head(&mut text, &metric, "As each route's, over all, former ones too.", "histogram");
        samples(&mut text, &metric, &[], of);
    }
    let metric = "mainstay_ambassador_accept_paused_total";
    head(&mut text, metric, "Pauses for want of descriptors or memory.", "counter");
    line(&mut text, metric, &[], stats.accept_paused);
    let metric = "mainstay_ambassador_connections_max";
    head(&mut text, metric, "Most clients served at once.", "gauge");
    line(&mut text, metric, &[], stats.connections_max as u64);
    text
}

fn targets(text: &mut String, routes: &[&RouteStats]) {
    let metric = "mainstay_ambassador_epoch";
    head(text, metric, "Newest epoch heard of.", "gauge");
    for route in routes {
        if let RouteTarget::Leader { epoch, .. } = &route.target {
            line(text, metric, &[("route", &route.name)], *epoch);
        }
    }
    let metric = "mainstay_ambassador_upstream_alive";
    head(text, metric, "1 if the upstream's checks pass.", "gauge");
    for route in routes {
        let RouteTarget::Upstreams(upstreams) = &route.target else { continue };
        for upstream in upstreams {
            let address = upstream.address.to_string();
            let labels = [("route", route.name.as_str()), ("upstream", &address)];
            line(text, metric, &labels, u64::from(upstream.alive));
        }
    }
}

fn histogram(
    text: &mut String,
    name: &str,
    help: &str,
    routes: &[&RouteStats],
    of: impl Fn(&RouteStats) -> &Histogram,
) {
    let metric = format!("mainstay_ambassador_{name}_seconds");
    head(text, &metric, help, "histogram");
    for route in routes {
        samples(text, &metric, &[("route", &route.name)], of(route));
    }
}

fn samples(text: &mut String, metric: &str, labels: &[(&str, &str)], of: &Histogram) {
    let bucket = format!("{metric}_bucket");
    let bounds = of.at_most_ms.iter().map(|(ms, count)| ((*ms as f64 / 1e3).to_string(), *count));
    for (bound, count) in bounds.chain([("+Inf".to_owned(), of.count)]) {
        let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
        line(text, &bucket, &labels, count);
    }
    line(text, &format!("{metric}_sum"), labels, of.sum_us as f64 / 1e6);
    line(text, &format!("{metric}_count"), labels, of.count);
}

fn head(text: &mut String, metric: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {metric} {help}\n# TYPE {metric} {kind}");
}

fn line(text: &mut String, metric: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    text.push_str(metric);
    for (index, (label, is)) in labels.iter().enumerate() {
        let is = is.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{}{label}=\"{is}\"", if index == 0 { '{' } else { ',' });
    }
    let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
mod tests {
    use super::prometheus_text;
    use crate::stats::example;

    #[test]
    fn a_scrape_reads_as_specified() {
        let text = prometheus_text(&example());
        for wanted in [
            "# TYPE mainstay_ambassador_open_now gauge\n",
            "mainstay_ambassador_open_now{route=\"pg\\\"1\\\"\"} 3\n",
            "# TYPE mainstay_ambassador_cut_total counter\n",
            "mainstay_ambassador_epoch{route=\"pg\\\"1\\\"\"} 7\n",
            "mainstay_ambassador_upstream_alive{route=\"etcd\",upstream=\"10.0.0.9:2379\"} 0\n",
            "mainstay_ambassador_hold_seconds_bucket{route=\"etcd\",le=\"0.005\"} 1\n",
            "mainstay_ambassador_hold_seconds_bucket{route=\"etcd\",le=\"+Inf\"} 1\n",
            "mainstay_ambassador_hold_seconds_sum{route=\"etcd\"} 0.003\n",
            "mainstay_ambassador_accept_paused_total 2\n",
            "mainstay_ambassador_all_arrived_total 9\n",
            "mainstay_ambassador_all_hold_seconds_bucket{le=\"0.005\"} 2\n",
            "mainstay_ambassador_all_hold_seconds_count 2\n",
        ] {
            assert!(text.contains(wanted), "no `{wanted}` in\n{text}");
        }
    }
}
