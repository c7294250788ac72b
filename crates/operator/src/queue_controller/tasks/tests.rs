//! Tasks against shards that are played here: whatever fails in whichever order, what was done is what was ordered.

use ackwell_api::ShardTaskState;
use ackwell_proto::v1::{RunTaskRequest, RunTaskResponse, TaskState as Told};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::status::{Answer, Outcome, after, begun, ended, waiting};
use super::*;
use crate::queue_controller::{fixtures, unless_it_panics};

const CREATED: &str = "2026-01-02T03:04:05Z";

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(1_800_000_000 + seconds).unwrap())
}

fn task(spec: &Value) -> QueueTask {
    let mut task = json!({
        "apiVersion": "ackwell.dev/v1alpha1", "kind": "QueueTask",
        "metadata": {
            "name": "t", "namespace": "shop", "uid": "uid-t", "generation": 1, "creationTimestamp": CREATED,
            "ownerReferences": [{"apiVersion": "ackwell.dev/v1alpha1", "kind": "Queue", "name": "orders", "uid": "uid-1"}],
        },
        "spec": spec,
    });
    task["spec"]["queueName"] = json!("orders");
    serde_json::from_value(task).unwrap()
}

fn scene<'a>(task: &'a QueueTask, queue: Option<&'a Queue>) -> Scene<'a> {
    let now = at(0);
    Scene { task, queue, before: None, shards: Some(3), is_moving: false, is_paused: false, now }
}

fn with_status(task: &QueueTask, status: QueueTaskStatus) -> QueueTask {
    QueueTask { status: Some(status), ..task.clone() }
}

fn told(state: Told, processed: u64, total: u64) -> RunTaskResponse {
    RunTaskResponse { state: state.into(), processed, total, failed: 0 }
}

/// The message of the outcome that a step is.
fn says(step: &Step) -> String {
    format!("{step:?}")
}

#[test]
fn task_is_adopted_before_it_begins_and_begins_before_a_shard_hears_of_it() {
    let queue = fixtures::queue(|_| {});
    let mut task = task(&json!({"redrive": {}}));
    let owners = task.metadata.owner_references.take();
    let Step::Adopt(owner) = plan::next(&scene(&task, Some(&queue))) else { panic!("it has no owner") };
    assert_eq!(Some(vec![owner]), owners);
    task.metadata.owner_references = owners;
    assert_eq!(plan::next(&scene(&task, Some(&queue))), Step::Begin(vec![0, 1, 2]));
    let begun = with_status(&task, begun(&scene(&task, Some(&queue)), vec![0, 1, 2]));
    let Step::Run(asks) = plan::next(&scene(&begun, Some(&queue))) else { panic!("it has begun") };
    assert_eq!(asks.iter().map(|ask| ask.ordinal).collect::<Vec<_>>(), [0, 1, 2], "all at once");
    assert!(asks.iter().all(|ask| !ask.request.begun), "nobody knows yet that it began");
}

/// Promise: a shard that lost its record is not taken for one that did nothing yet.
#[test]
fn shard_is_asked_to_work_once_it_was_noted_that_it_began_there() {
    let (queue, task) = (fixtures::queue(|_| {}), task(&json!({"redrive": {}})));
    let begun = with_status(&task, begun(&scene(&task, Some(&queue)), vec![0, 1]));
    let answers: [Answer; 2] = [(0, Ok(told(Told::Running, 0, 2))), (1, Err("it does not serve".to_owned()))];
    let noted = with_status(&task, after(&scene(&begun, Some(&queue)), &answers));
    let Step::Run(asks) = plan::next(&scene(&noted, Some(&queue))) else { panic!("it goes on") };
    assert_eq!(asks.iter().map(|ask| ask.request.begun).collect::<Vec<_>>(), [true, false]);
}

