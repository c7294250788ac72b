//! Shards that come and go under traffic, with crashes and lost answers at every step: nothing is lost, nothing comes twice, keys
//! keep their order, ids stay.

mod world;

use proptest::prelude::*;

use crate::command::{Batch, Command, Configure, Handover, NewMessage, Oversized, Receive, Reply, Send};
use crate::message::{MessageId, Payload, Seq};
use crate::moving::{Arrive, Import, Place, Placement, Source};
use crate::settings::Settings;
use crate::slots::shard_of;
use crate::store::tests::ENTROPY;
use crate::{Engine, Store, Timestamp};
use world::{Kind, World};

/// What a world of shards goes through: each number decides one step.
fn lives(kind: Kind, seed: u64, steps: usize) {
    let mut world = World::new(kind, seed);
    for _ in 0..steps {
        world.step();
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Promises 3 to 7 hold over moves, whichever side dies whenever.
    #[test]
    fn moves_lose_and_repeat_nothing(seed in any::<u64>(), steps in 50..600_usize) {
        lives(Kind::Volatile, seed, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 15, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// The same through the log and the checkpoints.
    #[test]
    fn moves_lose_and_repeat_nothing_on_disk(seed in any::<u64>(), steps in 50..400_usize) {
        lives(Kind::OnDisk, seed, steps);
    }
}

/// Promise: parts of one request that meet in a shard, since their shards have changed, are told apart by where their messages
/// stand in the whole: none is taken for another, and none is stored twice.
#[test]
fn parts_of_a_request_are_known_by_their_positions() {
    let mut engine = Engine::open(Store::volatile(ENTROPY), Timestamp(1)).unwrap();
    let configure = Configure { name: "shop/orders".into(), generation: 1, settings: Settings::default() };
    let mut apply = |command| engine.apply(Timestamp(2), vec![command]).unwrap().replies.remove(0);
    let Reply::Configured(queue, _) = apply(Command::Configure(configure)) else { panic!() };
    let mut send = |positions: &[u32]| -> Vec<MessageId> {
        let message = |position: &u32| NewMessage {
            payload: Payload { body: position.to_string().into(), ..Payload::default() },
            position: Some(*position),
            ..NewMessage::default()
        };
        let messages = positions.iter().map(message).collect();
        let send = Send { queue, messages, batch: Batch::Each, request_id: "r".into() };
        let Reply::Sent(results) = apply(Command::Send(send)) else { panic!() };
        results.into_iter().map(|result| result.unwrap().id).collect()
    };
    let (first, second) = (send(&[0, 2]), send(&[1]));
    assert_eq!(send(&[0, 1, 2, 3])[..3], [first[0], second[0], first[1]]);
    assert_eq!(send(&[2, 1]), [first[1], second[0]]);
    assert_eq!(engine.stats(queue).counts.ready, 4);
}

/// Promise: a shard that is given up on while it hands over takes its messages with it, and not its keys: what was sent to them at
/// their new shard is handed out from the next placement on.
#[test]
fn keys_outlive_a_shard_that_is_given_up_on() {
    let mut engine = Engine::open(Store::volatile(ENTROPY), Timestamp(1)).unwrap();
    let configure = Configure { name: "shop/orders".into(), generation: 1, settings: Settings::default() };
    let mut apply = |command| engine.apply(Timestamp(2), vec![command]).unwrap().replies.remove(0);
    let Reply::Configured(queue, _) = apply(Command::Configure(configure)) else { panic!() };
    let placement = Placement { generation: 1, ordinal: 0, from: 2, to: 1 };
    let source = Source { ordinal: 1, salt: 9, first: Seq(1), end: Seq(100), origins: Vec::new() };
    let _ = apply(Command::Arrive(Arrive { queue, placement, source }));
    let import = Import {
        queue,
        generation: 1,
        source: 1,
        transfer: 0,
        messages: Vec::new(),
        dedup_ids: Vec::new(),
        waiting: None,
        accepts: true,
    };
    let _ = apply(Command::Import(import));
    let key = (0..100).map(|number| format!("key-{number}")).find(|key| shard_of(key, 2) == 1).unwrap();
    let payload = Payload { ordering_key: key, ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    let _ = apply(Command::Send(Send { queue, messages, batch: Batch::Each, request_id: String::new() }));
    let receive = Receive {
        queue,
        max_messages: 1,
        max_bytes: 1 << 20,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: String::new(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    };
    let received = |reply| match reply {
        Reply::Received(deliveries) => deliveries.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(received(apply(Command::Receive(receive.clone()))), 0, "it waits for those of before");
    let settled = Placement { generation: 2, from: 1, ..placement };
    let _ = apply(Command::Place(Place { queue, placement: settled }));
    assert_eq!(received(apply(Command::Receive(receive))), 1);
}
