//! How much log a reader that is behind holds up.

use super::Log;
use super::frame::Frame;
use crate::position::Seq;

impl Log {
    /// Bytes of the records after `seq`: exact while those are still in memory, else in whole
    /// segments (but for the last), which is what they hold up on the disk.
    #[must_use]
    pub fn bytes_after(&self, seq: Seq) -> u64 {
        let state = self.shared().lock();
        if seq.next() >= state.tail_first() {
            let behind = state.tail.iter().rev().take_while(|frame| frame.seq() > seq);
            return behind.map(|frame: &Frame| frame.bytes.len() as u64).sum();
        }
        let Some(last) = state.segments.back() else { return 0 };
        let later = state.segments.partition_point(|segment| segment.base().seq <= seq);
        let held = state.segments.iter().skip(later.saturating_sub(1));
        held.map(|segment| segment.bytes).sum::<u64>() - last.bytes + state.end
    }
}
