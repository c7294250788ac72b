//! Real stores, made by the engine: looked at whole, and damaged in every way.

mod damage;

use std::sync::Arc;

use super::*;
use crate::command::{
    Available, Batch, Command, Configure, Handover, NewMessage, Outcome, Oversized, Receive, Reply, Send,
    Settle,
};
use crate::engine::Engine;
use crate::message::{Payload, QueueId, State};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::disk::Disk;
use crate::store::tests::{ENTROPY, MemoryDisk, SMALL};
use crate::time::Timestamp;

pub(super) type Shared = Arc<MemoryDisk>;

fn engine(disk: &Shared) -> Engine {
    let store = Store::on_disk(Arc::<MemoryDisk>::clone(disk), ENTROPY, SMALL).unwrap();
    Engine::open(store, Timestamp(1)).unwrap()
}

fn queue(engine: &mut Engine, name: &str) -> QueueId {
    let configure = Configure { name: name.into(), generation: 1, settings: Settings::default() };
    engine.apply(Timestamp(1), vec![Command::Configure(configure)]).unwrap();
    engine.queue(name).unwrap()
}

fn message(n: u64) -> NewMessage {
    let body = vec![n.to_le_bytes()[0]; usize::try_from(n * 131 % 900).unwrap()];
    let payload = Payload {
        body: body.into(),
        headers: vec![("number".into(), n.to_string())],
        content_type: "text/plain".into(),
        dedup_id: if n.is_multiple_of(3) { n.to_string() } else { String::new() },
        ordering_key: if n.is_multiple_of(7) { format!("key{}", n % 3) } else { String::new() },
        fairness_key: if n.is_multiple_of(5) { "tenant".into() } else { String::new() },
    };
    let available = if n.is_multiple_of(11) { Available::After(1_000_000) } else { Available::Now };
    NewMessage { payload, available, ..NewMessage::default() }
}

fn send(queue: QueueId, messages: Vec<NewMessage>) -> Command {
    Command::Send(Send { queue, messages, batch: Batch::Each, request_id: String::new() })
}

fn receive(engine: &mut Engine, queue: QueueId, max_messages: u32) -> Vec<bytes::Bytes> {
    let receive = Receive {
        queue,
        max_messages,
        max_bytes: 1 << 20,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: "worker".into(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    };
    let mut replies = engine.apply(Timestamp(5), vec![Command::Receive(receive)]).unwrap().replies;
    let Some(Reply::Received(deliveries)) = replies.pop() else { panic!("it was refused") };
    deliveries.into_iter().map(|delivery| delivery.receipt).collect()
}

fn settle(engine: &mut Engine, queue: QueueId, receipts: &[bytes::Bytes], outcome: &Outcome) {
    let settlements = receipts.iter().map(|receipt| (receipt.clone(), outcome.clone())).collect();
    engine.apply(Timestamp(6), vec![Command::Settle(Settle { queue, settlements })]).unwrap();
}

/// Whether the store was closed, or its process killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Killed,
}

/// A store with messages in all states, some of them moved into the tables, and much that is gone.
pub(super) fn store(end: End) -> Shared {
    let disk = Shared::default();
    let mut engine = engine(&disk);
    let (orders, logs) = (queue(&mut engine, "shop/orders"), queue(&mut engine, "shop/logs"));
    for round in 0..30u64 {
        let messages = (0..4).map(|n| message(round * 4 + n)).collect();
        engine.apply(Timestamp(round + 2), vec![send(orders, messages)]).unwrap();
        engine.apply(Timestamp(round + 2), vec![send(logs, vec![message(round)])]).unwrap();
        let receipts = receive(&mut engine, orders, 3);
        let outcome = if round % 5 == 0 { Outcome::Reject { reason: "bad".into() } } else { Outcome::Ack };
        settle(&mut engine, orders, &receipts, &outcome);
    }
    let receipts = receive(&mut engine, logs, 4);
    settle(&mut engine, logs, &receipts[..2], &Outcome::Nack { delay_ms: Some(5), reason: "busy".into() });
    match end {
        End::Closed => engine.close().unwrap(),
        End::Killed => drop(engine),
    }
    disk
}