/// Promise: what cannot be waited for is an end, and what can is told.
#[test]
fn obstacles_are_waited_for_and_dead_ends_are_ends() {
    let (queue, suspended) = (fixtures::queue(|_| {}), fixtures::queue(|spec| spec.suspend = true));
    let other = Queue {
        metadata: kube::api::ObjectMeta { uid: Some("uid-2".into()), ..queue.metadata.clone() },
        ..queue.clone()
    };
    let task = task(&json!({"redrive": {}}));
    let fresh = |queue| scene(&task, queue);
    let running = with_status(&task, begun(&fresh(Some(&queue)), vec![0]));
    let waits = [
        (Scene { is_paused: true, ..fresh(Some(&queue)) }, "is paused"),
        (fresh(Some(&suspended)), "is suspended"),
        (
            Scene { before: Some("older".into()), ..fresh(Some(&queue)) },
            "older of the same Queue comes first",
        ),
        (Scene { is_moving: true, ..fresh(Some(&queue)) }, "from shard to shard"),
        (Scene { shards: None, ..fresh(Some(&queue)) }, "no brokers yet"),
    ];
    for (scene, word) in &waits {
        let Step::Wait(why, _) = plan::next(scene) else { panic!("{word}") };
        assert!(why.contains(word), "{why}");
    }
    assert!(says(&plan::next(&fresh(None))).contains("Rejected"));
    assert!(says(&plan::next(&scene(&running, None))).contains("QueueGone"));
    assert!(says(&plan::next(&fresh(Some(&other)))).contains("earlier Queue"));
    let nothing = self::task(&json!({}));
    assert!(says(&plan::next(&scene(&nothing, Some(&queue)))).contains("NothingToDo"));
}

/// Promise: a move brings no message to a part of the task that had not begun, which would do it a second time.
#[test]
fn shards_that_have_not_begun_are_left_out_of_a_move() {
    let (queue, task) = (fixtures::queue(|_| {}), task(&json!({"redrive": {}})));
    let fresh = scene(&task, Some(&queue));
    let begun = with_status(&task, begun(&fresh, vec![0, 1]));
    let answers: [Answer; 1] = [(0, Ok(told(Told::Running, 1, 2)))];
    let running = with_status(&task, after(&scene(&begun, Some(&queue)), &answers));
    let moving = |task| Scene { is_moving: true, ..scene(task, Some(&queue)) };
    assert_eq!(plan::next(&moving(&running)), Step::LeaveOut);
    let rest = with_status(&task, status::left_out(&moving(&running)));
    for scene in [moving(&rest), scene(&rest, Some(&queue))] {
        let Step::Run(asks) = plan::next(&scene) else { panic!("what has begun goes on") };
        assert_eq!(asks.iter().map(|ask| ask.ordinal).collect::<Vec<_>>(), [0]);
    }
}

#[test]
fn task_is_deleted_so_long_after_it_is_over() {
    let task = task(&json!({"redrive": {}, "ttlSecondsAfterFinished": 60}));
    let over = with_status(&task, ended(&scene(&task, None), &Outcome::succeeded()));
    let then = |seconds| plan::next(&Scene { now: at(seconds), ..scene(&over, None) });
    assert_eq!(then(0), Step::Rest(Duration::from_mins(1)));
    assert_eq!(then(59), Step::Rest(Duration::from_secs(1)));
    assert_eq!(then(60), Step::Delete);
    let mut changed = over.clone();
    changed.metadata.generation = Some(2);
    assert_eq!(plan::next(&scene(&changed, None)), Step::Acknowledge, "tools wait for the newest spec");
    let status = status::acknowledged(&scene(&changed, None));
    assert_eq!((status.state, status.observed_generation), (TaskState::Succeeded, Some(2)));
}

#[test]
fn ages_count_from_when_the_task_was_made() {
    let queue = fixtures::queue(|_| {});
    let task = task(&json!({"purge": {"target": "All", "olderThanSeconds": 5}}));
    let begun = with_status(&task, begun(&scene(&task, Some(&queue)), vec![0]));
    let Step::Run(asks) = plan::next(&scene(&begun, Some(&queue))) else { panic!("it has begun") };
    let request = &asks[0].request;
    let created = CREATED.parse::<Timestamp>().unwrap().as_second();
    assert_eq!(request.stored_before.map(|before| before.seconds), Some(created - 5));
    assert_eq!(request.created.map(|created| created.seconds), Some(created));
}

