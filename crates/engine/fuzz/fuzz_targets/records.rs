//! Any bytes as what lies on disk: refused, or a record that is written as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| ackwell_engine::fuzzing::record(data));