fn offline(disk: &Shared) -> Offline {
    Offline::on_disk(Arc::<MemoryDisk>::clone(disk), None).unwrap()
}

/// All findings.
fn verify(disk: &Shared) -> Vec<Finding> {
    let mut findings = Vec::new();
    let summary = offline(disk).verify(&mut |event| {
        if let Event::Finding(finding) = event {
            findings.push(finding);
        }
        Ok(())
    });
    assert_eq!(summary.unwrap().findings, findings.len() as u64);
    findings
}

fn export(disk: &Shared, source: Source) -> (Vec<Exported>, Vec<String>) {
    let mut messages = Vec::new();
    let missing = offline(disk).export(source, &Wanted::default(), &mut |message| {
        messages.push(message);
        Ok(())
    });
    (messages, missing.unwrap())
}

/// All bytes of all files.
fn content(disk: &Shared) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().unwrap().into_iter();
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        (name, bytes)
    };
    names.map(read).collect()
}

/// Promise: a store that is whole is said to be whole, however its process ended, and looking changes no byte of it.
#[test]
fn whole_store_is_clean_and_stays_as_it_is() {
    for end in [End::Closed, End::Killed] {
        let disk = store(end);
        let before = content(&disk);
        assert_eq!(verify(&disk), [], "{end:?}");
        offline(&disk).inspect().unwrap();
        export(&disk, Source::State);
        export(&disk, Source::Log);
        assert!(content(&disk) == before, "{end:?}");
    }
}

/// Promise: what is exported is what the engine has: every message with its state, its past and its body, behind the
/// checkpoint too.
#[test]
fn export_has_every_message_as_the_engine_has_it() {
    for end in [End::Closed, End::Killed] {
        let disk = store(end);
        let (exported, missing) = export(&disk, Source::State);
        assert_eq!(missing, [] as [&str; 0]);
        let engine = engine(&disk);
        let mut expected = Vec::new();
        for name in ["shop/orders", "shop/logs"] {
            let queue = engine.queue(name).unwrap();
            let messages = engine.peek(queue, &crate::command::Filter::default(), None, 1000).unwrap().0;
            expected.extend(messages.into_iter().map(|message| (name, message)));
        }
        expected.sort_by_key(|(_, message)| message.id.seq());
        assert_eq!(exported.len(), expected.len());
        for (exported, (queue, message)) in exported.iter().zip(expected) {
            assert_eq!((exported.queue.as_str(), exported.id), (queue, Some(message.id)));
            assert_eq!((exported.state, exported.is_damaged), (Some(message.state), false));
            assert_eq!((exported.attempts, &exported.history), (message.attempts, &message.history));
            assert_eq!(
                (exported.dead_reason, exported.delayed_until),
                (message.dead_reason, message.delayed_until)
            );
            assert_eq!(exported.payload, message.payload);
        }
    }
}