/// Promise: who gives up hears it from the shards that answer, and does not wait for the others.
#[test]
fn cancelled_task_ends_at_once() {
    let queue = fixtures::queue(|_| {});
    let task = task(&json!({"redrive": {"maxMessages": 9}, "cancel": true}));
    assert!(says(&plan::next(&scene(&task, Some(&queue)))).contains("Cancelled"));
    let running = with_status(&task, begun(&scene(&task, Some(&queue)), vec![0, 1]));
    let scene = scene(&running, Some(&queue));
    let Step::Run(asks) = plan::next(&scene) else { panic!("shards are told") };
    assert!(asks.len() == 2 && asks.iter().all(|ask| ask.request.cancel));
    let answers = [(0, Ok(told(Told::Over, 3, 5))), (1, Err("shard 1 does not serve".to_owned()))];
    let status = after(&scene, &answers);
    assert_eq!((status.state, status.processed), (TaskState::Cancelled, 3));
    assert!(status.conditions[0].message.contains("shard 1 does not serve"));
}

#[test]
fn forgotten_task_fails_and_shards_that_are_gone_are_done() {
    let queue = fixtures::queue(|_| {});
    let task = task(&json!({"redrive": {}}));
    let running = with_status(&task, begun(&scene(&task, Some(&queue)), vec![0, 1]));
    let is_forgotten: [Answer; 1] = [(1, Ok(told(Told::Forgotten, 0, 0)))];
    let forgotten = after(&scene(&running, Some(&queue)), &is_forgotten);
    assert_eq!(forgotten.state, TaskState::Failed);
    let mut cancelled = running.clone();
    cancelled.spec.cancel = true;
    let cancelled = after(&scene(&cancelled, Some(&queue)), &is_forgotten);
    assert_eq!(cancelled.state, TaskState::Cancelled, "nobody wants to know more of it");
    let fewer = Scene { shards: Some(1), ..scene(&running, Some(&queue)) };
    let done = after(&fewer, &[(0, Ok(told(Told::Over, 2, 2)))]);
    assert_eq!((done.state, done.processed), (TaskState::Succeeded, 2));
}

#[test]
fn only_older_tasks_of_the_queue_that_are_not_over_come_first() {
    let young = task(&json!({"redrive": {}}));
    let made = |created: &str, uid: &str| {
        let mut other = young.clone();
        other.metadata.creation_timestamp = Some(Time(created.parse().unwrap()));
        other.metadata.uid = Some(uid.to_owned());
        other
    };
    let old = made("2026-01-01T00:00:00Z", "uid-z");
    assert!(is_before(&old, &young) && !is_before(&young, &old) && !is_before(&young, &young));
    assert!(is_before(&made(CREATED, "uid-a"), &young), "of one second the uid decides, for both");
    let elsewhere = |edit: fn(&mut QueueTask)| {
        let mut other = old.clone();
        edit(&mut other);
        other
    };
    let others = [
        elsewhere(|other| other.spec.queue_name = "logs".to_owned()),
        elsewhere(|other| other.metadata.namespace = Some("web".to_owned())),
        elsewhere(|other| {
            let status = QueueTaskStatus { state: TaskState::Succeeded, ..QueueTaskStatus::default() };
            other.status = Some(status);
        }),
    ];
    assert!(others.iter().all(|other| !is_before(other, &young)));
}

/// Promise: tasks do not stand still, with an operator that looks alive, after a mistake of ours.
#[tokio::test]
#[should_panic(expected = "a mistake")]
async fn panic_of_the_tasks_ends_the_operator() {
    let tasks = AbortOnDropHandle::new(tokio::spawn(async { panic!("a mistake") }));
    let limit = Duration::from_secs(20);
    _ = tokio::time::timeout(limit, unless_it_panics(tasks)).await;
}

/// Shards with messages, and what each was told first.
struct Shards {
    found: Vec<u64>,
    records: Vec<Option<(u64, u64)>>,
    /// In all, also by those that know nothing of it any more.
    done: u64,
}

