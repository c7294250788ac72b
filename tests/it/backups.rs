//! Backups with real brokers: under load, with everything killed, into another number of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ackwell_proto::Reason;
use ackwell_proto::v1::shard_client::ShardClient;
use ackwell_proto::v1::{
    BeginRestoreRequest, BeginSnapshotRequest, Message, QueueSettings, ReadSnapshotRequest,
    RestorePageRequest, Snapshot, State,
};
use ackwell_tests::caller::{Caller, ack, delivered, failure, message, nack, reject};
use ackwell_tests::certificates::{Shown, connect_as, text};
use ackwell_tests::keyed::keyed;
use ackwell_tests::processes::{Certificates, Process, QUEUE, Shards, backup, placement, restore, settings};
use tonic::transport::{Channel, Endpoint};

const LIMIT: Duration = Duration::from_mins(2);
/// Exit code of what only a person can help with.
const NEEDS_A_PERSON: i32 = 67;
const ALL: [State; 4] = [State::Ready, State::Delayed, State::InFlight, State::Dead];

/// Of what a message is to be the same in both queues.
type Seen = BTreeMap<String, Message>;

async fn all_of(shards: &mut Shards, count: usize) -> Seen {
    let mut seen = Seen::new();
    for ordinal in 0..count {
        for message in shards.broker(ordinal).caller().await.peek(&ALL).await {
            let id = message.id.clone();
            assert!(seen.insert(id.clone(), message).is_none(), "{id} is there twice");
        }
    }
    seen
}

fn ended(program: Process) -> i32 {
    program.wait().code().unwrap()
}

/// All kinds of messages, spread over the shards.
async fn fill(shards: &mut Shards, count: usize) {
    for ordinal in 0..count {
        let caller = shards.broker(ordinal).caller().await;
        let [dead, failed, held] = ["dead", "failed", "held"].map(message);
        for message in [dead, failed, held] {
            caller.send_one(message).await;
        }
        let [dead, failed, _held]: [_; 3] =
            caller.receive(3, Duration::from_secs(5)).await.unwrap().try_into().unwrap();
        caller.settle_one(reject(&dead)).await.unwrap();
        caller.settle_one(nack(&failed, Some(Duration::from_hours(1)))).await.unwrap();
        for batch in 0..2 {
            let bodies = (0..100).map(|number| message(format!("{ordinal}-{batch}-{number}")));
            caller.send(bodies.collect()).await.unwrap();
        }
    }
}

/// Keyed messages, each to the shard of its key.
async fn send_keyed(shards: &mut Shards, count: usize, numbers: std::ops::Range<u64>) -> BTreeSet<u64> {
    let mut callers = Vec::new();
    for ordinal in 0..count {
        callers.push(shards.broker(ordinal).caller().await);
    }
    let mut stored = BTreeSet::new();
    for number in numbers {
        for caller in &callers {
            match caller.try_send(keyed(&format!("key-{}", number % 17), number)).await {
                Ok(_) => assert!(stored.insert(number), "{number} has one home"),
                Err(refused) => assert_eq!(refused.reason, Reason::ShardMoved, "{refused}"),
            }
        }
    }
    stored
}

/// What a message has to keep.
fn kept(message: &Message) -> Message {
    let state = match message.state() {
        State::InFlight => State::Ready,
        other => other,
    };
    Message { state: state.into(), ..message.clone() }
}

fn assert_kept(before: &Seen, after: &Seen) {
    for (id, message) in before {
        let there = after.get(id).unwrap_or_else(|| panic!("{id} is missing: {message:?}"));
        assert_eq!(kept(message), kept(there));
    }
}

