//! What sealing promises: nothing in clear, nothing that was changed or moved opens, no nonce twice, and a key that is missing
//! is named.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::Timestamp;
use crate::command::{
    Batch, Command, Configure, Handover, NewMessage, Outcome, Oversized, Receive, Reply, Send, Settle,
};
use crate::engine::Engine;
use crate::message::{Payload, QueueId};
use crate::settings::Settings;
use crate::store::disk::{Disk, DiskFile};
use crate::store::log::{name_of, number_of};
use crate::store::tests::{ENTROPY, MemoryDisk, SMALL};
use crate::store::{Harm, LogDamage, Store, StoreError, record};

type Shared = Arc<MemoryDisk>;

/// Keys with these names, each with its own bytes.
fn keys(ids: &[&str]) -> Keys {
    let key = |id: &&str| ((*id).to_owned(), [id.bytes().fold(7, u8::wrapping_add); KEY_BYTES]);
    Keys::new(ids.iter().map(key)).unwrap()
}

impl Cover {
    /// Sealed with a key that nobody has.
    pub(crate) fn example() -> Self {
        Self::Sealed(Arc::new(DataKey::new(&Zeroizing::new(random()), "example")))
    }
}

fn open(disk: &Shared, keys: Option<Keys>) -> Result<Engine, StoreError> {
    let disk = Arc::<MemoryDisk>::clone(disk);
    Engine::open(Store::on_sealed_disk(disk, ENTROPY, SMALL, keys)?, Timestamp(1000))
}

/// Everything that a sender gives, each thing with its marker.
fn marked(n: u64) -> NewMessage {
    let payload = Payload {
        body: format!("SECRET-body-{n}-").repeat(20).into(),
        content_type: "SECRET-content-type".to_owned(),
        headers: vec![("SECRET-header".to_owned(), "SECRET-value".to_owned())],
        dedup_id: format!("SECRET-dedup-{n}"),
        ordering_key: format!("SECRET-ordering-{}", n % 3),
        fairness_key: "SECRET-fairness".to_owned(),
    };
    NewMessage { payload, ..NewMessage::default() }
}

fn apply(engine: &mut Engine, command: Command) -> Reply {
    engine.apply(Timestamp(1000), vec![command]).unwrap().replies.remove(0)
}

/// Sends many messages, so that segments are used again, receives some and settles most of these. `from` tells the lives of the store
/// apart.
fn use_up(engine: &mut Engine, from: u64) {
    let configure =
        Configure { name: "shop/SECRET-queue".to_owned(), generation: 1, settings: Settings::default() };
    let Reply::Configured(queue, _) = apply(engine, Command::Configure(configure)) else { unreachable!() };
    for n in from..from + 60 {
        let send = Send {
            queue,
            request_id: format!("SECRET-request-{n}"),
            messages: vec![marked(n)],
            batch: Batch::Each,
        };
        apply(engine, Command::Send(send));
        let receive = receive(queue);
        let Reply::Received(deliveries) = apply(engine, Command::Receive(receive)) else { unreachable!() };
        let settlements = deliveries.into_iter().filter(|_| n % 5 != 0).map(|delivery| {
            let outcome = if n % 7 == 0 {
                Outcome::Nack { reason: "SECRET-reason".to_owned(), delay_ms: Some(0) }
            } else {
                Outcome::Ack
            };
            (delivery.receipt, outcome)
        });
        apply(engine, Command::Settle(Settle { queue, settlements: settlements.collect() }));
    }
}

fn receive(queue: QueueId) -> Receive {
    Receive {
        queue,
        max_messages: 1,
        max_bytes: u64::MAX,
        oversized: Oversized::Comes,
        ack_timeout_ms: None,
        consumer: "SECRET-consumer".to_owned(),
        request_id: String::new(),
        handover: Handover::AtOnce,
    }
}

fn contents(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        (name, bytes)
    };
    disk.list().unwrap().into_iter().map(read).collect()
}

fn files_with_secrets(disk: &MemoryDisk) -> Vec<String> {
    let is_told = |bytes: &Vec<u8>| bytes.windows(6).any(|window| window == b"SECRET");
    contents(disk).into_iter().filter(|(_, bytes)| is_told(bytes)).map(|(name, _)| name).collect()
}

