//! Commands to be written and read: one of each by hand, and any by chance.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::command::{
    self, Available, Cancel, Commit, Configure, Delete, Extend, Filter, HandOver, Handover, Mode, NewMessage,
    Outcome, Outgoing, Oversized, Pause, Receive, Selection, Send, Settle,
};
use crate::message::{Attempt, AttemptOutcome, MessageId, Priority, QueueId, Stage, State};
use crate::moving::{
    Arrive, Depart, Forget, Import, Origin, Place, Placement, RememberedId, Source, Traveller,
};
use crate::settings::{Backoff, BackoffPolicy, Expired, Settings};
use crate::slots::Slot;
use crate::task::{Order, Task, TaskId, Work};

/// No two fields of a command with the same content, so that none can be taken for another.
pub(super) fn every_command() -> Vec<Command> {
    let queue = QueueId(7);
    let receipt = |text: &'static str| Bytes::from_static(text.as_bytes());
    let reason = || "why".to_owned();
    let ids = vec![MessageId::new(Timestamp(1), 2, Seq(3))];
    let settlements = vec![
        (receipt("r1"), Outcome::Ack),
        (receipt("r2"), Outcome::Nack { delay_ms: Some(9), reason: reason() }),
        (receipt("r3"), Outcome::Nack { delay_ms: None, reason: String::new() }),
        (receipt("r4"), Outcome::Release),
        (receipt("r5"), Outcome::Reject { reason: reason() }),
        (receipt("r6"), Outcome::Lost { reason: reason() }),
    ];
    let settle = Settle { queue, settlements };
    let filter = Filter {
        states: vec![State::Ready, State::Delayed, State::InFlight, State::Dead],
        ordering_key: "o".into(),
        fairness_key: "f".into(),
        headers: vec![("k".into(), "v".into())],
        reason_contains: "why".into(),
        min_attempts: 1,
        stored_after: Some(Timestamp(2)),
        stored_before: Some(Timestamp(3)),
        ids: ids.clone(),
    };
    let selection = Selection { queue, filter, after: Some(4), max_messages: 5, mode: Mode::Apply };
    let mut commands = vec![
        Command::Configure(Configure {
            name: "shop/orders".into(),
            generation: 8,
            settings: Settings::default(),
        }),
        Command::Pause(Pause { queue, paused: true }),
        Command::Delete(Delete { queue, max_messages: 9 }),
        Command::Send(Send {
            queue,
            messages: vec![example_message(), NewMessage::default()],
            batch: command::Batch::Atomic,
            request_id: "q1".into(),
        }),
        Command::Receive(Receive {
            queue,
            max_messages: 10,
            max_bytes: 11,
            oversized: Oversized::Waits,
            ack_timeout_ms: Some(12),
            consumer: "worker-1".into(),
            request_id: "q2".into(),
            handover: Handover::Reported,
        }),
        Command::HandOver(HandOver { queue, receipts: vec![receipt("r7"), receipt("")] }),
        Command::Settle(settle.clone()),
        Command::Extend(Extend { queue, receipts: vec![receipt("r8")], ack_timeout_ms: Some(13) }),
        Command::Commit(Commit {
            settle: vec![settle],
            send: vec![Outgoing { queue: QueueId(14), messages: vec![example_message()] }],
            request_id: "q3".into(),
        }),
        Command::Cancel(Cancel { queue, ids }),
        Command::Redrive(selection.clone()),
        Command::Purge(Selection { filter: Filter::default(), after: None, mode: Mode::DryRun, ..selection }),
    ];
    commands.extend(moving_commands(queue));
    commands.extend(task_commands(queue));
    commands
}

fn task_commands(queue: QueueId) -> [Command; 2] {
    let id = TaskId { created: Timestamp(55), uid: "t1".into() };
    let work = Work::Purge(vec![State::Ready, State::Dead]);
    let order = Order { work, stored_before: Some(Timestamp(56)), max_messages: 57, max_per_second: 58 };
    let redrive = Order { work: Work::Redrive, stored_before: None, ..order.clone() };
    [
        Command::Task(Task { queue, id: id.clone(), order, has_begun: true, cancel: false }),
        Command::Task(Task { queue, id, order: redrive, has_begun: false, cancel: true }),
    ]
}

fn moving_commands(queue: QueueId) -> [Command; 5] {
    [
        Command::Place(Place { queue, placement: PLACEMENT }),
        Command::Arrive(Arrive {
            queue,
            placement: PLACEMENT,
            source: Source {
                ordinal: 30,
                salt: 31,
                first: Seq(32),
                end: Seq(33),
                origins: vec![Origin { at: Seq(34), places: 35, salt: 36, first: Seq(37) }],
            },
        }),
        Command::Import(import(queue)),
        Command::Depart(Depart { queue, max_messages: 38, max_bytes: 39 }),
        Command::Forget(Forget { queue, target: 40, transfer: 41 }),
    ]
}

const PLACEMENT: Placement = Placement { generation: 26, ordinal: 27, from: 28, to: 29 };

