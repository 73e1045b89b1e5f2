//! How far something long is, as a bar.

use std::fmt::Write;

use mainstay_election::values::{Progress, Task};

use super::table;

const WIDTH: u64 = 24;

/// `comparing    [######------------------]  25 %, 31.2 MiB/s, 12.0 s left`
pub(crate) fn bar(of: &Progress) -> String {
    let task = match of.task {
        Task::Copying => "copying",
        Task::CatchingUp => "catching up",
        Task::Comparing => "comparing",
    };
    // What is written meanwhile comes on top of what there was.
    let done = of.done.min(of.total);
    let filled = (done * WIDTH).checked_div(of.total).unwrap_or(0);
    let percent = (done * 100).checked_div(of.total).unwrap_or(0);
    let bar: String = (0..WIDTH).map(|at| if at < filled { '#' } else { '-' }).collect();
    let mut text = format!("{task:<11} [{bar}] {percent:>3} %");
    if of.bytes_per_second > 0 {
        let _ = write!(text, ", {}/s", table::bytes_text(of.bytes_per_second));
    }
    if let Some(left) = of.ms_left.filter(|left| *left > 0) {
        let _ = write!(text, ", {} left", table::span_text(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, total: u64) -> Progress {
        let (bytes_per_second, ms_left) = (0, None);
        Progress { task: Task::Comparing, done, total, bytes_per_second, ms_left }
    }

    #[test]
    fn a_bar_fills_up_and_never_overflows() {
        let filled = |done, total| bar(&progress(done, total)).matches('#').count();
        assert_eq!((filled(0, 0), filled(0, 9), filled(3, 6), filled(6, 6)), (0, 0, 12, 24));
        assert_eq!(filled(90, 6), 24, "more than was expected is all of it");
        assert!(bar(&progress(90, 6)).contains("100 %"));
    }

    #[test]
    fn rate_and_time_left_are_told_when_they_are_known() {
        let of = Progress { bytes_per_second: 2 << 20, ms_left: Some(1_500), ..progress(1, 4) };
        let text = bar(&of);
        assert_eq!(text, "comparing   [######------------------]  25 %, 2.0 MiB/s, 1.5 s left");
    }
}
