//! From single observations to leaderships.

use super::Reign;
use super::coordinator::Change;
use super::metrics::Sample;

/// Leaderships as the coordinator's key `leader` shows them.
#[must_use]
pub fn from_coordinator(changes: &[Change]) -> Vec<Reign> {
    let mut reigns: Vec<Reign> = Vec::new();
    for change in changes.iter().filter(|change| change.key == "leader") {
        let Some(value) = &change.value else {
            if let Some(reign) = reigns.last_mut() {
                reign.ended.get_or_insert(change.at);
            }
            continue;
        };
        let (Some(epoch), Some(node)) = (value["epoch"].as_u64(), value["node"].as_str()) else {
            continue;
        };
        let is_same = |last: &Reign| last.epoch == epoch && last.node == node;
        if !reigns.last().is_some_and(is_same) {
            if let Some(before) = reigns.last_mut() {
                before.ended.get_or_insert(change.at);
            }
            let (began, node) = (change.at, node.to_owned());
            reigns.push(Reign { epoch, node, began, ready: None, ended: None });
        }
        let reign = reigns.last_mut().expect("one is there now");
        // The key may be lost with its lease and put again by the same leader.
        reign.ended = None;
        if value["ready"] == true {
            reign.ready.get_or_insert(change.at);
        }
    }
    reigns
}

/// Leaderships as the replicas themselves tell of them, once their service is ready; rougher.
#[must_use]
pub fn from_samples(samples: &[Sample]) -> Vec<Reign> {
    let mut reigns: Vec<Reign> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.leading && sample.ready) {
        let known = reigns
            .iter_mut()
            .find(|reign| reign.epoch == sample.epoch && reign.node == sample.node);
        match known {
            Some(reign) => reign.ended = Some(sample.at),
            None => reigns.push(Reign {
                epoch: sample.epoch,
                node: sample.node.clone(),
                began: sample.at,
                ready: Some(sample.at),
                ended: None,
            }),
        }
    }
    reigns
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn leader(at: u64, value: Option<&str>) -> Change {
        Change {
            at: Duration::from_secs(at),
            key: "leader".to_owned(),
            value: value.map(|text| serde_json::from_str(text).expect("JSON")),
        }
    }

    #[test]
    fn a_reign_lasts_from_its_key_to_the_next() {
        let changes = [
            leader(1, Some(r#"{"epoch":1,"node":"a","ready":false}"#)),
            leader(2, Some(r#"{"epoch":1,"node":"a","ready":true}"#)),
            leader(5, None),
            leader(6, Some(r#"{"epoch":2,"node":"b","ready":false}"#)),
        ];
        let seconds = Duration::from_secs;
        let first = Reign {
            epoch: 1,
            node: "a".to_owned(),
            began: seconds(1),
            ready: Some(seconds(2)),
            ended: Some(seconds(5)),
        };
        let second =
            Reign { epoch: 2, node: "b".to_owned(), began: seconds(6), ready: None, ended: None };
        assert_eq!(from_coordinator(&changes), [first, second]);
    }
}