fn import(queue: QueueId) -> Import {
    let message = MessageId::new(Timestamp(1), 2, Seq(3));
    Import {
        queue,
        generation: 42,
        source: 43,
        transfer: 44,
        messages: vec![traveller(Stage::Ready), traveller(Stage::Delayed { until: Timestamp(45) })],
        dedup_ids: vec![RememberedId { dedup_id: "d2".into(), message, until: Timestamp(46) }],
        waiting: Some(vec![Slot::new(47).expect("a slot"), Slot::new(4095).expect("the last slot")]),
        accepts: true,
    }
}

fn traveller(stage: Stage) -> Traveller {
    let attempt = Attempt {
        started: Timestamp(48),
        ended: Timestamp(49),
        outcome: AttemptOutcome::Nack,
        reason: "why".into(),
        consumer: "worker-1".into(),
    };
    Traveller {
        place: Seq(50),
        stored_at: Timestamp(51),
        stage,
        attempts: 52,
        deliveries: 53,
        history: vec![attempt],
        expires_at: Some(Timestamp(54)),
        message: example_message(),
    }
}

pub(super) fn example_message() -> NewMessage {
    NewMessage {
        payload: Payload {
            body: Bytes::from_static(b"hello"),
            headers: vec![("k".into(), "v".into())],
            content_type: "text/plain".into(),
            dedup_id: "d1".into(),
            ordering_key: "customer-7".into(),
            fairness_key: "tenant".into(),
        },
        available: Available::At(Timestamp(15)),
        ttl_ms: Some(16),
        max_attempts: Some(17),
        priority: Priority::new(9).expect("the most urgent"),
        position: Some(18),
    }
}

pub(super) fn batches() -> impl Strategy<Value = Batch> {
    let corrupt = vec((any::<u64>(), any::<u64>()), 0..3);
    (any::<u64>(), any::<bool>(), corrupt, vec(commands(), 0..6)).prop_map(
        |(now, resumes, corrupt, commands)| Batch {
            now: Timestamp(now),
            resumes,
            corrupt: corrupt.into_iter().map(|(seq, epoch)| (Seq(seq), Epoch(epoch))).collect(),
            commands,
        },
    )
}

fn commands() -> impl Strategy<Value = Command> {
    let pause = (queues(), any::<bool>()).prop_map(|(queue, paused)| Pause { queue, paused });
    let delete = (queues(), any::<u64>()).prop_map(|(queue, max_messages)| Delete { queue, max_messages });
    let hand_over = (queues(), vec(receipts(), 0..4));
    let extend = (queues(), vec(receipts(), 0..4), option::of(any::<u64>()));
    prop_oneof![
        configures().prop_map(Command::Configure),
        pause.prop_map(Command::Pause),
        delete.prop_map(Command::Delete),
        sends().prop_map(Command::Send),
        receives().prop_map(Command::Receive),
        hand_over.prop_map(|(queue, receipts)| Command::HandOver(HandOver { queue, receipts })),
        settles().prop_map(Command::Settle),
        extend.prop_map(|(queue, receipts, ack_timeout_ms)| Command::Extend(Extend {
            queue,
            receipts,
            ack_timeout_ms
        })),
        commits().prop_map(Command::Commit),
        (queues(), vec(ids(), 0..4)).prop_map(|(queue, ids)| Command::Cancel(Cancel { queue, ids })),
        selections().prop_map(Command::Redrive),
        selections().prop_map(Command::Purge),
        tasks().prop_map(Command::Task),
    ]
}

fn tasks() -> impl Strategy<Value = Task> {
    let states = vec(select(vec![State::Ready, State::Delayed, State::Dead]), 0..4);
    let work = option::of(states).prop_map(|states| states.map_or(Work::Redrive, Work::Purge));
    let order = (work, option::of(any::<u64>()), any::<u64>(), any::<u64>()).prop_map(
        |(work, before, max_messages, max_per_second)| Order {
            work,
            stored_before: before.map(Timestamp),
            max_messages,
            max_per_second,
        },
    );
    (queues(), any::<u64>(), texts(), order, any::<[bool; 2]>()).prop_map(
        |(queue, created, uid, order, [has_begun, cancel])| {
            let id = TaskId { created: Timestamp(created), uid };
            Task { queue, id, order, has_begun, cancel }
        },
    )
}

fn configures() -> impl Strategy<Value = Configure> {
    let policies = [BackoffPolicy::Constant, BackoffPolicy::Linear, BackoffPolicy::Exponential];
    let expired = select(vec![Expired::DeadLetter, Expired::Drop]);
    let numbers = any::<[u64; 10]>();
    let settings = (numbers, any::<u32>(), select(policies.to_vec()), expired);
    let settings = settings.prop_map(|(numbers, max_attempts, policy, expired)| {
        let [ack, processing, min_ms, max_ms, messages, bytes, body, in_flight, dead, dedup] = numbers;
        Settings {
            ack_timeout_ms: ack,
            max_processing_ms: processing,
            max_attempts,
            backoff: Backoff { policy, min_ms, max_ms },
            max_messages: messages,
            max_bytes: bytes,
            max_message_bytes: body,
            max_in_flight: in_flight,
            dead_ms: dead,
            dedup_window_ms: dedup,
            expired,
            priority_step_ms: ack ^ dedup,
        }
    });
    (texts(), any::<u64>(), settings).prop_map(|(name, generation, settings)| Configure {
        name,
        generation,
        settings,
    })
}