/// Promise: nothing that a sender, a consumer or a manifest gave is in the folder in clear; without keys all files have it.
#[test]
fn used_folder_has_nothing_in_clear() {
    for (keys, expected) in [(Some(keys(&["k1"])), false), (None, true)] {
        let disk = Shared::default();
        let mut engine = open(&disk, keys.clone()).unwrap();
        use_up(&mut engine, 0);
        assert!(engine.usage().checkpoints > 2, "the state has something");
        assert_eq!(!files_with_secrets(&disk).is_empty(), expected, "while it runs");
        engine.close().unwrap();
        let found = files_with_secrets(&disk);
        assert_eq!(found.iter().any(|name| name == "state.redb"), expected, "{found:?}");
        assert_eq!(found.iter().any(|name| number_of(name).is_some()), expected, "{found:?}");
        use_up(&mut open(&disk, keys).unwrap(), 100);
        assert_eq!(files_with_secrets(&disk).is_empty(), !expected);
    }
}

/// Promise: what was stored is there after a restart, in the log and in the state, and payloads that were moved are.
#[test]
fn sealed_store_is_one_like_any_other() {
    let (plain, sealed) = (Shared::default(), Shared::default());
    let digests = [(&plain, None), (&sealed, Some(keys(&["k1"])))].map(|(disk, keys)| {
        let mut engine = open(disk, keys.clone()).unwrap();
        use_up(&mut engine, 0);
        drop(engine);
        let mut engine = open(disk, keys.clone()).unwrap();
        use_up(&mut engine, 100);
        engine.close().unwrap();
        let engine = open(disk, keys).unwrap();
        assert!(engine.damage().unwrap().is_empty(), "{:?}", engine.damage());
        engine.digest()
    });
    assert_eq!(digests[0], digests[1]);
}

/// What must name one sealed piece alone: data key and nonce.
type Name = (Vec<u8>, Vec<u8>);

/// Each sealed piece of the log that is on the disk.
fn pieces(disk: &MemoryDisk, keys: &Keys) -> Vec<(Name, Vec<u8>)> {
    let mut pieces = Vec::new();
    for (name, bytes) in contents(disk) {
        let Some(number) = number_of(&name) else { continue };
        let file = disk.open(&name).unwrap();
        let Some(envelope) = Envelope::find(&*file, number).unwrap() else { continue };
        let secret = envelope.secret(keys).unwrap().to_vec();
        let content = Bytes::from(bytes).slice(usize::try_from(envelope::ENVELOPE_BYTES).unwrap()..);
        let cover = Cover::find(&*file, number, keys).unwrap();
        for at in record::find(number, 0, &content) {
            let record = content.slice(at.offset as usize..);
            let decoded = record::decode(&at, &record, &cover).unwrap();
            let mut note = |from: usize, len: usize| {
                let nonce = record[from..from + NONCE_LEN].to_vec();
                pieces.push(((secret.clone(), nonce), record[from..from + len].to_vec()));
            };
            note(record::HEADER_BYTES, OVERHEAD_BYTES);
            decoded.blobs.iter().for_each(|blob| note(blob.offset as usize, blob.len as usize));
        }
    }
    pieces
}

/// Promise: one key seals nothing twice with the same nonce, over restarts that overwrite what was not finished, and in segments
/// that are used again; and these get another key.
#[test]
fn nonces_never_repeat() {
    let (disk, keys) = (Shared::default(), keys(&["k1"]));
    let mut seen: BTreeMap<Name, Vec<u8>> = BTreeMap::new();
    let mut key_of: BTreeMap<Vec<u8>, BTreeSet<u64>> = BTreeMap::new();
    for life in 0..12 {
        let mut engine = open(&disk, Some(keys.clone())).unwrap();
        for step in 0..4 {
            use_up(&mut engine, life * 1000 + step * 100);
            for (at, piece) in pieces(&disk, &keys) {
                let before = seen.entry(at).or_insert_with(|| piece.clone());
                assert_eq!(*before, piece, "a nonce was used twice");
            }
            for (name, _) in contents(&disk) {
                let Some(number) = number_of(&name) else { continue };
                let Some(envelope) = Envelope::find(&*disk.open(&name).unwrap(), number).unwrap() else {
                    continue;
                };
                let secret = envelope.secret(&keys).unwrap();
                key_of.entry(secret.to_vec()).or_default().insert(number);
            }
        }
        drop(engine);
        forget_last_record(&disk);
    }
    assert!(seen.len() > 1000, "{}", seen.len());
    assert!(key_of.len() > 20, "{}", key_of.len());
    assert!(key_of.values().all(|segments| segments.len() == 1), "a key is that of one segment: {key_of:?}");
}

