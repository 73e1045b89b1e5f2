//! Metrics as Prometheus reads them, written afresh from a snapshot of the parts each time.
//!
//! The parts count for themselves; nothing here is shared or locked.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A label's name and value.
pub type Label<'a> = (&'a str, &'a str);

/// One snapshot's metrics, by name.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    families: BTreeMap<String, Family>,
}

#[derive(Clone, Debug)]
struct Family {
    kind: &'static str,
    help: String,
    /// What stands after the name, and the value.
    samples: Vec<(String, f64)>,
}

/// A distribution: how many values were at most each bound.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<'a> {
    /// Each bound with the number of values at most it, rising, in the metric's unit.
    pub buckets: &'a [(f64, u64)],
    /// How many values there were in all.
    pub count: u64,
    /// What they add up to.
    pub sum: f64,
}

impl Metrics {
    /// Adds a value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: f64) {
        self.add(name, "gauge", help, labelled("", labels, None), value);
    }

    /// Adds a value that only goes up; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[Label<'_>], value: u64) {
        self.add(name, "counter", help, labelled("", labels, None), value as f64);
    }

    /// Adds a distribution.
    pub fn histogram(&mut self, name: &str, help: &str, labels: &[Label<'_>], of: Histogram<'_>) {
        let bounds = of.buckets.iter().map(|(bound, count)| (bound.to_string(), *count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), of.count)]) {
            let after = labelled("_bucket", labels, Some(("le", &bound)));
            self.add(name, "histogram", help, after, count as f64);
        }
        self.add(name, "histogram", help, labelled("_sum", labels, None), of.sum);
        self.add(name, "histogram", help, labelled("_count", labels, None), of.count as f64);
    }

    fn add(&mut self, name: &str, kind: &'static str, help: &str, after: String, value: f64) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind,
            help: help.to_owned(),
            samples: Vec::new(),
        });
        family.samples.push((after, value));
    }

    /// The text that Prometheus reads (version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.families {
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {}", family.kind);
            for (after, value) in &family.samples {
                let _ = writeln!(out, "{name}{after} {value}");
            }
        }
        out
    }
}

fn labelled(suffix: &str, labels: &[Label<'_>], further: Option<Label<'_>>) -> String {
    let texts = labels.iter().copied().chain(further).map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { suffix.to_owned() } else { format!("{suffix}{{{}}}", texts.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_prometheus_wants_it() {
        let mut metrics = Metrics::default();
        metrics.gauge("mainstay_epoch", "The epoch.", &[], 7.0);
        metrics.counter("mainstay_cut_total", "Cut.", &[("route", "a\"b")], 2);
        let of = Histogram { buckets: &[(0.5, 1), (1.0, 3)], count: 4, sum: 9.5 };
        metrics.histogram("mainstay_fsync_seconds", "Of fsyncs.", &[], of);
        let wanted = "\
# HELP mainstay_cut_total Cut.
# TYPE mainstay_cut_total counter
mainstay_cut_total{route=\"a\\\"b\"} 2
# HELP mainstay_epoch The epoch.
# TYPE mainstay_epoch gauge
mainstay_epoch 7
# HELP mainstay_fsync_seconds Of fsyncs.
# TYPE mainstay_fsync_seconds histogram
mainstay_fsync_seconds_bucket{le=\"0.5\"} 1
mainstay_fsync_seconds_bucket{le=\"1\"} 3
mainstay_fsync_seconds_bucket{le=\"+Inf\"} 4
mainstay_fsync_seconds_sum 9.5
mainstay_fsync_seconds_count 4
";
        assert_eq!(metrics.render(), wanted);
    }
}
