//! What is kept elsewhere and comes back: all that was there when it was asked, and nothing that came later.

use std::sync::Arc;

use crate::command::{
    Batch, Command, Configure, Handover, NewMessage, Outcome, Oversized, Receive, Reply, Send, Settle,
};
use crate::kept::{Kept, KeptIds, Snapshot, Standing};
use crate::message::{Payload, QueueId, Seq};
use crate::moving::{Arrive, Import, Source, Traveller};
use crate::settings::Settings;
use crate::store::tests::{ENTROPY, MemoryDisk, SMALL};
use crate::{Engine, Store, Timestamp};

const FIRST: QueueId = QueueId(1);
/// Shards of a backup have ordinals that no shard has.
const SOURCE: u32 = 1 << 16;
const NO_BOUND: (usize, u64) = (usize::MAX, u64::MAX);

fn shard(salt: u32) -> Engine {
    let mut entropy = ENTROPY;
    entropy.salt ^= salt;
    let store = Store::on_disk(Arc::<MemoryDisk>::default(), entropy, SMALL).unwrap();
    let mut engine = Engine::open(store, Timestamp(1)).unwrap();
    let settings = Settings { dedup_window_ms: 60_000, ..Settings::default() };
    let configure = Configure { name: "shop/orders".to_owned(), generation: 1, settings };
    engine.apply(Timestamp(1), vec![Command::Configure(configure)]).unwrap();
    engine
}

fn send(engine: &mut Engine, body: &str) -> crate::MessageId {
    let payload = Payload { body: body.to_owned().into(), dedup_id: body.to_owned(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    let command =
        Command::Send(Send { queue: FIRST, messages, batch: Batch::Each, request_id: String::new() });
    let replies = engine.apply(Timestamp(2), vec![command]).unwrap().replies;
    let [Reply::Sent(sent)] = replies.as_slice() else { panic!("{replies:?}") };
    sent[0].as_ref().unwrap().id
}

fn receive(engine: &mut Engine, count: u32) -> Vec<crate::command::Delivery> {
    let receive = Receive {
        queue: FIRST,
        max_messages: count,
        max_bytes: u64::MAX,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: "c".to_owned(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    };
    let mut replies = engine.apply(Timestamp(3), vec![Command::Receive(receive)]).unwrap().replies;
    let Some(Reply::Received(got)) = replies.pop() else { panic!() };
    got
}

fn bodies(kept: &[Kept]) -> Vec<&str> {
    kept.iter().map(|kept| str::from_utf8(&kept.payload.body).unwrap()).collect()
}

/// Promise: a snapshot has what was stored when it was asked for, in pages of any size, and no dedup id of anything that came later:
/// who sends that again is not told that it is there.
#[test]
fn snapshot_ends_where_it_was_asked_for() {
    let mut engine = shard(0);
    ["a", "b", "c"].into_iter().for_each(|body| _ = send(&mut engine, body));
    let Snapshot { source, messages, .. } = engine.snapshot(FIRST);
    let ended = receive(&mut engine, 1);
    let ack = Settle { queue: FIRST, settlements: vec![(ended[0].receipt.clone(), Outcome::Ack)] };
    engine.apply(Timestamp(4), vec![Command::Settle(ack)]).unwrap();
    send(&mut engine, "late");
    assert_eq!(messages, 3);

    let mut found = Vec::new();
    let mut from = Some(source.first);
    while let Some(place) = from {
        let page = engine.kept(FIRST, (place, source.end), (1, u64::MAX)).unwrap();
        assert_eq!(page.messages.len(), 1);
        found.extend(page.messages);
        from = page.next;
    }
    assert_eq!(bodies(&found), ["b", "c"]);
    let by_bytes = engine.kept(FIRST, (source.first, source.end), (9, 1)).unwrap();
    assert_eq!((bodies(&by_bytes.messages), by_bytes.next.is_some()), (vec!["b"], true));

    let KeptIds { ids, next } = engine.kept_dedup_ids(FIRST, "", source.end, 2);
    let names = |ids: &[crate::moving::RememberedId]| {
        ids.iter().map(|known| known.dedup_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&ids), ["a", "b"], "one that was acked too");
    let KeptIds { ids, next } = engine.kept_dedup_ids(FIRST, &next.unwrap(), source.end, 2);
    assert_eq!(names(&ids), ["c"]);
    assert_eq!(next, Some("late".to_owned()));
}

/// Promise: what comes back is what it was, under its id, once, however often it is brought; and only a shard that is new takes it.
#[test]
fn what_was_kept_comes_back_once_with_its_ids() {
    let mut engine = shard(0);
    let ids = ["a", "b"].map(|body| send(&mut engine, body));
    assert_eq!(receive(&mut engine, 1).len(), 1, "somebody holds one");
    let Snapshot { source, .. } = engine.snapshot(FIRST);
    let kept = engine.kept(FIRST, (source.first, source.end), NO_BOUND).unwrap().messages;
    assert!(kept.iter().all(|kept| kept.standing == Standing::Ready));
    let can_restore =
        |engine: &Engine, source: &Source| engine.can_restore(FIRST, std::slice::from_ref(source));
    assert!(!can_restore(&engine, &source), "what it is of");

    let mut engine = shard(1);
    assert!(can_restore(&engine, &source));
    for at in [10, 20].map(Timestamp) {
        let source = Source { ordinal: SOURCE, ..source.clone() };
        let arrive = Arrive { queue: FIRST, placement: engine.placement(FIRST), source };
        let import = Import {
            queue: FIRST,
            generation: 0,
            source: SOURCE,
            transfer: 1,
            messages: kept.iter().cloned().map(Traveller::from).collect(),
            dedup_ids: Vec::new(),
            waiting: None,
            accepts: false,
        };
        let replies =
            engine.apply(at, vec![Command::Arrive(arrive), Command::Import(import)]).unwrap().replies;
        assert!(matches!(replies.as_slice(), [Reply::Arrived(_), Reply::Imported(1)]), "{replies:?}");
    }
    assert!(can_restore(&engine, &source), "it has begun");
    let other_day = Source { end: Seq(source.end.0 + 1), ..source.clone() };
    assert!(!can_restore(&engine, &other_day), "pages of the same store, and not of the same backup");
    let got = receive(&mut engine, 9);
    assert_eq!(got.iter().map(|delivery| delivery.message.id).collect::<Vec<_>>(), ids);
    assert_eq!(got[0].message.payload.body, "a");
    let mut engine = engine.reopen(Timestamp(30));
    assert_eq!(engine.snapshot(FIRST).messages, 2);
    send(&mut engine, "c");
    let stranger = Source { salt: source.salt ^ 1, ..source };
    assert!(!can_restore(&engine, &stranger), "it had messages of its own");
    assert_eq!(engine.snapshot(FIRST).source.first, Seq(1));
}
