//! What tests may do to a store that the engine may not, and what opening one promises.

mod damage;
mod memory_disk;

use redb::TableDefinition;

use super::tables::{FILE, INDEX, MEMORY, MESSAGES, META, SHARD, Tables};
use super::*;
use crate::command::{Batch as Whole, Cancel, Command, Configure, Filter, NewMessage, Reply, Send};
use crate::engine::Engine;
use crate::message::Message;
pub(crate) use memory_disk::MemoryDisk;

pub(crate) const ENTROPY: Entropy = Entropy { receipt_key: [7; 16], salt: 0x00ab_cdef };
/// So small that every test sees segments end.
pub(crate) const SMALL: Options = Options {
    segment_bytes: 4096,
    checkpoint_bytes: 8192,
    max_rows: 1024,
    reserve_bytes: 0,
    threads: Threads::One,
};

impl Store {
    /// A store of which nothing is left when it is dropped.
    pub(crate) fn in_memory() -> Self {
        Self::on_disk(Arc::<MemoryDisk>::default(), ENTROPY, SMALL).unwrap()
    }

    fn files(&mut self) -> &mut OnDisk {
        match &mut self.0 {
            Kind::Disk(store) => store,
            Kind::Memory(_) => unreachable!("these tests are about what is written"),
        }
    }

    /// Flips a bit of a stored payload, as a failing disk would.
    pub(crate) fn damage_payload(&mut self, location: Location) {
        self.files().log.overwrite(location, |bytes| bytes[4] ^= 1);
    }

    /// Loses a stored payload.
    pub(crate) fn lose_payload(&mut self, location: Location) {
        self.files().log.overwrite(location, |bytes| bytes.fill(0));
    }

    fn damage_page(&mut self, no: PageNo) {
        self.put(MESSAGES, no, Some(b"not a page"));
    }

    fn lose_page(&mut self, no: PageNo) {
        self.put(MESSAGES, no, None);
    }

    fn damage_summary(&mut self, no: PageNo) {
        self.put(INDEX, no, Some(b"no summary"));
    }

    fn lose_summary(&mut self, no: PageNo) {
        self.put(INDEX, no, None);
    }

    fn put_meta(&mut self, value: &[u8]) {
        self.put(META, SHARD, Some(value));
    }

    fn put<'a, K: redb::Key + 'static>(
        &mut self,
        table: TableDefinition<K, &[u8]>,
        key: impl std::borrow::Borrow<K::SelfType<'a>>,
        value: Option<&[u8]>,
    ) {
        let changed = self.files().state.read(|tables| {
            let write = tables.database.begin_write().unwrap();
            let mut rows = write.open_table(table).unwrap();
            match value {
                Some(value) => _ = rows.insert(key, value).unwrap(),
                None => _ = rows.remove(key).unwrap(),
            }
            drop(rows);
            write.commit().unwrap();
            Ok(())
        });
        changed.unwrap();
    }
}

