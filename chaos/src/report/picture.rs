//! The run as a picture: who led, what was broken, how many writes came through and how fast, on
//! one axis of time.

use std::fmt::Write;
use std::time::Duration;

use super::Report;

const WIDTH: f64 = 1100.0;
/// Where the axis of time begins; names stand left of it.
const LEFT: f64 = 70.0;
const LANE: f64 = 18.0;
const CHART: f64 = 110.0;
const GAP: f64 = 26.0;
/// One colour for each node, told apart also by the colour-blind.
const COLOURS: [&str; 5] = ["#3b6fb6", "#d98324", "#4a9c6d", "#8a5fb0", "#7a7a7a"];

/// A span of time as text.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

struct Canvas {
    svg: String,
    y: f64,
    scale: f64,
    lasted: f64,
}

impl Canvas {
    fn x(&self, time: Duration) -> f64 {
        LEFT + time.as_secs_f64().min(self.lasted) * self.scale
    }

    fn name(&mut self, y: f64, text: &str) {
        let x = LEFT - 8.0;
        let _ = write!(self.svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>");
    }

    fn heading(&mut self, text: &str) {
        let y = self.y + 12.0;
        let _ =
            write!(self.svg, "<text x=\"{LEFT}\" y=\"{y:.1}\" font-weight=\"600\">{text}</text>");
        self.y += GAP - 6.0;
    }

    fn bar(&mut self, from: Duration, to: Duration, row: f64, fill: &str, says: &str) {
        let (x, width) = (self.x(from), (self.x(to) - self.x(from)).max(1.5));
        let (y, height) = (row + 2.0, LANE - 4.0);
        let _ = write!(
            self.svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" \
             fill=\"{fill}\"><title>{says}</title></rect>"
        );
    }
}

/// The whole picture.
pub(super) fn timeline(report: &Report) -> String {
    let lasted = report.lasted.as_secs_f64().max(1.0);
    let scale = (WIDTH - LEFT - 10.0) / lasted;
    let mut canvas = Canvas { svg: String::new(), y: 0.0, scale, lasted };
    leaders(&mut canvas, report);
    faults(&mut canvas, report);
    throughput(&mut canvas, report);
    latency(&mut canvas, report);
    axis(&mut canvas);
    let shade = shade(report, &canvas);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"timeline\">{shade}{}</svg>",
        canvas.y, canvas.svg
    )
}

/// A tint behind everything while something was broken.
fn shade(report: &Report, canvas: &Canvas) -> String {
    let mut svg = String::new();
    for fault in report.faults.iter().filter(|fault| fault.skipped.is_none()) {
        let (x, end) = (canvas.x(fault.at), canvas.x(fault.over()));
        let (width, height) = ((end - x).max(1.5), canvas.y - 20.0);
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height:.0}\" \
             fill=\"#b3261e\" opacity=\"0.06\"/>"
        );
    }
    svg
}