/// As a crash does that comes before its sync: what is appended next has the same place.
fn forget_last_record(disk: &MemoryDisk) {
    let files = contents(disk);
    let last = files.keys().filter_map(|name| number_of(name)).filter_map(|number| {
        let file = Enveloped(disk.open(&name_of(number)).unwrap());
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        record::find(number, 0, &bytes).max_by_key(|at| at.lsn)
    });
    let last = last.max_by_key(|at| at.lsn).unwrap();
    let file = Enveloped(disk.open(&name_of(last.segment)).unwrap());
    file.write_at(last.offset.into(), &[0; 4]).unwrap();
}

/// Promise: without the key, with another under its name, or with none, the store says which one it needs and is left as it is; with
/// the key it opens again, and nothing is lost.
#[test]
fn missing_or_wrong_key_is_named_and_changes_nothing() {
    let disk = Shared::default();
    let mut engine = open(&disk, Some(keys(&["k1"]))).unwrap();
    use_up(&mut engine, 0);
    engine.close().unwrap();
    let digest = open(&disk, Some(keys(&["k1"]))).unwrap().digest();
    let before = contents(&disk);
    let refused = |keys: Option<Keys>| match open(&disk, keys) {
        Err(StoreError::Key(error)) => error,
        other => panic!("{other:?}", other = other.map(|_| "it opened")),
    };
    let id = || "k1".to_owned();
    assert_eq!(refused(None), KeyError::NoneGiven { id: id() });
    assert_eq!(
        refused(Some(keys(&["k0", "k2"]))),
        KeyError::Missing { id: id(), given: "k0, k2".to_owned() }
    );
    let other = Keys::new([("k1".to_owned(), [9; KEY_BYTES])]).unwrap();
    assert_eq!(refused(Some(other)), KeyError::Wrong { id: id() });
    let renamed = Keys::new([("k2".to_owned(), *keys(&["k1"]).get("k1").unwrap())]).unwrap();
    assert!(matches!(refused(Some(renamed)), KeyError::Missing { .. }));
    assert_eq!(contents(&disk), before);
    assert_eq!(open(&disk, Some(keys(&["k1"]))).unwrap().digest(), digest);
}

/// Promise: a store that was made in clear is not sealed afterwards, and is left as it is.
#[test]
fn store_in_clear_takes_no_keys() {
    let disk = Shared::default();
    use_up(&mut open(&disk, None).unwrap(), 0);
    let before = contents(&disk);
    assert!(matches!(open(&disk, Some(keys(&["k1"]))), Err(StoreError::Key(KeyError::NotSealed))));
    assert_eq!(contents(&disk), before);
    open(&disk, None).unwrap();
}

/// Promise: what is new is sealed with the newest key; an older one is needed for as long as a segment in use is sealed with it,
/// and no longer.
#[test]
fn keys_are_rotated_without_writing_everything_anew() {
    let disk = Shared::default();
    let used = |engine: &Engine| engine.keys_in_use().into_keys().collect::<Vec<_>>();
    let mut engine = open(&disk, Some(keys(&["k1"]))).unwrap();
    use_up(&mut engine, 0);
    engine.close().unwrap();
    let both = keys(&["k1"]);
    let mut engine = open(&disk, Some(both.clone())).unwrap();
    let given = keys(&["k1", "k2"]);
    assert!(both.follow(&given).has_changed && !both.follow(&given).has_changed);
    use_up(&mut engine, 100);
    assert_eq!(used(&engine), ["k1", "k2"]);
    let digest = engine.digest();
    engine.close().unwrap();
    assert!(
        matches!(open(&disk, Some(keys(&["k2"]))), Err(StoreError::Key(KeyError::Missing { id, .. })) if id == "k1")
    );
    let mut engine = open(&disk, Some(keys(&["k1", "k2"]))).unwrap();
    assert_eq!(engine.digest(), digest);
    for round in 2.. {
        if used(&engine) == ["k2"] {
            break;
        }
        assert!(round < 40, "what is left in old segments is moved");
        use_up(&mut engine, round * 100);
    }
    let digest = engine.digest();
    engine.close().unwrap();
    let engine = open(&disk, Some(keys(&["k2"]))).unwrap();
    assert!(engine.damage().unwrap().is_empty());
    assert_eq!(engine.digest(), digest);
}

