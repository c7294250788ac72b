//! What of tasks takes more than one shard, or more messages than fit into a story.

use crate::command::{Batch, Command, Configure, NewMessage, Reply, Send};
use crate::engine::peek::MAX_SCANNED;
use crate::message::{Payload, QueueId, State};
use crate::moving::{Place, Placement};
use crate::settings::Settings;
use crate::slots::shard_of;
use crate::store::tests::ENTROPY;
use crate::task::{Order, Progress, Task, TaskId, TaskState, Work};
use crate::{Engine, Store, Timestamp};

const NOW: Timestamp = Timestamp(2);

fn apply(engine: &mut Engine, command: Command) -> Reply {
    engine.apply(NOW, vec![command]).unwrap().replies.remove(0)
}

fn engine() -> (Engine, QueueId) {
    let mut engine = Engine::open(Store::volatile(ENTROPY), Timestamp(1)).unwrap();
    let configure = Configure { name: "shop/orders".into(), generation: 1, settings: Settings::default() };
    let Reply::Configured(queue, _) = apply(&mut engine, Command::Configure(configure)) else { panic!() };
    (engine, queue)
}

fn send(engine: &mut Engine, queue: QueueId, keys: impl Iterator<Item = String>) {
    let payload = |ordering_key| Payload { ordering_key, ..Payload::default() };
    let messages = keys.map(|key| NewMessage { payload: payload(key), ..NewMessage::default() }).collect();
    apply(engine, Command::Send(Send { queue, messages, batch: Batch::Each, request_id: String::new() }));
}

fn purge(engine: &mut Engine, queue: QueueId, has_begun: bool) -> Progress {
    let work = Work::Purge(vec![State::Ready]);
    let order = Order { work, stored_before: None, max_messages: 0, max_per_second: 0 };
    let id = TaskId { created: Timestamp(1), uid: "t".into() };
    let task = Task { queue, id, order, has_begun, cancel: false };
    let Reply::Task(progress) = apply(engine, Command::Task(task)) else { panic!() };
    progress
}

/// Promise: what leaves a shard is left out there: it may be at its new one already, where the task may have had it.
#[test]
fn task_leaves_out_what_leaves() {
    let (mut engine, queue) = engine();
    let key = |home| (0..100).map(|number| format!("key-{number}")).find(|key| shard_of(key, 2) == home);
    send(&mut engine, queue, [0, 1].into_iter().filter_map(key));
    let placement = Placement { generation: 1, ordinal: 0, from: 1, to: 2 };
    apply(&mut engine, Command::Place(Place { queue, placement }));
    assert_eq!(purge(&mut engine, queue, false).total, 2);
    let progress = purge(&mut engine, queue, true);
    assert_eq!((progress.state, progress.processed), (TaskState::Over, 1));
    assert_eq!(engine.waiting(queue, 1).len(), 1, "the one that leaves");
}

/// Promise: a task of more messages than one step looks at ends when all had their turn.
#[test]
fn task_takes_as_many_steps_as_it_needs() {
    let (mut engine, queue) = engine();
    send(&mut engine, queue, (0..=MAX_SCANNED).map(|_| String::new()));
    purge(&mut engine, queue, false);
    let steps = [(); 2].map(|()| purge(&mut engine, queue, true));
    let all = MAX_SCANNED as u64;
    let told = steps.map(|step| (step.state, step.processed));
    assert_eq!(told, [(TaskState::Running, all), (TaskState::Over, all + 1)]);
}
