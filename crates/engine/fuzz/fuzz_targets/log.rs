//! Any bytes as a record of the log: refused, or a batch that is written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ackwell_engine::fuzzing::log(data));
