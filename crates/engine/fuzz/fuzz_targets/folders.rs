//! Any files where those of a store were: it opens or says why not, and serves no wrong body.
#![no_main]

use ackwell_engine_check::crash::{Edit, reopen};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|folder: (u8, Vec<Edit>)| {
    let (seed, edits) = folder;
    let result = reopen(u64::from(seed), &edits);
    assert!(result.is_ok(), "{edits:?}: {result:?}");
});
