//! Where the messages of a batch go that may lie on any shard.
//!
//! A batch has a home by its name, so that a repetition finds it, through whichever sidecar it comes. While the home is
//! away, or takes no more, a *new* batch goes to the shard with the least on its way instead, and that is remembered for as
//! long as brokers know repetitions: a batch that was on its way to a shard once stays with it, since nobody can tell
//! whether that shard has stored it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::session::WINDOW;

/// As long as brokers remember a batch.
const MEMORY: Duration = Duration::from_mins(2);
/// Far more than an application has; one more finds its batches at their homes only.
const MAX_PRODUCERS: usize = 1024;
/// An application cannot have more batches that it was told nothing of.
const MAX_DETOURS: usize = WINDOW.max_messages as usize;

/// What is remembered of the producers of a queue.
#[derive(Debug, Default)]
pub(crate) struct Producers(Mutex<HashMap<String, Arc<Placed>>>);

/// Where the batches of a producer went, over all of its streams.
#[derive(Debug)]
pub(super) struct Placed(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    /// Of its batches, the newest that went anywhere.
    through: u64,
    /// Those that did not go home.
    detours: BTreeMap<u64, usize>,
    /// Messages that may still be repetitions of what another process has sent: nothing is known of their batches.
    foreign: usize,
    used: Instant,
}

impl Producers {
    /// A stream of the producer begins. A name that we did not give may have been used elsewhere.
    pub(super) fn enter(&self, name: &str, is_new: bool) -> Arc<Placed> {
        let mut producers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(placed) = producers.get(name) {
            return Arc::clone(placed);
        }
        producers
            .retain(|_, placed| Arc::strong_count(placed) > 1 || placed.memory().used.elapsed() < MEMORY);
        let is_remembered = producers.len() < MAX_PRODUCERS;
        let foreign = match (is_remembered, is_new) {
            (true, true) => 0,
            (true, false) => WINDOW.max_messages as usize,
            (false, _) => usize::MAX,
        };
        let memory = Memory { through: 0, detours: BTreeMap::new(), foreign, used: Instant::now() };
        let placed = Arc::new(Placed(Mutex::new(memory)));
        if is_remembered {
            producers.insert(name.to_owned(), Arc::clone(&placed));
        }
        placed
    }
}

impl Placed {
    /// The shard that the batch must go to, since it may have gone there before; `None`: it is new.
    pub(super) fn bound(&self, seq: u64, home: usize) -> Option<usize> {
        let memory = self.memory();
        let may_be_known = seq <= memory.through || memory.foreign > 0;
        may_be_known.then(|| memory.detours.get(&seq).copied().unwrap_or(home))
    }

    /// The batch, of so many messages, goes to that shard.
    pub(super) fn put(&self, seq: u64, messages: usize, shard: usize, home: usize) {
        let mut memory = self.memory();
        memory.used = Instant::now();
        memory.through = memory.through.max(seq);
        memory.foreign = memory.foreign.saturating_sub(messages);
        if shard != home {
            memory.detours.insert(seq, shard);
        }
        if memory.detours.len() > MAX_DETOURS {
            memory.detours.pop_first();
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a shard takes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// It takes them; so many messages are on their way to it.
    Fit(usize),
    /// It has its window full, or refused some.
    Full(usize),
    /// Its stream has just been asked for.
    Opening,
    /// It does not answer.
    Away,
}

/// The shard for a new batch; `None`: it is worth waiting.
pub(super) fn choose(home: usize, shards: &[Fitness]) -> Option<usize> {
    let own = *shards.get(home)?;
    let least = |is_kind: fn(&Fitness) -> bool| {
        (0..shards.len()).filter(|shard| is_kind(&shards[*shard])).min_by_key(|shard| shards[*shard])
    };
    let fit = least(|fitness| matches!(fitness, Fitness::Fit(_)));
    match own {
        Fitness::Fit(_) => Some(home),
        Fitness::Opening => None,
        _ if fit.is_some() => fit,
        _ if shards.contains(&Fitness::Opening) => None,
        _ => least(|fitness| matches!(fitness, Fitness::Full(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::Fitness::{Away, Fit, Full, Opening};
    use super::*;

    /// Promise: no shard that is away or full keeps a batch that another one would take.
    #[test]
    fn new_batch_goes_home_or_where_it_is_taken() {
        assert_eq!(choose(0, &[Fit(900), Fit(0)]), Some(0));
        assert_eq!(choose(0, &[Away, Fit(9), Fit(3)]), Some(2));
        assert_eq!(choose(2, &[Fit(9), Away, Full(1)]), Some(0));
        assert_eq!(choose(0, &[Opening, Fit(0)]), None);
        assert_eq!(choose(0, &[Away, Opening, Full(0)]), None);
        assert_eq!(choose(0, &[Away, Full(7), Full(5)]), Some(2));
        assert_eq!(choose(0, &[Full(7), Full(9), Away]), Some(0));
        assert_eq!(choose(0, &[Away]), None);
        assert_eq!(choose(1, &[Fit(0)]), None);
    }

    /// Promise: what may have been on its way to a shard before stays with it, on whichever stream it comes again.
    #[tokio::test]
    async fn repeated_batch_stays_with_its_shard() {
        let producers = Producers::default();
        let placed = producers.enter("p", true);
        assert_eq!(placed.bound(1, 0), None);
        placed.put(1, 10, 0, 0);
        placed.put(3, 10, 1, 0);
        let again = producers.enter("p", false);
        assert_eq!([1, 2, 3].map(|seq| again.bound(seq, 0)), [Some(0), Some(0), Some(1)]);
        assert_eq!(again.bound(4, 0), None);
    }

    /// A name from elsewhere may have sent anything that fits a window: it goes home, where a repetition is known.
    #[tokio::test]
    async fn producer_of_another_process_goes_home_at_first() {
        let placed = Producers::default().enter("p", false);
        placed.put(7, MAX_DETOURS - 1, 0, 0);
        assert_eq!(placed.bound(8, 1), Some(1));
        placed.put(8, 1, 1, 1);
        assert_eq!(placed.bound(9, 1), None);
    }

    /// The memory of producers that are gone is for others.
    #[tokio::test(start_paused = true)]
    async fn producers_are_forgotten_when_brokers_forget_them() {
        let producers = Producers::default();
        for index in 0..MAX_PRODUCERS {
            producers.enter(&format!("p{index}"), true);
        }
        assert_eq!(producers.enter("one more", true).bound(1, 0), Some(0));
        tokio::time::advance(MEMORY).await;
        assert_eq!(producers.enter("later", true).bound(1, 0), None);
        assert_eq!(producers.0.lock().unwrap().len(), 1);
    }
}