fn leaders(canvas: &mut Canvas, report: &Report) {
    canvas.heading("who leads (pale: not ready yet)");
    let mut nodes: Vec<_> = report.reigns.iter().map(|reign| reign.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    for (index, node) in nodes.iter().enumerate() {
        let (row, colour) = (canvas.y, COLOURS[index % COLOURS.len()]);
        canvas.name(row + 13.0, node);
        for reign in report.reigns.iter().filter(|reign| reign.node == *node) {
            let end = reign.ended.unwrap_or(report.lasted);
            let says = format!("{node}, epoch {}", reign.epoch);
            canvas.bar(reign.began, end, row, &format!("{colour}55"), &says);
            if let Some(ready) = reign.ready {
                canvas.bar(ready, end, row, colour, &says);
            }
            let x = canvas.x(reign.ready.unwrap_or(reign.began)) + 4.0;
            let _ = write!(
                canvas.svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" style=\"fill:#fff\">{}</text>",
                row + 13.0,
                reign.epoch
            );
        }
        canvas.y += LANE;
    }
    canvas.y += 8.0;
}

fn faults(canvas: &mut Canvas, report: &Report) {
    canvas.heading("what is broken");
    // Each row with the end of what stands last in it.
    let mut rows: Vec<f64> = Vec::new();
    for fault in report.faults.iter().filter(|fault| fault.skipped.is_none()) {
        let until = fault.over();
        let label = format!("{} {}", fault.kind, fault.on);
        let x = canvas.x(fault.at);
        #[expect(clippy::cast_precision_loss, reason = "a label is short")]
        let end = canvas.x(until).max(x) + 6.0 + 6.0 * label.len() as f64;
        let free = rows.iter().position(|row_end| *row_end <= x);
        let row = free.unwrap_or_else(|| {
            rows.push(0.0);
            rows.len() - 1
        });
        rows[row] = end;
        #[expect(clippy::cast_precision_loss, reason = "a picture has few rows")]
        let y = canvas.y + LANE * row as f64;
        let says = format!("{}: {}, {}", fault.kind.says(), fault.on, seconds(until - fault.at));
        canvas.bar(fault.at, until, y, "#b3261e", &says);
        let _ = write!(
            canvas.svg,
            "<text x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            canvas.x(until) + 4.0,
            y + 13.0
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "a picture has few rows")]
    let height = LANE * rows.len() as f64;
    canvas.y += height + 8.0;
}

fn throughput(canvas: &mut Canvas, report: &Report) {
    canvas.heading("acknowledged writes and transactions per second (red: of unknown outcome)");
    let most = report.throughput.iter().map(|point| point.acknowledged).max().unwrap_or(1).max(1);
    let bottom = canvas.y + CHART;
    canvas.name(canvas.y + 10.0, &most.to_string());
    canvas.name(bottom, "0");
    let width = (canvas.scale * 0.9).max(0.5);
    for point in &report.throughput {
        let x = canvas.x(Duration::from_secs(point.second));
        #[expect(clippy::cast_precision_loss, reason = "a picture")]
        let height = CHART * point.acknowledged as f64 / most as f64;
        let _ = write!(
            canvas.svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"#3b6fb6\"><title>second {}: {} acknowledged, {} refused, {} unknown</title></rect>",
            bottom - height,
            point.second,
            point.acknowledged,
            point.failed,
            point.unknown
        );
        if point.unknown > 0 {
            let _ = write!(
                canvas.svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"#b3261e\"/>",
                x + width / 2.0,
                bottom - 4.0
            );
        }
    }
    canvas.y = bottom + 8.0;
}

/// The largest latency that has a place of its own in the picture, in milliseconds.
const LATENCY_MAX: f64 = 100_000.0;

fn latency(canvas: &mut Canvas, report: &Report) {
    canvas.heading("latency of what was acknowledged, second by second: median, and max as dots");
    let (top, bottom) = (canvas.y, canvas.y + CHART);
    let place = |ms: f64| bottom - CHART * ms.clamp(1.0, LATENCY_MAX).log10() / LATENCY_MAX.log10();
    for (ms, name) in
        [(1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1e3, "1 s"), (1e4, "10 s")]
    {
        let y = place(ms);
        let _ = write!(
            canvas.svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e3e7ec\"/>",
            WIDTH - 10.0
        );
        canvas.name(y + 4.0, name);
    }
    let mut line = String::new();
    for point in report.throughput.iter().filter(|point| point.acknowledged > 0) {
        let x = canvas.x(Duration::from_millis(point.second * 1000 + 500));
        let _ = write!(line, "{x:.1},{:.1} ", place(point.median_ms));
        let _ = write!(
            canvas.svg,
            "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"1.5\" fill=\"#d98324\"/>",
            place(point.max_ms)
        );
    }
    let _ = write!(
        canvas.svg,
        "<polyline points=\"{line}\" fill=\"none\" stroke=\"#3b6fb6\" stroke-width=\"1.2\"/>"
    );
    debug_assert!(top < bottom);
    canvas.y = bottom + 8.0;
}

fn axis(canvas: &mut Canvas) {
    let step = [5_u64, 10, 20, 30, 60, 120, 300, 600, 1800, 3600]
        .into_iter()
        .find(|step| Duration::from_secs(*step).as_secs_f64() * canvas.scale > 60.0)
        .unwrap_or(3600);
    let mut second = 0;
    while Duration::from_secs(second).as_secs_f64() <= canvas.lasted {
        let x = canvas.x(Duration::from_secs(second));
        let y = canvas.y + 12.0;
        let _ = write!(
            canvas.svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{second} s</text>"
        );
        second += step;
    }
    canvas.y += 20.0;
}

/// A distribution as dots on a line from nothing to `largest`.
pub(super) fn dots(times: &[Duration], largest: Duration) -> String {
    if times.is_empty() || largest.is_zero() {
        return String::new();
    }
    let mut svg = "<svg viewBox=\"0 0 260 16\" style=\"width:260px\"><line x1=\"5\" x2=\"255\" \
                   y1=\"8\" y2=\"8\" stroke=\"#e3e7ec\"/>"
        .to_owned();
    for time in times {
        let x = 5.0 + 250.0 * time.as_secs_f64() / largest.as_secs_f64();
        let _ = write!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"8\" r=\"4\" fill=\"#3b6fb6\" fill-opacity=\"0.55\"><title>{}\
             </title></circle>",
            seconds(*time)
        );
    }
    svg.push_str("</svg>");
    svg
}
