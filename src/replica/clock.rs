//! The wall clock, for records and people; nothing is decided by it.

use std::time::{SystemTime, UNIX_EPOCH};

use mainstay_election::values::UnixMs;
use mainstay_sync::op::Time;

/// Now, as records say it. A clock before 1970 counts as 1970.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: since.as_secs().try_into().unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}

/// Now, as what is written to the coordinator says it.
pub(super) fn wall() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