/// Promise: a store of another format is named as such, not taken for a damaged one, and left as it is.
#[test]
fn store_of_another_format_is_refused_by_name() {
    let mut store = Store::in_memory();
    for other in [codec::FORMAT - 1, codec::FORMAT + 1] {
        let mut meta = vec![other, 0, 0];
        meta.extend(crc32c::crc32c(&meta).to_le_bytes());
        store.put_meta(&meta);
        let refused = store.load().err();
        assert!(matches!(refused, Some(StoreError::Format { found, supported: 7 }) if found == other));
    }
    store.put_meta(&[codec::FORMAT + 1, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(store.load(), Err(StoreError::Corrupt { what: "meta", .. })));
}

/// Promise: nothing is decided by a page that cannot be trusted; without it the store opens, says what is missing, and
/// the other messages are there.
#[test]
fn damaged_page_is_set_aside() {
    for damage in [Store::damage_page, Store::lose_page] {
        let disk = Arc::<MemoryDisk>::default();
        let open = || Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, SMALL).unwrap();
        let mut engine = Engine::open(open(), Timestamp(1)).unwrap();
        let queue = made(&mut engine);
        (0..3).for_each(|_| _ = engine.apply(Timestamp(2), vec![sends(queue, 256)]).unwrap());
        engine.close().unwrap();
        let mut store = open();
        damage(&mut store, 1);
        let engine = Engine::open(store, Timestamp(3)).unwrap();
        match engine.peek(queue, &Filter::default(), None, 1000) {
            Ok((found, _)) => assert_eq!(found.len(), 512),
            Err(error) => assert_eq!(error.to_string(), "messages, page 1 is corrupt in the store"),
        }
        drop(engine);
        let engine = Engine::open(open(), Timestamp(3)).unwrap();
        assert_eq!(engine.stats(queue).counts.ready, 512);
        assert_eq!(engine.peek(queue, &Filter::default(), None, 1000).unwrap().0.len(), 512);
        let damage: Vec<String> = engine.damage().unwrap().iter().map(Damage::to_string).collect();
        let missing =
            "page 1 of messages is damaged: messages are missing: 256 Ready of queue 1 at 256..=511";
        assert!(damage.iter().any(|damage| damage == missing), "{damage:?}");
    }
}

/// Promise: what is known of a page is made anew from the page.
#[test]
fn damaged_summary_is_mended() {
    let disk = Arc::<MemoryDisk>::default();
    let open = || Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, SMALL).unwrap();
    let mut engine = Engine::open(open(), Timestamp(1)).unwrap();
    let queue = made(&mut engine);
    engine.apply(Timestamp(2), vec![sends(queue, 300)]).unwrap();
    let before = engine.digest();
    engine.close().unwrap();
    for damage in [Store::damage_summary, Store::lose_summary] {
        let mut store = open();
        damage(&mut store, 1);
        let engine = Engine::open(store, Timestamp(2)).unwrap();
        assert_eq!((engine.digest(), engine.damage().unwrap()), (before, vec![]));
    }
}

/// Promise: what cannot be read of what is remembered is forgotten, and said.
#[test]
fn damaged_memory_is_set_aside() {
    let disk = Arc::<MemoryDisk>::default();
    let open = || Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, SMALL).unwrap();
    let mut store = open();
    store.put(tables::DELIVERIES, 3, Some(b"no page"));
    store.put(MEMORY, b"key".as_slice(), Some(b"no value"));
    let engine = Engine::open(store, Timestamp(1)).unwrap();
    let damage: Vec<String> = engine.damage().unwrap().into_iter().map(|damage| damage.what).collect();
    assert_eq!(damage, ["page 3 of deliveries", "row [6b, 65, 79] of memory"]);
    drop(engine);
    assert_eq!(Engine::open(open(), Timestamp(1)).unwrap().damage().unwrap().len(), 2);
}

/// Promise: whatever a crash left of making the store, opening works.
#[test]
fn unfinished_store_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("state.new"), b"torn").unwrap();
    let mut store = Store::open(folder.path(), ENTROPY).unwrap();
    assert_eq!(store.load().unwrap().meta.next_seq, 1);
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["0000000000000001.log", "lock", "reserve", FILE]);
    let usage = store.usage();
    assert!(usage.log_bytes > 0 && usage.state_bytes > 0, "{usage:?}");
}

/// Promise: two processes never write one store.
#[test]
fn store_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Store::open(folder.path(), ENTROPY).unwrap();
    assert!(matches!(Store::open(folder.path(), ENTROPY), Err(StoreError::InUse(_))));
}

/// Promise: the receipts' key is of the store, not of the process that opens it.
#[test]
fn secrets_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), ENTROPY).unwrap());
    let other = Entropy { receipt_key: [8; 16], salt: 1 };
    let meta = Store::open(folder.path(), other).unwrap().load().unwrap().meta;
    assert_eq!((meta.receipt_key, meta.salt), (ENTROPY.receipt_key, ENTROPY.salt));
}

