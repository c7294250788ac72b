//! Checks the history of a seed, and cuts down one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::history::{Ask, Step, history};
use crate::play::{Twin, play};
use crate::violation::Violation;

/// One history of so many takes its second run through files, which is slower.
const DISK_ONCE_IN: u64 = 64;

/// A history that ends in a violation.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What it comes from.
    pub seed: u64,
    /// How many steps it had before they were cut down.
    pub steps: usize,
    /// What is left of it, one step a line.
    pub script: String,
    /// Where that ends.
    pub violation: Violation,
}

/// Plays the history of the seed; says how many batches and restarts it was.
pub fn check(seed: u64) -> Result<u64, Box<Failed>> {
    let steps = history(seed);
    let twin = if seed.is_multiple_of(DISK_ONCE_IN) { Twin::Disk } else { Twin::Volatile };
    try_out(&steps, twin).map_err(|first| {
        let length = steps.len();
        let (left, violation) = cut_down(steps, first, twin);
        let lines: Vec<String> = left.iter().map(|step| format!("{step:?}")).collect();
        Box::new(Failed { seed, steps: length, script: lines.join("\n"), violation })
    })
}

/// A panic of the engine is a violation like any other.
fn try_out(steps: &[Step], twin: Twin) -> Result<u64, Violation> {
    let played = catch_unwind(AssertUnwindSafe(|| play(steps, twin)));
    played.unwrap_or_else(|panic| Err(Violation::of(&*panic)))
}

/// Leaves out what is not needed to fail: long stretches first, then single steps, then single asks.
fn cut_down(mut steps: Vec<Step>, mut violation: Violation, twin: Twin) -> (Vec<Step>, Violation) {
    loop {
        let before = size(&steps);
        for length in [16, 4, 1] {
            let mut at = 0;
            while at < steps.len() {
                let end = (at + length).min(steps.len());
                let shorter = [&steps[..at], &steps[end..]].concat();
                match try_out(&shorter, twin) {
                    Err(found) => (steps, violation) = (shorter, found),
                    Ok(_) => at += length,
                }
            }
        }
        cut_asks(&mut steps, &mut violation, twin);
        if size(&steps) == before {
            return (steps, violation);
        }
    }
}

fn cut_asks(steps: &mut Vec<Step>, violation: &mut Violation, twin: Twin) {
    for at in 0..steps.len() {
        for shorter in simpler(&steps[at]) {
            let mut changed = steps.clone();
            changed[at] = shorter;
            if size(&changed) < size(steps)
                && let Err(found) = try_out(&changed, twin)
            {
                (*steps, *violation) = (changed, found);
            }
        }
    }
}

/// The step with one ask, or one item of an ask, less.
fn simpler(step: &Step) -> Vec<Step> {
    let Step::Batch { after_ms, back_ms, asks, fate } = step else { return Vec::new() };
    let with = |asks| Step::Batch { after_ms: *after_ms, back_ms: *back_ms, asks, fate: *fate };
    let fewer = (0..asks.len()).map(|index| [&asks[..index], &asks[index + 1..]].concat());
    let smaller = (0..asks.len()).filter_map(|index| {
        let ask = smaller_ask(&asks[index])?;
        let mut asks = asks.clone();
        asks[index] = ask;
        Some(asks)
    });
    fewer.chain(smaller).map(with).collect()
}

fn smaller_ask(ask: &Ask) -> Option<Ask> {
    let mut ask = ask.clone();
    match &mut ask {
        Ask::Send { items, .. } => _ = items.pop(),
        Ask::Settle { ends, .. } => _ = ends.pop(),
        Ask::HandOver { picks, .. } | Ask::Extend { picks, .. } | Ask::Cancel { picks, .. } => {
            _ = picks.pop();
        }
        Ask::Commit { settle, send, .. } => _ = settle.pop().map(|_| ()).or_else(|| send.pop().map(|_| ())),
        Ask::Configure { .. }
        | Ask::Pause { .. }
        | Ask::Delete { .. }
        | Ask::Receive { .. }
        | Ask::Redrive(_)
        | Ask::Purge(_)
        | Ask::Task(_) => return None,
    }
    Some(ask)
}

/// Steps, asks and items.
fn size(steps: &[Step]) -> usize {
    let asks =
        steps.iter().filter_map(|step| if let Step::Batch { asks, .. } = step { Some(asks) } else { None });
    steps.len() + asks.flatten().map(weight).sum::<usize>()
}

fn weight(ask: &Ask) -> usize {
    let items = match ask {
        Ask::Send { items, .. } => items.len(),
        Ask::Settle { ends, .. } => ends.len(),
        Ask::HandOver { picks, .. } | Ask::Extend { picks, .. } | Ask::Cancel { picks, .. } => picks.len(),
        Ask::Commit { settle, send, .. } => settle.len() + send.len(),
        _ => 0,
    };
    1 + items
}