/// Promise: the store of these tests has what they are about: all states, moved payloads, several segments.
#[test]
fn inspect_counts_what_is_there() {
    let disk = store(End::Killed);
    let overview = offline(&disk).inspect().unwrap();
    let state = overview.state.as_ref().unwrap();
    assert_eq!((overview.flaws, &overview.not_current), (0, &None));
    assert_eq!((state.next_seq.unwrap() > 100, state.salt), (true, Some(ENTROPY.salt)));
    let moved = state.tables.iter().find(|(name, ..)| name == "payloads").unwrap().1;
    assert!(moved > 0, "{:?}", state.tables);
    assert!(overview.segments.len() > 2);
    let engine = engine(&disk);
    for queue in &overview.queues {
        assert_eq!(engine.stats(queue.id).counts, queue.counts);
        assert!(queue.counts.dead > 0 || queue.name == "shop/logs");
    }
    assert_eq!(
        overview.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(),
        ["shop/logs", "shop/orders"]
    );
    let messages: u64 = overview.queues.iter().map(|queue| queue.counts.messages()).sum();
    let live: u64 = overview.segments.iter().map(|segment| segment.live).sum();
    assert!(live < messages && live + moved >= messages, "{live} and {moved} of {messages}");
    let last =
        overview.segments.iter().filter_map(|segment| segment.lsns).map(|(_, last)| last).max().unwrap();
    assert!(state.applied.unwrap().2 <= last, "something is behind the checkpoint");
}

/// Promise: records are listed with what they did, and neither bodies nor receipts nor keys are in it.
#[test]
fn records_are_described_without_what_is_secret() {
    let disk = store(End::Closed);
    let last = offline(&disk).inspect().unwrap().segments.last().unwrap().clone();
    let mut records = Vec::new();
    let mut tell = |record| {
        records.push(record);
        Ok(())
    };
    offline(&disk).records(Looked::Segment(last.number), &mut tell).unwrap();
    assert_eq!(records.len() as u64, last.records);
    let lsn = last.lsns.unwrap().1;
    let mut found = Vec::new();
    offline(&disk)
        .records(Looked::Record(lsn), &mut |record| {
            found.push(record.lsn);
            Ok(())
        })
        .unwrap();
    assert_eq!(found, [lsn]);
    let text = format!("{records:?}");
    assert!(text.contains("settle 2 deliveries of queue"), "{text}");
    assert!(!text.contains("busy") && !text.contains("tenant"), "{text}");
}

/// Promise: a folder without a store, and one that a broker has, are refused by name, and nothing is made in them.
#[test]
fn folders_that_cannot_be_looked_at_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Offline::open(folder.path(), None).unwrap_err();
    assert!(matches!(error, OfflineError::NoStore(_)), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let store = Store::open(folder.path(), ENTROPY).unwrap();
    let error = Offline::open(folder.path(), None).unwrap_err();
    assert!(
        matches!(error, OfflineError::InUse(_, pid) if pid.is_none_or(|pid| pid == std::process::id())),
        "{error}"
    );
    drop(store);
    let offline = Offline::open(folder.path(), None).unwrap();
    assert!(matches!(Store::open(folder.path(), ENTROPY), Err(crate::StoreError::InUse(_))));
    assert_eq!(offline.inspect().unwrap().queues.len(), 0);
    assert!(matches!(Offline::open(&folder.path().join("lock"), None), Err(OfflineError::Folder(..))));
}

/// Promise: only what is asked for is told, and the log has what the state has no more.
#[test]
fn export_keeps_to_what_is_wanted() {
    let disk = store(End::Closed);
    let told = |source, wanted: &Wanted| {
        let mut messages = Vec::new();
        offline(&disk)
            .export(source, wanted, &mut |message| {
                messages.push(message);
                Ok(())
            })
            .unwrap();
        messages
    };
    let dead = Wanted { queue: Some("shop/orders".into()), states: vec![State::Dead] };
    let found = told(Source::State, &dead);
    assert!(found.len() > 5 && found.iter().all(|message| message.dead_reason.is_some()));
    assert_eq!(told(Source::State, &Wanted { queue: Some("shop/none".into()), ..Wanted::default() }), []);

    let (log, state) = (told(Source::Log, &Wanted::default()), told(Source::State, &Wanted::default()));
    let gone = log.iter().filter(|message| message.state.is_none()).count();
    assert!(gone > 0, "acked messages are still in the log");
    let known: Vec<&Exported> = log.iter().filter(|message| message.id.is_some()).collect();
    assert!(known.len() > 10 && known.iter().all(|message| state.contains(message)));
}