/// Promise: what was confirmed is there after a restart, whatever of it a checkpoint has; and a second restart changes
/// nothing.
#[test]
fn restart_goes_on_from_checkpoint_and_log() {
    let disk = Arc::<MemoryDisk>::default();
    let open = |at| {
        let store = Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, SMALL).unwrap();
        Engine::open(store, Timestamp(at)).unwrap()
    };
    let mut engine = open(1);
    let queue = made(&mut engine);
    for n in 0..100 {
        engine.apply(Timestamp(2), vec![send(queue, n, 300)]).unwrap();
    }
    let before = engine.digest();
    drop(engine);
    let engine = open(2);
    assert_eq!(engine.digest(), before);
    assert_eq!(engine.stats(queue).counts.ready, 100);
    drop(engine);
    assert_eq!(open(2).digest(), before);
}

/// Promise: a log does not grow by what is done with.
#[test]
fn segments_are_used_again() {
    let mut engine = Engine::open(Store::in_memory(), Timestamp(1)).unwrap();
    let queue = made(&mut engine);
    let mut used = Vec::new();
    for round in 0..100 {
        engine.apply(Timestamp(2), vec![send(queue, round, 1000)]).unwrap();
        cancel_last(&mut engine, queue);
        used.push(engine.store.files().log.bytes());
    }
    assert!(used[99] <= used[40], "{used:?}");
}

/// Promise: a few messages that stay do not keep the room of all that came and went with them, and are themselves kept.
#[test]
fn what_survives_does_not_keep_its_segment() {
    let disk = Arc::<MemoryDisk>::default();
    let open = || {
        let store = Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, SMALL).unwrap();
        Engine::open(store, Timestamp(1)).unwrap()
    };
    let mut engine = open();
    let queue = made(&mut engine);
    for round in 0..200 {
        engine.apply(Timestamp(2), vec![send(queue, round, 1000)]).unwrap();
        if round % 10 != 0 {
            cancel_last(&mut engine, queue);
        }
    }
    assert!(engine.store.files().log.bytes() < 60 << 10, "{}", engine.store.files().log.bytes());
    assert_eq!(bodies(&engine, queue), (0..200).step_by(10).collect::<Vec<u8>>());
    let before = engine.digest();
    drop(engine);
    let mut engine = open();
    assert_eq!(engine.digest(), before);
    assert_eq!(bodies(&engine, queue), (0..200).step_by(10).collect::<Vec<u8>>());
    while engine.stats(queue).counts.ready > 0 {
        cancel_last(&mut engine, queue);
    }
    engine.close().unwrap();
    let mut engine = open();
    assert_eq!(
        engine.store.files().state.read(Tables::moved).unwrap(),
        Vec::<u64>::new(),
        "what was moved is removed"
    );
}

/// Promise: whichever messages stay, the files of the log are hardly larger than what they hold, once the others are gone.
#[test]
fn log_is_hardly_larger_than_what_it_holds() {
    const SEGMENT: u64 = 64 << 10;
    for one_of in [2, 3, 5, 9] {
        let options = Options { segment_bytes: SEGMENT, checkpoint_bytes: SEGMENT, ..SMALL };
        let store = Store::on_disk(Arc::<MemoryDisk>::default(), ENTROPY, options).unwrap();
        let mut engine = Engine::open(store, Timestamp(1)).unwrap();
        let queue = made(&mut engine);
        for round in 0..3000_u64 {
            let replies = engine.apply(Timestamp(2), vec![send(queue, 1, 1000)]).unwrap().replies;
            let [Reply::Sent(sent)] = replies.as_slice() else { panic!("{replies:?}") };
            if round % one_of == 0 {
                let ids = vec![sent[0].as_ref().unwrap().id];
                engine.apply(Timestamp(2), vec![Command::Cancel(Cancel { queue, ids })]).unwrap();
            }
        }
        let held = engine.stats(queue).counts.bytes;
        let moved = engine.store.files().moved_payloads() * 1000;
        let log = engine.store.files().log.bytes();
        assert!(
            log < (held - moved) * 13 / 10 + 10 * SEGMENT,
            "one of {one_of}: {log} for {held}, {moved} moved"
        );
    }
}

