//! Turns, shares and windows, without an engine.

use super::*;

const ORDERS: QueueId = QueueId(1);
const LOGS: QueueId = QueueId(2);

impl Demands {
    /// Waiting calls, cancelled ones included.
    pub(in crate::broker::shard) fn polls(&self) -> usize {
        self.polls.len()
    }

    fn consume(&mut self, id: u64, queue: QueueId, max_messages: u32) -> SubscriptionId {
        let (id, events) = (SubscriptionId(id), mpsc::channel(1).0);
        let window = Window { max_messages, max_bytes: 100 };
        self.open(Subscription {
            id,
            queue,
            consumer: String::new(),
            window,
            events,
            unread: Unread::default(),
        });
        id
    }

    fn wait(&mut self, max_messages: u32, give_up_at: u64) -> oneshot::Receiver<Result<Handed, Failure>> {
        let (reply, answer) = oneshot::channel();
        let receive = Receive {
            queue: ORDERS,
            max_messages,
            max_bytes: 100,
            oversized: Oversized::Comes,
            ack_timeout_ms: None,
            consumer: String::new(),
            request_id: String::new(),
            handover: Handover::AtOnce,
        };
        self.park(Poll { receive, give_up_at: Timestamp(give_up_at), reply });
        answer
    }

    /// Who is asked for how many; calls are `None`.
    fn asked(&mut self, available: u64) -> Vec<(Option<u64>, u32)> {
        let name = |asker: &Asker| match asker {
            Asker::Poll(_) => None,
            Asker::Consumer(id, _) => Some(id.0),
        };
        let asks = self.ask(ORDERS, available);
        asks.iter().map(|(receive, asker)| (name(asker), receive.max_messages)).collect()
    }
}

fn receipt(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

/// No consumer is starved: each gets its share, and who was asked goes behind the others.
#[test]
fn consumers_are_asked_in_turn_for_their_shares() {
    let mut demands = Demands::default();
    for id in 1..=3 {
        demands.consume(id, ORDERS, 9);
    }
    demands.consume(4, LOGS, 9);
    assert_eq!(demands.asked(5), [(Some(1), 2), (Some(2), 2), (Some(3), 2)]);
    assert_eq!(demands.asked(2), [(Some(1), 1), (Some(2), 1)]);
    assert_eq!(demands.asked(2), [(Some(3), 1), (Some(1), 1)]);
    assert_eq!(demands.asked(0), []);
}

/// A consumer never holds more than its window, in messages and in bytes.
#[test]
fn held_deliveries_fill_the_window() {
    let mut demands = Demands::default();
    let id = demands.consume(1, ORDERS, 2);
    demands.hold(id, receipt("a"), 40);
    let (receive, _) = demands.ask(ORDERS, 9).remove(0);
    assert_eq!((receive.max_messages, receive.max_bytes), (1, 60));
    assert_eq!(receive.oversized, Oversized::Waits);
    demands.hold(id, receipt("b"), 40);
    assert!(!demands.has_room(ORDERS));
    assert_eq!(demands.asked(9), []);
    demands.let_go(&receipt("a"));
    demands.let_go(&receipt("a"));
    assert_eq!(demands.asked(9), [(Some(1), 1)]);
    demands.hold(id, receipt("c"), 60);
    demands.resize(id, Window { max_messages: 9, max_bytes: 100 });
    assert!(!demands.has_room(ORDERS), "100 bytes are held");
}

/// Lowering a window revokes nothing and grants nothing; an empty one ends the deliveries.
#[test]
fn lowered_window_grants_nothing() {
    let mut demands = Demands::default();
    let id = demands.consume(1, ORDERS, 3);
    demands.hold(id, receipt("a"), 1);
    demands.hold(id, receipt("b"), 1);
    demands.resize(id, Window { max_messages: 1, max_bytes: 1 });
    assert_eq!(demands.asked(9), []);
    demands.let_go(&receipt("a"));
    demands.let_go(&receipt("b"));
    assert_eq!(demands.asked(9), [(Some(1), 1)]);
    demands.resize(id, Window { max_messages: 0, max_bytes: 0 });
    assert_eq!(demands.asked(9), []);
}

/// The end of a stream gives up what it holds, and its turn.
#[test]
fn close_returns_what_was_held() {
    let mut demands = Demands::default();
    let id = demands.consume(1, ORDERS, 3);
    demands.hold(id, receipt("a"), 1);
    assert_eq!(demands.close(id), Some((ORDERS, vec![receipt("a")])));
    assert!(demands.close(id).is_none());
    assert!(demands.let_go(&receipt("a")).is_none());
    demands.forget_turns();
    assert!(demands.queues().is_empty());
    demands.hold(id, receipt("b"), 1);
    assert!(demands.let_go(&receipt("b")).is_none(), "nobody holds for a stream that is gone");
}

/// One holder: who comes back with a receipt has it from the stream that broke; another queue's stays where it is.
#[test]
fn adopted_receipt_has_one_holder() {
    let mut demands = Demands::default();
    let (old, new) = (demands.consume(1, ORDERS, 1), demands.consume(2, ORDERS, 1));
    let other = demands.consume(3, LOGS, 1);
    demands.hold(old, receipt("a"), 1);
    demands.adopt(other, &receipt("a"));
    assert!(!demands.consumers[&old].has_room() && demands.consumers[&other].has_room());
    demands.adopt(new, &receipt("a"));
    assert!(demands.consumers[&old].has_room() && !demands.consumers[&new].has_room());
    demands.disown(old, &receipt("a"));
    assert!(!demands.consumers[&new].has_room());
    assert_eq!(demands.close(old), Some((ORDERS, vec![])));
    assert_eq!(demands.let_go(&receipt("a")).map(|consumer| consumer.subscription.id), Some(new));
}

/// Waiting calls are answered once: asked for, given up at their time, or taken when the process stops.
#[test]
fn waiting_call_leaves_by_one_way() {
    let mut demands = Demands::default();
    let _answers = [demands.wait(5, 10), demands.wait(5, 20), demands.wait(5, 30)];
    assert_eq!(demands.asked(1), [(None, 5)]);
    assert_eq!(demands.next_give_up(), Some(Timestamp(20)));
    assert!(demands.give_up(Timestamp(19)).is_empty());
    assert_eq!(demands.give_up(Timestamp(20)).len(), 1);
    assert_eq!(demands.count(ORDERS), 1);
    assert_eq!(demands.take_polls().len(), 1);
    assert!(demands.queues().is_empty() && demands.next_give_up().is_none());
}

/// A cancelled call takes nobody's turn and is no consumer.
#[test]
fn cancelled_call_is_not_asked() {
    let mut demands = Demands::default();
    drop(demands.wait(5, 10));
    demands.consume(1, ORDERS, 9);
    assert_eq!(demands.count(ORDERS), 1);
    assert_eq!(demands.asked(4), [(Some(1), 2)]);
    assert_eq!(demands.next_give_up(), None);
}

/// Extensions are due once each, for all that a consumer holds.
#[test]
fn due_extensions_are_taken_once() {
    let mut demands = Demands::default();
    let id = demands.consume(1, ORDERS, 9);
    demands.hold(id, receipt("a"), 1);
    demands.consumers.get_mut(&id).unwrap().extend_at = Some(Timestamp(5));
    assert!(demands.take_due_extensions(Timestamp(4)).is_empty());
    assert_eq!(demands.take_due_extensions(Timestamp(5)), [(id, ORDERS, vec![receipt("a")])]);
    assert!(demands.take_due_extensions(Timestamp(5)).is_empty());
}
