//! What a record costs.
//!
//! ```text
//! cargo test --release -p ackwell-engine --lib record::tests::speed -- --ignored --nocapture
//! ```

use std::hint::black_box;
use std::time::Instant;

use super::*;

const MESSAGES: u32 = 100;
const ROUNDS: u32 = 200;
/// The best of so many counts: others use the machine too.
const TRIES: u32 = 100;

#[test]
#[ignore = "measures, and takes an optimized build"]
fn record_of_100_messages_takes_so_long() {
    for (body_bytes, cover) in
        [0, 100, 1024].into_iter().flat_map(|bytes| covers().map(|cover| (bytes, cover)))
    {
        let payload = Payload { body: Bytes::from(vec![b'x'; body_bytes]), ..Payload::default() };
        let messages =
            (0..MESSAGES).map(|_| NewMessage { payload: payload.clone(), ..NewMessage::default() });
        let batch = batch(vec![send(messages.collect())]);
        let mut buffer = Vec::new();
        let encode_ns =
            ns_per_message(|| _ = black_box(encode(&POSITION, black_box(&batch), &cover, &mut buffer)));
        let bytes = Bytes::from(buffer);
        let decode_ns =
            ns_per_message(|| _ = black_box(decode(&POSITION, black_box(&bytes), &cover).unwrap()));
        let mut copy = Vec::new();
        let copy_ns = ns_per_message(|| {
            copy.clear();
            copy.extend_from_slice(black_box(&bytes));
            black_box(crc32c::crc32c(&copy));
        });
        println!(
            "{body_bytes} B, {cover:?}: {} B/message, encode {encode_ns} ns, decode {decode_ns} ns, copy + CRC of the same {copy_ns} ns",
            bytes.len() / MESSAGES as usize
        );
    }
}

fn covers() -> [Cover; 2] {
    [Cover::None, Cover::example()]
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn ns_per_message(mut work: impl FnMut()) -> u128 {
    let mut once = || {
        let started = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        started.elapsed().as_nanos() / u128::from(ROUNDS * MESSAGES)
    };
    (0..TRIES).map(|_| once()).min().expect("more than one")
}