/// The first byte of each, and that the others are like it.
fn bodies(engine: &Engine, queue: QueueId) -> Vec<u8> {
    let messages = engine.peek(queue, &Filter::default(), None, 1000).unwrap().0;
    let body = |message: Message| {
        let body = message.payload.body;
        assert!(body.len() == 1000 && body.iter().all(|byte| *byte == body[0]), "{body:?}");
        body[0]
    };
    messages.into_iter().map(body).collect()
}

fn cancel_last(engine: &mut Engine, queue: QueueId) {
    let id = engine.peek(queue, &Filter::default(), None, 1000).unwrap().0.pop().unwrap().id;
    let cancel = Command::Cancel(Cancel { queue, ids: vec![id] });
    engine.apply(Timestamp(2), vec![cancel]).unwrap();
}

/// Promise: what a crash left of an unconfirmed record is as if it had never been.
#[test]
fn torn_record_at_the_end_is_dropped() {
    let disk = Arc::<MemoryDisk>::default();
    let open = || Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, SMALL).unwrap();
    let mut engine = Engine::open(open(), Timestamp(1)).unwrap();
    let queue = made(&mut engine);
    let before = engine.digest();
    engine.apply(Timestamp(1), vec![send(queue, 1, 100)]).unwrap();
    drop(engine);
    let file = disk.open("0000000000000001.log").unwrap();
    let mut bytes = vec![0; 4096];
    file.read_at(0, &mut bytes).unwrap();
    let body = bytes.windows(8).position(|window| window == [1; 8]).unwrap();
    file.write_at(body as u64, &[0; 50]).unwrap();
    let mut engine = Engine::open(open(), Timestamp(1)).unwrap();
    assert_eq!(engine.digest(), before);
    engine.apply(Timestamp(1), vec![send(queue, 2, 10)]).unwrap();
    drop(engine);
    assert_eq!(Engine::open(open(), Timestamp(1)).unwrap().stats(queue).counts.ready, 1);
}

fn made(engine: &mut Engine) -> QueueId {
    let configure = Configure { name: "shop/orders".into(), generation: 1, settings: Settings::default() };
    engine.apply(Timestamp(1), vec![Command::Configure(configure)]).unwrap();
    engine.queue("shop/orders").unwrap()
}

fn sends(queue: QueueId, messages: usize) -> Command {
    let messages = vec![NewMessage::default(); messages];
    Command::Send(Send { queue, messages, batch: Whole::Each, request_id: String::new() })
}

fn send(queue: QueueId, fill: u8, len: usize) -> Command {
    let payload = Payload { body: vec![fill; len].into(), ..Payload::default() };
    let messages = vec![NewMessage { payload, ..NewMessage::default() }];
    Command::Send(Send { queue, messages, batch: Whole::Each, request_id: String::new() })
}

/// Promise: writing one batch while another is applied changes nothing but the time it takes.
#[test]
fn submitted_batches_lead_to_the_same_state() {
    let disk = Arc::<MemoryDisk>::default();
    let open = || {
        let options = Options { threads: Threads::Several, ..SMALL };
        let store = Store::on_disk(Arc::<MemoryDisk>::clone(&disk), ENTROPY, options).unwrap();
        Engine::open(store, Timestamp(1)).unwrap()
    };
    let (mut one, mut other) = (Engine::open(Store::in_memory(), Timestamp(1)).unwrap(), open());
    let queue = made(&mut one);
    assert_eq!(made(&mut other), queue);
    for n in 0..100 {
        one.apply(Timestamp(2), vec![send(queue, n, 300)]).unwrap();
        other.submit(Timestamp(2), vec![send(queue, n, 300)]).unwrap();
        if other.submitted() > 1 {
            other.finish().unwrap();
        }
    }
    assert_eq!(other.stats(queue).counts.ready, 99);
    other.close().unwrap();
    assert_eq!(open().digest(), one.digest());
}