/// Promise: a store that is refused for the key of one segment still opens with the keys that it had.
#[test]
fn refused_store_opens_with_the_keys_that_it_had() {
    let disk = Shared::default();
    let both = keys(&["k1"]);
    let mut engine = open(&disk, Some(both.clone())).unwrap();
    use_up(&mut engine, 0);
    both.follow(&keys(&["k1", "k2"]));
    use_up(&mut engine, 100);
    engine.close().unwrap();
    let digest = open(&disk, Some(keys(&["k1", "k2"]))).unwrap().digest();
    let refused = open(&disk, Some(keys(&["k2", "k3"])));
    assert!(matches!(refused, Err(StoreError::Key(KeyError::Missing { id, .. })) if id == "k1"));
    assert_eq!(open(&disk, Some(keys(&["k1", "k2"]))).unwrap().digest(), digest);
}

/// Promise: what is new is sealed with a key that is given, as it is given: one that is gone from its Secret, or was replaced under its
/// name, seals nothing more, and is named.
#[test]
fn keys_that_are_not_given_any_more_seal_nothing_new() {
    let used = keys(&["k1"]);
    let replaced = Keys::new([("k2".to_owned(), [9; KEY_BYTES])]).unwrap();
    let two =
        Keys::new([("k1".to_owned(), *used.get("k1").unwrap()), ("k2".to_owned(), [8; KEY_BYTES])]).unwrap();
    assert_eq!(used.follow(&two), Followed { has_changed: true, lost: Vec::new() });
    assert_eq!(used.newest_id(), "k2");
    let one = keys(&["k1"]);
    assert_eq!(used.follow(&one), Followed { has_changed: true, lost: vec!["k2".to_owned()] });
    assert_eq!(used.newest_id(), "k1");
    let lost = vec!["k1".to_owned(), "k2".to_owned()];
    assert_eq!(used.follow(&replaced), Followed { has_changed: false, lost });
    assert_eq!(used.newest_id(), "k1", "there is no better one");
}

/// Promise: what was changed, cut or moved does not open, nor with a key that another file has.
#[test]
fn only_what_was_sealed_opens() {
    let cover = Cover::example();
    let mut room = [0; 5 + OVERHEAD_BYTES];
    room[NONCE_LEN..][..5].copy_from_slice(b"hello");
    cover.seal(b"here", &mut room);
    let open = |cover: &Cover, about: &[u8], bytes: &[u8]| cover.open(about, Bytes::copy_from_slice(bytes));
    assert_eq!(open(&cover, b"here", &room).as_deref(), Some(&b"hello"[..]));
    assert_eq!(open(&cover, b"there", &room), None);
    assert_eq!(open(&Cover::example(), b"here", &room), None);
    for bit in 0..room.len() * 8 {
        let mut changed = room;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&cover, b"here", &changed), None, "bit {bit}");
    }
    for len in 0..room.len() {
        assert_eq!(open(&cover, b"here", &room[..len]), None, "length {len}");
    }
}

/// Promise: a nonce of the last count is followed by one of another life.
#[test]
fn counts_of_nonces_do_not_wrap() {
    let mut nonces = Nonces { life: [1; LIFE_BYTES], next: Some(u32::MAX) };
    let given: BTreeSet<_> = (0..3).map(|_| nonces.next()).collect();
    assert_eq!(given.len(), 3);
    assert_eq!(given.iter().filter(|nonce| nonce.starts_with(&[1; LIFE_BYTES])).count(), 1);
}

/// Promise: one of the two copies is enough.
#[test]
fn envelope_survives_a_bad_sector() {
    for bad in [0, 512] {
        let disk = Shared::default();
        let mut engine = open(&disk, Some(keys(&["k1"]))).unwrap();
        use_up(&mut engine, 0);
        drop(engine);
        let digest = open(&disk, Some(keys(&["k1"]))).unwrap().digest();
        for name in contents(&disk).into_keys() {
            disk.open(&name).unwrap().write_at(bad, &[0; 512]).unwrap();
        }
        let engine = open(&disk, Some(keys(&["k1"]))).unwrap();
        assert!(engine.damage().unwrap().is_empty() && engine.log_damage().is_empty());
        assert_eq!(engine.digest(), digest);
    }
}