/// Promises of a backup: every message that was stored when it began, and was not acked until it ended, is in it, whole, once; and from
/// there in a queue with another number of shards: with its id, attempts, history, time and key, while all of brokers, backup and
/// restore are killed on the way. Keys keep their order, and what was sent is known.
#[tokio::test(flavor = "multi_thread")]
async fn backup_under_load_is_restored_into_another_number_of_shards() {
    let settings = QueueSettings { ack_timeout_seconds: 600, dedup_window_seconds: 3600, ..settings() };
    let mut old = Shards::start(3, settings, placement(1, 3, 3));
    fill(&mut old, 3).await;
    let stored = send_keyed(&mut old, 3, 0..300).await;
    assert_eq!(stored.len(), 300);
    let before = all_of(&mut old, 3).await;

    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("nightly");
    // Killed at once, and then in the middle.
    backup(&old, 3, ("t1", &folder), &[]).kill();
    let program = backup(&old, 3, ("t1", &folder), &[]);
    old.broker(1).kill();
    send_to(&old.broker(0).caller().await, "meanwhile").await;
    old.broker(1).restart();
    assert_eq!(ended(program), 0);
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(ended(backup(&old, 3, ("t1", &folder), &[])), 0, "it is there");
    assert_eq!(ended(backup(&old, 3, ("t2", &folder), &[])), NEEDS_A_PERSON, "nothing is overwritten");
    assert_eq!(std::fs::read(folder.join("manifest.json")).unwrap(), manifest);

    let mut new = Shards::start(2, settings, placement(1, 2, 2)).restoring(true);
    told(&new, 2).await;
    let refused = new.broker(0).caller().await.try_send(message("too early")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::BrokerUnavailable, "{refused}");
    restore(&new, 2, &folder, &[]).kill();
    let program = restore(&new, 2, &folder, &[]);
    new.broker(0).kill();
    new.broker(0).restart();
    assert_eq!(ended(program), 0);
    assert_eq!(ended(restore(&new, 2, &folder, &[])), 0, "it is there");
    let mut new = new.restoring(false);
    told(&new, 2).await;

    let after = all_of(&mut new, 2).await;
    assert_kept(&before, &after);
    let more = after.keys().filter(|id| !before.contains_key(*id)).count();
    assert!(more <= 100, "{more} messages that were sent meanwhile");
    assert_eq!(resent(&mut new, 2).await, stored, "what was sent is known");
    assert_in_order(&mut new, 2).await;
}

async fn send_to(caller: &Caller, text: &str) {
    let some = (0..100).map(|number| message(format!("{text}-{number}")));
    caller.send(some.collect()).await.unwrap();
}

async fn told(shards: &Shards, count: usize) {
    for ordinal in 0..count {
        shards.tell(ordinal).await.unwrap();
    }
}

/// Of messages that are sent once more, those that were known.
async fn resent(shards: &mut Shards, count: usize) -> BTreeSet<u64> {
    let mut known = BTreeSet::new();
    for ordinal in 0..count {
        let caller = shards.broker(ordinal).caller().await;
        for number in 0..300 {
            match caller.try_send(keyed(&format!("key-{}", number % 17), number)).await {
                // Each shard knows all ids, since it is not known of which keys they are.
                Ok(sent) => {
                    assert!(sent.duplicate, "{number} at {ordinal}");
                    known.insert(number);
                }
                Err(refused) => assert_eq!(refused.reason, Reason::ShardMoved, "{refused}"),
            }
        }
    }
    known
}

async fn assert_in_order(shards: &mut Shards, count: usize) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for ordinal in 0..count {
        let caller = shards.broker(ordinal).caller().await;
        loop {
            let deliveries = caller.receive(100, Duration::from_millis(200)).await.unwrap();
            if deliveries.is_empty() {
                break;
            }
            for delivery in &deliveries {
                let message = delivered(delivery);
                let text = String::from_utf8(message.body.to_vec()).unwrap();
                if let (false, Ok(number)) = (message.ordering_key.is_empty(), text.parse()) {
                    let earlier = last.insert(message.ordering_key.clone(), number);
                    assert!(earlier.is_none_or(|earlier| earlier < number), "{number} after {earlier:?}");
                }
                caller.settle_one(ack(delivery)).await.unwrap();
            }
        }
    }
    assert_eq!(last.len(), 17);
}

