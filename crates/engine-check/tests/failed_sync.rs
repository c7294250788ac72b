//! A sync that fails leaves the state readable and not durable: whoever opens it next must not build on that.

use std::sync::Arc;

use ackwell_engine::command::{Batch, Configure, NewMessage, Send};
use ackwell_engine::store::{Entropy, Options, Threads};
use ackwell_engine::{Command, Engine, Settings, Store, StoreError, Timestamp};
use ackwell_engine_check::disk::{DeviceError, Faults, Lasts, Operation, SimDisk, Survival};

/// Each batch is a checkpoint.
const OPTIONS: Options = Options {
    segment_bytes: 16 << 10,
    checkpoint_bytes: 1,
    max_rows: 1000,
    reserve_bytes: 0,
    threads: Threads::One,
};
const NOW: Timestamp = Timestamp(1000);
const SEEDS: u64 = 4;
/// Messages in so many pages of the state that later batches leave most of them as they are.
const MANY: usize = 2000;
const SOUND: &str = "nothing is wrong with this disk";

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The checkpoint of a batch.
    Checkpoint,
    /// The opening after the process was killed.
    Opening,
    /// The end of the process.
    Closing,
}

/// Promise: whichever sync fails, what later checkpoints build on is there after a power cut.
#[test]
fn state_whose_sync_failed_is_not_built_on() {
    for moment in [Moment::Checkpoint, Moment::Opening, Moment::Closing] {
        for seed in 0..SEEDS {
            let syncs = std::iter::successors(survives(seed, moment, 0), |at| survives(seed, moment, at + 1));
            assert!(syncs.count() > 2, "{moment:?}: hardly a sync failed");
        }
    }
}

/// Which operation failed: the first sync after `at` of them, if there was one.
fn survives(seed: u64, moment: Moment, at: u64) -> Option<u64> {
    let mut disk = SimDisk::new(seed);
    let mut engine = open(&disk).expect(SOUND);
    send(&mut engine, "shop/orders", MANY).expect(SOUND);
    let begun = if matches!(moment, Moment::Opening) {
        drop(engine);
        disk = disk.restarted();
        let begun = fail_sync(&disk, at);
        _ = open(&disk);
        begun
    } else {
        let begun = fail_sync(&disk, at);
        _ = match moment {
            Moment::Closing => engine.close(),
            _ => send(&mut engine, "shop/mails", MANY),
        };
        begun
    };
    disk.set_faults(Faults::default());
    let failed = disk.asked().last_error.map(|at| at - begun);
    disk = disk.restarted();
    let mut engine = open(&disk).expect(SOUND);
    for _ in 0..3 {
        send(&mut engine, "shop/orders", 1).expect(SOUND);
    }
    let before = engine.digest();
    drop(engine);
    let engine = open(&disk.crash_as(seed, Survival::Nothing)).expect(SOUND);
    let damage = engine.damage().expect(SOUND);
    assert!(damage.is_empty(), "{moment:?}, seed {seed}, at {at}: {damage:?}");
    assert_eq!(engine.digest(), before, "{moment:?}, seed {seed}, at {at}");
    failed
}

/// The next sync after so many operations does. From how many on they are counted.
fn fail_sync(disk: &SimDisk, after: u64) -> u64 {
    let begun = disk.asked().operations;
    let at = begun + after;
    let error = DeviceError { at, only: Some(Operation::Sync), lasts: Lasts::Once };
    disk.set_faults(Faults { error: Some(error), ..Faults::default() });
    begun
}

fn open(disk: &SimDisk) -> Result<Engine, StoreError> {
    let entropy = Entropy { receipt_key: [7; 16], salt: 1 };
    Engine::open(Store::on_disk(Arc::new(disk.clone()), entropy, OPTIONS)?, NOW)
}

/// Makes the queue, too.
fn send(engine: &mut Engine, queue: &str, count: usize) -> Result<(), StoreError> {
    let configure = Configure { name: queue.into(), generation: 1, settings: Settings::default() };
    engine.apply(NOW, vec![Command::Configure(configure)])?;
    let messages = vec![NewMessage::default(); count];
    let queue = engine.queue(queue).expect("it was made");
    let send = Send { queue, messages, batch: Batch::Each, request_id: String::new() };
    engine.apply(NOW, vec![Command::Send(send)]).map(drop)
}
