//! Property 12: a key that waits is served within one round, whatever the backlog of the others.

use std::collections::{BTreeMap, BTreeSet};

use ackwell_engine::message::{Message, MessageId, QueueId, State};

use super::Look;
use crate::violation::{Violation, ensure};

/// From here on a message puts its key into debt.
const UNIT_BYTES: usize = 65_536;

type Key = (QueueId, String);

/// A message that was handed out: its fairness key, the bytes of its body.
pub(super) type Served = (MessageId, Key, usize);

/// Who waits for how long.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: BTreeMap<Key, Wait>,
    /// These may have to wait longer.
    debtors: BTreeSet<Key>,
}

/// A key with messages that anyone could have had since the last look.
#[derive(Debug, Default)]
struct Wait {
    free: BTreeSet<MessageId>,
    /// How often each other key was served meanwhile.
    others: BTreeMap<Key, u32>,
}

impl Turns {
    pub(super) fn looked(&mut self, look: &Look, served: &[Served]) -> Result<(), Violation> {
        let mut now = free(look);
        let stay: BTreeSet<MessageId> =
            now.values().flatten().copied().chain(served.iter().map(|(id, ..)| *id)).collect();
        // What has left in another way may have left before any of them was served.
        self.waiting.values_mut().for_each(|wait| wait.free.retain(|id| stay.contains(id)));
        served.iter().try_for_each(|served| self.serve(served))?;
        let mut before = std::mem::take(&mut self.waiting);
        for (key, free) in std::mem::take(&mut now) {
            // A key that had nothing in between begins to wait anew.
            let wait = before.remove(&key).filter(|wait| !wait.free.is_disjoint(&free)).unwrap_or_default();
            self.waiting.insert(key, Wait { free, ..wait });
        }
        Ok(())
    }

    pub(super) fn forget<'a>(&mut self, queues: impl Iterator<Item = &'a QueueId>) {
        queues.for_each(|queue| self.waiting.retain(|(of, _), _| of != queue));
    }

    fn serve(&mut self, (id, key, bytes): &Served) -> Result<(), Violation> {
        if *bytes >= UNIT_BYTES {
            self.debtors.insert(key.clone());
        }
        if let Some(wait) = self.waiting.get_mut(key) {
            wait.free.remove(id);
            wait.others.clear();
        }
        for (waiting, wait) in self.waiting.iter_mut().filter(|(other, _)| other.0 == key.0 && *other != key)
        {
            let times = wait.others.entry(key.clone()).or_default();
            *times += u32::from(!wait.free.is_empty());
            let is_fair = *times < 2 || self.debtors.contains(waiting);
            ensure(is_fair, "12: a waiting key is served within a round", || {
                format!("{key:?} came {times} times before {waiting:?}")
            })?;
        }
        Ok(())
    }
}

/// Ready, and in no order but the queue's.
fn free(look: &Look) -> BTreeMap<Key, BTreeSet<MessageId>> {
    let mut free: BTreeMap<Key, BTreeSet<MessageId>> = BTreeMap::new();
    let is_free =
        |message: &&Message| message.state == State::Ready && message.payload.ordering_key.is_empty();
    for (queue, messages) in look {
        for message in messages.iter().filter(is_free) {
            free.entry((*queue, message.payload.fairness_key.clone())).or_default().insert(message.id);
        }
    }
    free
}
