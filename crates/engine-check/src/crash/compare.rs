//! Whether two engines are the same, down to the bodies.

use ackwell_engine::Reply;
use ackwell_engine::command::{Delivery, Filter};
use ackwell_engine::message::{Message, QueueId};
use ackwell_engine::{Engine, StoreError};

use super::client::queues;
use super::store;
use crate::violation::{Violation, ensure};

/// Where the engine is not what its twin is.
pub(super) fn difference(engine: &Engine, twin: &Engine) -> Result<Option<String>, Violation> {
    for (name, queue) in queues(twin) {
        if engine.queue(name) != queue {
            return Ok(Some(format!("{name} is {:?}, not {queue:?}", engine.queue(name))));
        }
        let Some(queue) = queue else { continue };
        if let Some(difference) =
            between(&all_of(engine, queue).map_err(store)?, &all_of(twin, queue).map_err(store)?)
        {
            return Ok(Some(format!("{name}: {difference}")));
        }
    }
    Ok((engine.digest() != twin.digest())
        .then(|| "the messages are the same, but not the digests".to_owned()))
}

/// Counts are those of a full count.
pub(super) fn is_counted_right(engine: &Engine) -> Result<(), Violation> {
    for (name, queue) in queues(engine) {
        let Some(queue) = queue else { continue };
        let (counts, recount) = (engine.stats(queue).counts, engine.recount(queue));
        ensure(counts == recount, "13: counts equal a full count", || {
            format!("{name}: {counts:?}, {recount:?}")
        })?;
    }
    Ok(())
}

fn between(found: &[Message], expected: &[Message]) -> Option<String> {
    let pairs = found.iter().zip(expected).find(|(found, expected)| found != expected);
    match pairs {
        Some((found, expected)) => Some(format!("{}\n  instead of {}", shown(found), shown(expected))),
        None if found.len() == expected.len() => None,
        None => Some(format!("{} messages, not {}", found.len(), expected.len())),
    }
}

/// Without most of its body, which may be large.
fn shown(message: &Message) -> String {
    let mut shown = message.clone();
    let sum = shown
        .payload
        .body
        .iter()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let bytes = shown.payload.body.len();
    shown.payload.body.truncate(16);
    format!("{shown:?} (body of {bytes} bytes, sum {sum:x})")
}

/// How a reply is not the expected one: of many deliveries, the first that differs.
pub(super) fn unlike(reply: &Reply, expected: &Reply) -> String {
    let (Reply::Received(found), Reply::Received(expected)) = (reply, expected) else {
        return format!("{reply:?}\n  instead of {expected:?}");
    };
    let pairs = found.iter().zip(expected).enumerate().find(|(_, (found, expected))| found != expected);
    match pairs {
        Some((no, (found, expected))) => {
            format!("delivery {no} is {}\n  instead of {}", delivered(found), delivered(expected))
        }
        None => format!("{} deliveries instead of {}", found.len(), expected.len()),
    }
}

fn delivered(Delivery { receipt, message, deadline, epoch }: &Delivery) -> String {
    format!("{} until {deadline:?}, {epoch:?}, {receipt:x}", shown(message))
}

/// Every message, with its body.
pub(super) fn all_of(engine: &Engine, queue: QueueId) -> Result<Vec<Message>, StoreError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (messages, next) = engine.peek(queue, &Filter::default(), after, 1000)?;
        all.extend(messages);
        match next {
            Some(_) => after = next,
            None => return Ok(all),
        }
    }
}
