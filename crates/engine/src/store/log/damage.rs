//! What of the log was found damaged when it was opened: named, so that nothing is lost in silence.

use crate::store::Damage;

/// Something that was confirmed, or may have been, and cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDamage {
    /// What it is.
    pub what: Harm,
    /// The segment of the log in which it begins.
    pub segment: u64,
    /// And where in it.
    pub offset: u32,
}

/// What can be damaged without keeping the store from opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Records of the log, that is batches of commands with the messages they send. What follows them was salvaged.
    Records {
        /// Number of the first.
        first_lsn: u64,
        /// Number of the last.
        last_lsn: u64,
        /// Segment and place of the first record behind them.
        until: (u64, u32),
    },
    /// Messages were sent to a queue that the damaged records made, so that nobody knows which it is.
    Unplaced {
        /// Number of the queue.
        queue: u32,
        /// How many of them.
        messages: u64,
    },
    /// A file of the log is missing, or has lost its end. Messages whose payload lay there are found to be corrupt when they are
    /// to be delivered.
    File {
        /// How many of them.
        messages: u64,
    },
    /// The last record of the log is not whole. As a rule a crash cut it short, before anyone was told that it is stored; only
    /// when there was no crash it is damage.
    Tail {
        /// Number of the record.
        lsn: u64,
    },
}

impl LogDamage {
    /// Whether there is no other explanation.
    pub fn is_certain(&self) -> bool {
        !matches!(self.what, Harm::Tail { .. })
    }

    /// The segments in which something of it lies.
    pub(in crate::store) fn segments(&self) -> std::ops::RangeInclusive<u64> {
        match self.what {
            Harm::Records { until: (segment, offset), .. } if offset > 0 => self.segment..=segment,
            Harm::Records { until: (segment, _), .. } => self.segment..=segment - 1,
            Harm::Unplaced { .. } | Harm::File { .. } | Harm::Tail { .. } => self.segment..=self.segment,
        }
    }
}

impl LogDamage {
    /// In words.
    pub fn told(&self) -> Damage {
        let Self { what, segment, offset } = self;
        let (what, lost) = match what {
            Harm::Records { first_lsn, last_lsn, until } => (
                format!(
                    "the log from record {first_lsn}, at byte {offset} of segment {segment:016x}, to record {last_lsn}, before byte \
                     {} of segment {:016x},",
                    until.1, until.0
                ),
                "the messages and settlements in these records are missing; what follows was salvaged"
                    .to_owned(),
            ),
            Harm::Unplaced { queue, messages } => (
                format!("the log before byte {offset} of segment {segment:016x}"),
                format!(
                    "{messages} messages are missing that were sent there to queue {queue}, which is not known"
                ),
            ),
            Harm::File { messages } => (
                format!("the file of segment {segment:016x}"),
                format!("it is missing or cut short, and the bodies of {messages} messages with it"),
            ),
            Harm::Tail { lsn } => (
                format!("the last record of the log, {lsn}, at byte {offset} of segment {segment:016x},"),
                "unless a crash cut it short before it was confirmed, what is in it is missing".to_owned(),
            ),
        };
        Damage { what, lost }
    }
}
