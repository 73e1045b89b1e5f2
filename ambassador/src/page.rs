//! The status page: what a snapshot says, for a person with a browser.

use std::fmt::Write;

use crate::stats::{Histogram, RouteStats, RouteTarget, Stats, Tally};

const STYLE: &str = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}\
td,th{border:1px solid #ccc;padding:.3em .6em;text-align:right}td:first-child,td.text{\
text-align:left}th{background:#eee}tr.forwarding{background:#dfd}tr.holding{background:#fed}\
tr.retired{color:#888}";

/// Renders a snapshot as one HTML page, without scripts; it reloads itself every 5 s.
pub fn status_page(stats: &Stats) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"refresh\" content=\"5\"><title>Mainstay ambassador</title>\
         <style>{STYLE}</style></head>\n<body><h1>Ambassador</h1>\n\
         <p>{} of at most {} connections open; accepting paused {} times.</p>\n\
         <table><tr><th>route</th><th>listens on</th><th>state</th><th>leads to</th>",
        stats.total.open_now + stats.total.held_now,
        stats.connections_max,
        stats.accept_paused,
    );
    for (name, help, _) in stats.total.columns() {
        let _ = write!(page, "<th title=\"{help}\">{}</th>", name.replace('_', " "));
    }
    page.push_str(
        "<th title=\"Mean and 99th percentile of those who were held.\">hold time</th>\
         <th title=\"Mean and 99th percentile.\">connect time</th></tr>\n",
    );
    for route in &stats.routes {
        row(&mut page, route);
    }
    page.push_str("<tr><td>total</td><td></td><td></td><td></td>");
    numbers(&mut page, &stats.total, &stats.hold_time, &stats.connect_time);
    page.push_str("</table></body></html>\n");
    page
}

/// The rest of a row.
fn numbers(page: &mut String, tally: &Tally, hold: &Histogram, connect: &Histogram) {
    for (_, _, value) in tally.columns() {
        let _ = write!(page, "<td>{value}</td>");
    }
    for histogram in [hold, connect] {
        let _ = match histogram.mean_and_p99_ms() {
            None => write!(page, "<td></td>"),
            Some((mean, None)) => write!(page, "<td>{mean:.1} ms, more</td>"),
            Some((mean, Some(most))) => write!(page, "<td>{mean:.1} ms, &le; {most} ms</td>"),
        };
    }
    page.push_str("</tr>\n");
}

fn row(page: &mut String, route: &RouteStats) {
    let state = match (route.retired, route.forwarding) {
        (true, _) => "retired",
        (false, true) => "forwarding",
        (false, false) => "holding",
    };
    let _ = write!(
        page,
        "<tr class=\"{state}\"><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{state}\
         </td><td class=\"text\">{}</td>",
        escaped(&route.name),
        escaped(&route.listen.to_string()),
        escaped(&target(&route.target)),
    );
    numbers(page, &route.tally, &route.hold_time, &route.connect_time);
}

fn target(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Leader { epoch, leader: None, .. } => format!("no leader (epoch {epoch})"),
        RouteTarget::Leader { epoch, leader: Some(leader), ready, trusted_ms } => {
            let ready = if *ready { "ready" } else { "not ready" };
            format!("{leader}, epoch {epoch}, {ready}, trusted for {trusted_ms} ms")
        }
        RouteTarget::Upstreams(upstreams) => {
            let one = |upstream: &crate::stats::UpstreamStats| {
                let alive = if upstream.alive { "alive" } else { "dead" };
                format!("{} ({alive}, {} open)", upstream.address, upstream.open)
            };
            upstreams.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            char => safe.push(char),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::status_page;
    use crate::stats::example;

    #[test]
    fn the_page_says_who_leads_and_runs_nothing_that_a_name_says() {
        let mut stats = example();
        stats.routes[0].name = "<script>alert(1)</script>".into();
        let page = status_page(&stats);
        assert!(page.contains("10.0.0.1:5432, epoch 7, ready, trusted for 900 ms"), "{page}");
        assert!(page.contains("10.0.0.9:2379 (dead, 0 open)"), "{page}");
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("<td>3.0 ms, &le; 5 ms</td>"), "{page}");
    }
}