fn sends() -> impl Strategy<Value = Send> {
    let batch = select(vec![command::Batch::Each, command::Batch::Atomic]);
    (queues(), vec(messages(), 0..5), batch, texts()).prop_map(|(queue, messages, batch, request_id)| Send {
        queue,
        messages,
        batch,
        request_id,
    })
}

fn commits() -> impl Strategy<Value = Commit> {
    let outgoing = (queues(), vec(messages(), 0..4));
    let outgoing = outgoing.prop_map(|(queue, messages)| Outgoing { queue, messages });
    (vec(settles(), 0..3), vec(outgoing, 0..3), texts()).prop_map(|(settle, send, request_id)| Commit {
        settle,
        send,
        request_id,
    })
}

fn messages() -> impl Strategy<Value = NewMessage> {
    let available = prop_oneof![
        Just(Available::Now),
        any::<u64>().prop_map(Available::After),
        any::<u64>().prop_map(|at| Available::At(Timestamp(at))),
    ];
    let limits = (option::of(any::<u64>()), option::of(any::<u32>()), 0..=u32::from(Priority::MAX));
    (payloads(), available, limits).prop_map(|(payload, available, (ttl_ms, max_attempts, priority))| {
        let priority = Priority::new(priority).expect("at most the most urgent");
        NewMessage { payload, available, ttl_ms, max_attempts, priority, position: ttl_ms.map(|_| 3) }
    })
}

fn payloads() -> impl Strategy<Value = Payload> {
    (vec(any::<u8>(), 0..40), headers(), texts(), texts(), texts(), texts()).prop_map(
        |(body, headers, content_type, dedup_id, ordering_key, fairness_key)| Payload {
            body: Bytes::from(body),
            headers,
            content_type,
            dedup_id,
            ordering_key,
            fairness_key,
        },
    )
}

fn receives() -> impl Strategy<Value = Receive> {
    let most = (any::<u32>(), any::<u64>(), select(vec![Oversized::Comes, Oversized::Waits]));
    let handover = select(vec![Handover::AtOnce, Handover::Reported]);
    (queues(), most, option::of(any::<u64>()), texts(), texts(), handover).prop_map(
        |(queue, (max_messages, max_bytes, oversized), ack_timeout_ms, consumer, request_id, handover)| {
            Receive {
                queue,
                max_messages,
                max_bytes,
                oversized,
                ack_timeout_ms,
                consumer,
                request_id,
                handover,
            }
        },
    )
}

fn settles() -> impl Strategy<Value = Settle> {
    let outcome = prop_oneof![
        Just(Outcome::Ack),
        (option::of(any::<u64>()), texts()).prop_map(|(delay_ms, reason)| Outcome::Nack { delay_ms, reason }),
        Just(Outcome::Release),
        texts().prop_map(|reason| Outcome::Reject { reason }),
        texts().prop_map(|reason| Outcome::Lost { reason }),
    ];
    (queues(), vec((receipts(), outcome), 0..4))
        .prop_map(|(queue, settlements)| Settle { queue, settlements })
}

fn selections() -> impl Strategy<Value = Selection> {
    let mode = select(vec![Mode::DryRun, Mode::Apply]);
    (queues(), filters(), option::of(any::<u64>()), any::<u64>(), mode).prop_map(
        |(queue, filter, after, max_messages, mode)| Selection { queue, filter, after, max_messages, mode },
    )
}

fn filters() -> impl Strategy<Value = Filter> {
    let states = vec(select(vec![State::Ready, State::Delayed, State::InFlight, State::Dead]), 0..5);
    let times = (option::of(any::<u64>()), option::of(any::<u64>()));
    (states, texts(), texts(), headers(), texts(), any::<u32>(), times, vec(ids(), 0..3)).prop_map(
        |(
            states,
            ordering_key,
            fairness_key,
            headers,
            reason_contains,
            min_attempts,
            (after, before),
            ids,
        )| {
            Filter {
                states,
                ordering_key,
                fairness_key,
                headers,
                reason_contains,
                min_attempts,
                stored_after: after.map(Timestamp),
                stored_before: before.map(Timestamp),
                ids,
            }
        },
    )
}

fn queues() -> impl Strategy<Value = QueueId> {
    any::<u32>().prop_map(QueueId)
}

fn ids() -> impl Strategy<Value = MessageId> {
    any::<u128>().prop_map(MessageId::from_u128)
}

fn receipts() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((texts(), texts()), 0..3)
}

fn texts() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..6).prop_map(String::from_iter)
}