impl Shards {
    /// As `docs/adr/0011` has it: what the first call says holds, and each call goes on once it is known to have begun.
    fn run(&mut self, ordinal: usize, request: &RunTaskRequest, part: u64) -> RunTaskResponse {
        let record = &mut self.records[ordinal];
        if request.begun && record.is_none() {
            return told(Told::Forgotten, 0, 0);
        }
        let bound = if request.max_messages == 0 { u64::MAX } else { request.max_messages };
        let (bound, done) = record.get_or_insert((bound, 0));
        let total = self.found[ordinal].min(*bound);
        let now = if request.begun { part.min(total - *done) } else { 0 };
        *done += now;
        self.done += now;
        // It does not look for what there is before it has begun.
        let state = if request.begun && *done == total { Told::Over } else { Told::Running };
        told(state, *done, total)
    }
}

/// What becomes of a visit.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// All of it is done.
    Done,
    /// The status is not written.
    Unwritten,
    /// No shard hears of it.
    Unheard,
    /// It was made of a status that was older.
    Stale,
}

proptest! {
    /// Promise: a task of any bounds does as much as it may, no more, and says so, whichever writes and answers are lost. Where
    /// volumes are lost it may do less.
    #[test]
    fn what_was_done_is_what_was_ordered(
        found in prop::collection::vec(0..6_u64, 1..4),
        max in 0..12_u64,
        fates in prop::collection::vec((prop_oneof![
            3 => Just(Fate::Done), 1 => Just(Fate::Unwritten), 1 => Just(Fate::Unheard), 1 => Just(Fate::Stale),
        ], 1..4_u64), 0..30),
        lost in prop::option::of((0..20_usize, 0..4_usize)),
    ) {
        let queue = fixtures::queue(|_| {});
        let shards_there = u32::try_from(found.len()).unwrap();
        let mut shards = Shards { records: vec![None; found.len()], found: found.clone(), done: 0 };
        let task = task(&json!({"redrive": {"maxMessages": max}}));
        let (mut now, mut before) = (task.clone(), task.clone());
        let ends = std::iter::repeat_n((Fate::Done, 3), 60);
        for (visit, (fate, part)) in fates.into_iter().chain(ends).enumerate() {
            if let Some((_, ordinal)) = lost.filter(|(when, _)| *when == visit) {
                shards.records.get_mut(ordinal).map(Option::take);
            }
            let read = if matches!(fate, Fate::Stale) { before.clone() } else { now.clone() };
            let scene = Scene { shards: Some(shards_there), ..scene(&read, Some(&queue)) };
            let status = match plan::next(&scene) {
                Step::Begin(ordinals) => begun(&scene, ordinals),
                Step::Wait(why, _) => waiting(&scene, &why),
                Step::End(outcome) => ended(&scene, &outcome),
                // As `work` sees to.
                Step::Run(asks) if read != now && asks.iter().any(|ask| !ask.request.begun) => continue,
                Step::Run(asks) => {
                    let ask = |Ask { ordinal, request }: Ask| -> Answer {
                        let answer = match fate {
                            Fate::Unheard => Err("it does not serve".to_owned()),
                            _ => Ok(shards.run(ordinal as usize, &request, part)),
                        };
                        (ordinal, answer)
                    };
                    let answers: Vec<_> = asks.into_iter().map(ask).collect();
                    after(&scene, &answers)
                }
                Step::Rest(_) | Step::Acknowledge | Step::Delete => break,
                Step::Adopt(_) | Step::LeaveOut => unreachable!("it has an owner, and nothing moves"),
            };
            // The API server takes no status that was made of an older one.
            if matches!(fate, Fate::Done | Fate::Unheard) {
                before = std::mem::replace(&mut now, with_status(&task, status));
            }
        }
        let all: u64 = found.iter().sum();
        let expected = if max == 0 { all } else { all.min(max) };
        let status = now.status.unwrap();
        prop_assert!(shards.done <= expected, "{} of {expected}", shards.done);
        if lost.is_some() && status.state != TaskState::Succeeded {
            return Ok(());
        }
        prop_assert_eq!(status.state, TaskState::Succeeded);
        prop_assert_eq!(u64::try_from(status.processed).unwrap(), expected);
        prop_assert_eq!(shards.done, expected);
        prop_assert!(max > 0 || status.shards.iter().all(|shard| shard.state == ShardTaskState::Done));
    }
}
