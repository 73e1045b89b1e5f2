//! Feeds the PROXY header parser, the one thing here that reads what strangers compose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_ambassador::proxy_protocol::properties;

fuzz_target!(|bytes: &[u8]| properties::check(bytes));
