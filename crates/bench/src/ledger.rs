//! Which messages were sent, and which came back: each once.

use anyhow::{bail, ensure};

const BITS: u64 = 64;

/// Messages are numbered from 0.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    sent: u64,
    received: u64,
    /// A bit per message that came back.
    seen: Vec<u64>,
}

impl Ledger {
    /// The numbers of that many more.
    pub fn send(&mut self, count: u64) -> std::ops::Range<u64> {
        let start = self.sent;
        self.sent += count;
        start..self.sent
    }

    /// It came back.
    pub fn receive(&mut self, number: u64) -> anyhow::Result<()> {
        ensure!(number < self.sent, "message {number} came back and was never sent");
        let (index, bit) = (usize::try_from(number / BITS)?, 1 << (number % BITS));
        if self.seen.len() <= index {
            self.seen.resize(index + 1, 0);
        }
        if self.seen[index] & bit != 0 {
            bail!("message {number} came back twice");
        }
        self.seen[index] |= bit;
        self.received += 1;
        Ok(())
    }

    /// So many were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// So many came back.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// From the first that came back to behind the last.
    pub fn span(&self) -> std::ops::Range<u64> {
        let words = || self.seen.iter().zip((0..).step_by(64)).filter(|(word, _)| **word != 0);
        let first =
            words().next().map_or(0, |(word, start): (_, u64)| start + u64::from(word.trailing_zeros()));
        let end = words().last().map_or(0, |(word, start)| start + BITS - u64::from(word.leading_zeros()));
        first..end
    }

    /// All that were sent came back.
    pub fn check_complete(&self) -> anyhow::Result<()> {
        ensure!(self.sent == self.received, "{} of {} messages came back", self.received, self.sent);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: a message that comes twice, was never sent, or stays away is noticed.
    #[test]
    fn ledger_wrong_counts_are_refused() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.send(130), 0..130);
        assert!(ledger.receive(130).is_err());
        ledger.receive(129).unwrap();
        assert!(ledger.receive(129).is_err());
        assert_eq!(ledger.span(), 129..130);
        (0..128).for_each(|number| ledger.receive(number).unwrap());
        assert!(ledger.check_complete().is_err());
        ledger.receive(128).unwrap();
        ledger.check_complete().unwrap();
        assert_eq!(ledger.span(), 0..130);
    }
}