/// Promise: what cannot be restored stores nothing, and says why.
#[tokio::test]
async fn restore_of_what_is_no_backup_stores_nothing() {
    let mut old = Shards::start(1, settings(), placement(1, 1, 1));
    old.broker(0).caller().await.send_one(message("one")).await;
    let place = tempfile::tempdir().unwrap();
    let (folder, next_day) = (place.path().join("b"), place.path().join("c"));
    assert_eq!(ended(backup(&old, 1, ("t1", &folder), &[])), 0);
    old.broker(0).caller().await.send_one(message("two")).await;
    assert_eq!(ended(backup(&old, 1, ("t2", &next_day), &[])), 0);
    let report = place.path().join("report.json");
    let said = |shards: &Shards, folder: &Path| {
        let program = restore(shards, 1, folder, &["--report", text(&report)]);
        assert_eq!(ended(program), NEEDS_A_PERSON);
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        json["reason"].as_str().unwrap().to_owned()
    };
    let mut open = Shards::start(1, settings(), placement(1, 1, 1));
    assert_eq!(said(&open, &folder), "ShardRefused", "a queue that is open");
    assert_eq!(all_of(&mut open, 1).await.len(), 0);
    let old = old.restoring(true);
    told(&old, 1).await;
    assert_eq!(said(&old, &folder), "ShardRefused", "the queue that it is of");

    let mut new = Shards::start(1, settings(), placement(1, 1, 1)).restoring(true);
    told(&new, 1).await;
    assert_eq!(said(&new, &place.path().join("nowhere")), "BackupMissing");
    let file = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let is_of_shard = |path: &PathBuf| text(path).contains("/shard-0-");
    let file = file.into_iter().find(is_of_shard).unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(said(&new, &folder), "BackupDamaged");
    assert_eq!(new.broker(0).caller().await.stats().await.ready, 0);
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(ended(restore(&new, 1, &folder, &[])), 0);
    assert_eq!(new.broker(0).caller().await.stats().await.ready, 1);
    assert_eq!(said(&new, &next_day), "ShardRefused", "it has parts of another backup");
    assert_eq!(new.broker(0).caller().await.stats().await.ready, 1);
}

/// Promise: nobody but the operator's programs of this queue reads a snapshot or stores a backup, and each does only its part.
#[tokio::test]
async fn stranger_reads_no_snapshot_and_restores_nothing() {
    let certificates = Certificates::new();
    let shards = certificates.shards(1, settings(), placement(1, 1, 1)).restoring(true);
    told(&shards, 1).await;
    let address = shards.addresses().next().unwrap();
    let bundle = certificates.authority.pem();
    let names = [
        ("backup.ackwell-orders.shop.svc", [true, true, false, false]),
        ("restore.ackwell-orders.shop.svc", [false, false, true, true]),
        ("backup.ackwell-logs.shop.svc", [false; 4]),
        ("restore.ackwell-orders.other.svc", [false; 4]),
        ("ackwell-orders-0.ackwell-orders-shards.shop.svc", [false; 4]),
    ];
    for (name, allowed) in names {
        let folder = tempfile::tempdir().unwrap();
        let shown = Shown::in_folder(folder.path());
        certificates.authority.issue(name, LIMIT, &shown);
        let channel = connect_as(address, bundle, Some(&shown)).await.unwrap();
        assert_eq!(may(channel).await, allowed, "{name}");
    }
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    assert_eq!(may(plain).await, [false; 4], "without a certificate");
}

/// What of the four calls is not refused for who calls.
async fn may(channel: Channel) -> [bool; 4] {
    let mut client = ShardClient::new(channel);
    let queue = || QUEUE.to_owned();
    let source = Snapshot { salt: 1, first: 1, end: 2, ..Snapshot::default() };
    let begin = BeginRestoreRequest { queue: queue(), shards: 1, sources: vec![source] };
    let read = ReadSnapshotRequest { queue: queue(), ..ReadSnapshotRequest::default() };
    let page = RestorePageRequest { queue: queue(), ..RestorePageRequest::default() };
    let answers = [
        client.begin_snapshot(BeginSnapshotRequest { queue: queue() }).await.map(drop),
        client.read_snapshot(read).await.map(drop),
        client.begin_restore(begin).await.map(drop),
        client.restore_page(page).await.map(drop),
    ];
    answers
        .map(|answer| answer.err().is_none_or(|status| failure(&status).reason != Reason::PermissionDenied))
}
