//! Any bytes as a receipt: refused, unless they are one that the engine made, and nothing changes.
#![no_main]

use ackwell_engine::command::{Configure, HandOver, Outcome, Refusal, Settle};
use ackwell_engine::store::Entropy;
use ackwell_engine::{Command, Engine, Reply, Settings, Store, Timestamp};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp(1_764_000_000_000);

fuzz_target!(|data: &[u8]| {
    let store = Store::volatile(Entropy { receipt_key: [7; 16], salt: 1 });
    let mut engine = Engine::open(store, NOW).expect("a store in memory opens");
    let configure = Configure { name: "a/b".into(), generation: 1, settings: Settings::default() };
    let Reply::Configured(queue, _) = one(&mut engine, Command::Configure(configure)) else { panic!() };
    let before = engine.digest();
    let receipt = Bytes::copy_from_slice(data);

    let settle = Settle { queue, settlements: vec![(receipt.clone(), Outcome::Ack)] };
    let Reply::Settled(results) = one(&mut engine, Command::Settle(settle)) else { panic!() };
    assert_eq!(results, [Err(Refusal::InvalidReceipt)]);
    let hand_over = HandOver { queue, receipts: vec![receipt] };
    let Reply::HandedOver(results) = one(&mut engine, Command::HandOver(hand_over)) else { panic!() };
    assert_eq!(results, [Err(Refusal::InvalidReceipt)]);
    assert_eq!(engine.digest(), before);
});

fn one(engine: &mut Engine, command: Command) -> Reply {
    engine.apply(NOW, vec![command]).expect("a store in memory works").replies.remove(0)
}