/// Promise: records that cannot be opened any more are named, and the store goes on.
#[test]
fn segment_whose_envelope_is_gone_is_named() {
    let (disk, keys) = (Shared::default(), keys(&["k1"]));
    let mut engine = open(&disk, Some(keys.clone())).unwrap();
    use_up(&mut engine, 0);
    drop(engine);
    let last = contents(&disk).keys().filter_map(|name| number_of(name)).max().unwrap();
    disk.open(&name_of(last)).unwrap().write_at(0, &[0; 1024]).unwrap();
    let mut engine = open(&disk, Some(keys.clone())).unwrap();
    let in_last = |damage: &LogDamage| matches!(damage.what, Harm::Records { until, .. } if until.0 == last);
    assert!(engine.log_damage().iter().any(in_last), "{:?}", engine.log_damage());
    use_up(&mut engine, 100);
    engine.close().unwrap();
    let engine = open(&disk, Some(keys)).unwrap();
    assert!(engine.log_damage().is_empty(), "it is named once");
}

/// Promise: what redb writes to a sealed file is what it reads, wherever and however much, and zeros where nothing was written.
#[test]
fn blocks_are_a_file_like_any_other() {
    let (disk, model) = (Shared::default(), Shared::default());
    let covered = disk::cover(Arc::<MemoryDisk>::clone(&disk), Some(keys(&["k1"]))).unwrap();
    let (file, model) = (covered.create("state.redb").unwrap(), model.create("state.redb").unwrap());
    let mut roll = 1u64;
    let mut dice = |below: u64| {
        roll = roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (roll >> 33) % below
    };
    for file in [&file, &model] {
        file.set_len(20 * 4096).unwrap();
    }
    for n in 0..300u64 {
        let (at, len) = (dice(19 * 4096), dice(9000));
        let bytes =
            vec![u8::try_from(n % 250).unwrap() + 1; usize::try_from(len.min(20 * 4096 - at)).unwrap()];
        let cut = (dice(10) == 0).then(|| dice(20) * 4096);
        for file in [&file, &model] {
            file.write_at(at, &bytes).unwrap();
            if let Some(len) = cut {
                file.set_len(len).unwrap();
                file.set_len(20 * 4096).unwrap();
            }
        }
        let (from, len) = (dice(19 * 4096), dice(4096));
        let [read, expected] = [&file, &model].map(|file| {
            let mut buffer = vec![0; usize::try_from(len).unwrap()];
            file.read_at(from, &mut buffer).unwrap();
            buffer
        });
        assert_eq!(read, expected, "step {n}");
        assert_eq!(file.len().unwrap(), 20 * 4096);
    }
    assert!(file.read_at(20 * 4096 - 1, &mut [0; 2]).is_err());
}

/// Promise: keys of a folder are those of its files as a mounted Secret has them; what is none is named by its path, and no key is shown
/// by anything.
#[test]
fn keys_are_read_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Keys::read(folder.path()), Err(KeysError::None(_))));
    let text = STANDARD_KEY;
    std::fs::write(folder.path().join("2026-11"), format!("{text}\n")).unwrap();
    std::fs::write(folder.path().join("2026-02"), text).unwrap();
    std::fs::create_dir(folder.path().join("..data")).unwrap();
    let read = Keys::read(folder.path()).unwrap();
    assert_eq!(
        (read.ids(), read.newest().0),
        (vec!["2026-02".to_owned(), "2026-11".to_owned()], "2026-11".to_owned())
    );
    assert_eq!(format!("{read:?}"), r#"Keys(["2026-02", "2026-11"])"#);
    assert!(!format!("{:?}", Cover::example()).contains("key:"));
    for wrong in ["", "short", "AAAA", &text.repeat(9)] {
        std::fs::write(folder.path().join("2026-12"), wrong).unwrap();
        let error = Keys::read(folder.path()).unwrap_err();
        assert!(matches!(&error, KeysError::Invalid(path) if path.ends_with("2026-12")), "{error}");
    }
}

const STANDARD_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
