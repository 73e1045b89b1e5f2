//! The report as one page that needs nothing else: what was found first, then the run as a picture.

use std::fmt::Write;

use super::Report;
use super::picture;
use super::summary::by_kind;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;color:#1d2430;max-width:1120px;margin:32px auto;padding:0 16px}
h1{font-size:26px;margin:0}h2{font-size:18px;margin:36px 0 8px}
.sub{color:#5b6675;margin:4px 0 16px}
.verdict{display:inline-block;padding:4px 12px;border-radius:6px;font-weight:600;color:#fff}
.good{background:#1a7f4b}.bad{background:#b3261e}
code{background:#f1f3f6;border-radius:4px;padding:2px 6px;font-size:13px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:left;color:#5b6675;font-weight:500;border-bottom:1px solid #ccd3dc}
td,th{padding:5px 10px 5px 0;vertical-align:top}td.n,th.n{text-align:right}
tr+tr td{border-top:1px solid #eceff3}
.ok{color:#1a7f4b;font-weight:600}.no{color:#b3261e;font-weight:600}
.violation{color:#b3261e;font-size:13px}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:#5b6675}
";

impl Report {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let mut page = String::new();
        let (class, verdict) = match self.findings.iter().filter(|f| !f.is_clean()).count() {
            0 => ("good", "all checks passed".to_owned()),
            1 => ("bad", "1 check failed".to_owned()),
            count => ("bad", format!("{count} checks failed")),
        };
        let _ = write!(
            page,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>chaos: seed {seed}\
             </title><style>{STYLE}</style><h1>Seed {seed}: {count} faults in {lasted:.0} s</h1>\
             <p class=\"sub\">{setting}</p><p><span class=\"verdict {class}\">{verdict}</span></p>\
             <p>Again: <code>{replay}</code></p>",
            seed = self.seed,
            count = self.faults.iter().filter(|fault| fault.skipped.is_none()).count(),
            lasted = self.lasted.as_secs_f64(),
            setting = escaped(&self.setting),
            replay = escaped(&self.replay),
        );
        self.findings_to(&mut page);
        page.push_str("<h2>What happened</h2>");
        page.push_str(&picture::timeline(self));
        self.kinds_to(&mut page);
        self.failovers_to(&mut page);
        self.faults_to(&mut page);
        page.push_str("</html>\n");
        page
    }

    fn findings_to(&self, page: &mut String) {
        page.push_str("<h2>What was checked</h2><table>");
        for finding in &self.findings {
            let (class, mark) = if finding.is_clean() { ("ok", "ok") } else { ("no", "failed") };
            let _ = write!(
                page,
                "<tr><td class=\"{class}\">{mark}</td><td>{}",
                escaped(&finding.check)
            );
            for violation in finding.violations.iter().take(10) {
                let _ = write!(page, "<div class=\"violation\">{}</div>", escaped(violation));
            }
            let _ = write!(page, "</td><td>{}</td></tr>", escaped(&finding.looked_at));
        }
        page.push_str("</table>");
    }

    fn kinds_to(&self, page: &mut String) {
        page.push_str(
            "<h2>How long writes stood still, by fault</h2><p class=\"sub\">The longest time \
             without an acknowledged write, from the fault until things had settled. Only faults \
             that no other was near are measured; each is a dot.</p><table><tr><th>fault<th>what \
             happens<th class=\"n\">made<th class=\"n\">new epochs<th class=\"n\">median<th \
             class=\"n\">max<th>",
        );
        let rows = by_kind([self]);
        let largest = rows.iter().filter_map(|row| row.pauses.last()).max().copied();
        for row in &rows {
            let (median, max) = row.median_and_max().map_or_else(
                || ("–".to_owned(), "–".to_owned()),
                |(median, max)| (picture::seconds(median), picture::seconds(max)),
            );
            let _ = write!(
                page,
                "<tr><td>{}<td>{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{median}\
                 <td class=\"n\">{max}<td>{}",
                row.kind,
                row.kind.says(),
                row.made,
                row.failovers,
                picture::dots(&row.pauses, largest.unwrap_or_default())
            );
        }
        page.push_str("</table>");
    }

    fn failovers_to(&self, page: &mut String) {
        if self.failovers.is_empty() {
            return;
        }
        page.push_str(
            "<h2>Failovers in their parts</h2><p class=\"sub\">Seconds since the fault, as the \
             coordinator and the clients saw them.</p><table><tr><th>after<th>from<th>to<th \
             class=\"n\">epoch<th class=\"n\">suspected<th class=\"n\">key gone<th \
             class=\"n\">first ballot<th class=\"n\">epoch taken<th class=\"n\">ready<th \
             class=\"n\">write acknowledged",
        );
        for failover in &self.failovers {
            let _ = write!(
                page,
                "<tr><td>{}<td>{}<td>{}<td class=\"n\">{}",
                failover.kind, failover.from, failover.to, failover.epoch
            );
            let parts = [failover.suspected, failover.key_gone, failover.balloted];
            let ends = [Some(failover.taken), failover.ready, failover.acknowledged];
            for part in parts.into_iter().chain(ends) {
                let text = part.map_or("–".to_owned(), picture::seconds);
                let _ = write!(page, "<td class=\"n\">{text}");
            }
        }
        page.push_str("</table>");
    }

    fn faults_to(&self, page: &mut String) {
        page.push_str(
            "<h2>Every fault</h2><table><tr><th class=\"n\">at<th class=\"n\">for<th>fault<th>on<th \
             class=\"n\">writes stood still<th>",
        );
        for fault in &self.faults {
            let lasted =
                fault.until.map_or("–".to_owned(), |until| picture::seconds(until - fault.at));
            let note = match &fault.skipped {
                Some(why) => format!("not done: {}", escaped(why)),
                None if !fault.alone => "others were near".to_owned(),
                None => String::new(),
            };
            let pause = fault.pause.filter(|_| fault.skipped.is_none());
            let _ = write!(
                page,
                "<tr><td class=\"n\">{}<td class=\"n\">{lasted}<td>{}<td>{}<td class=\"n\">{}<td>{note}",
                picture::seconds(fault.at),
                fault.kind,
                escaped(&fault.on),
                pause.map_or("–".to_owned(), picture::seconds)
            );
        }
        page.push_str("</table>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
