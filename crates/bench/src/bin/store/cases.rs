//! What is measured, by name.

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Messages of one command.
    pub(crate) batch: u32,
    pub(crate) body_bytes: usize,
    /// Messages that wait all the time.
    pub(crate) waiting: u64,
    pub(crate) keys: Keys,
    /// Batches that are together one record of the log: those that arrived while the one before was written.
    pub(crate) merged: u32,
    /// Records under way at once.
    pub(crate) records: u32,
    /// Takes minutes, or gigabytes: only when it is named.
    pub(crate) is_long: bool,
    /// All that is written is.
    pub(crate) is_sealed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Send, receive and ack, again and again.
    Cycle,
    /// Sends alone, until so many wait; then receive and ack, until none does.
    IngestAndDrain,
    /// How long an engine takes to open after its process was killed.
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    Nothing,
    /// So many ordering keys, in turn.
    Ordering(u64),
    /// So many fairness keys, in turn.
    Fairness(u64),
}

const MILLION: u64 = 1_000_000;
const KIB: usize = 1024;
/// Of bodies of 1 KiB.
const GIB: u64 = 1 << 20;

/// One is written while the other is applied.
const PIPELINED: u32 = 2;

/// Messages of 1 KiB, one batch a record.
const CYCLE: Case = Case {
    name: "",
    kind: Kind::Cycle,
    batch: 100,
    body_bytes: KIB,
    waiting: 0,
    keys: Keys::Nothing,
    merged: 1,
    records: PIPELINED,
    is_long: false,
    is_sealed: false,
};
const INGEST: Case = Case { kind: Kind::IngestAndDrain, ..CYCLE };
const RESTART: Case = Case { kind: Kind::Restart, waiting: MILLION, ..CYCLE };

/// All of them, in the order in which they are run.
pub(crate) const CASES: &[Case] = &[
    Case { name: "1x1KiB", batch: 1, ..CYCLE },
    Case { name: "10x1KiB", batch: 10, ..CYCLE },
    Case { name: "100x1KiB", ..CYCLE },
    Case { name: "100x1KiB-sealed", is_sealed: true, ..CYCLE },
    Case { name: "100x1KiB-one-by-one", records: 1, ..CYCLE },
    Case { name: "1000x1KiB", batch: 1000, ..CYCLE },
    Case { name: "1x100B", batch: 1, body_bytes: 100, ..CYCLE },
    Case { name: "10x100B", batch: 10, body_bytes: 100, ..CYCLE },
    Case { name: "100x100B", body_bytes: 100, ..CYCLE },
    Case { name: "1000x100B", batch: 1000, body_bytes: 100, ..CYCLE },
    Case { name: "8x100x1KiB", merged: 8 / PIPELINED, ..CYCLE },
    Case { name: "64x1x1KiB", batch: 1, merged: 64 / PIPELINED, ..CYCLE },
    Case { name: "1x1KiB-1M", batch: 1, waiting: MILLION, ..CYCLE },
    Case { name: "10x1KiB-1M", batch: 10, waiting: MILLION, ..CYCLE },
    Case { name: "100x1KiB-1M", waiting: MILLION, ..CYCLE },
    Case { name: "1000x1KiB-1M", batch: 1000, waiting: MILLION, ..CYCLE },
    Case { name: "100x1KiB-1M-sealed", waiting: MILLION, is_sealed: true, ..CYCLE },
    Case { name: "100x100B-1M", body_bytes: 100, waiting: MILLION, ..CYCLE },
    Case { name: "8x100x1KiB-1M", merged: 8 / PIPELINED, waiting: MILLION, ..CYCLE },
    Case { name: "100x1KiB-1M-ordering", waiting: MILLION, keys: Keys::Ordering(MILLION), ..CYCLE },
    Case { name: "100x1KiB-1M-fairness", waiting: MILLION, keys: Keys::Fairness(10_000), ..CYCLE },
    Case { name: "1GiB", waiting: GIB, ..INGEST },
    Case { name: "5GiB", waiting: 5 * GIB, is_long: true, ..INGEST },
    Case { name: "restart-1M", ..RESTART },
    Case { name: "100x100B-10M", body_bytes: 100, waiting: 10 * MILLION, is_long: true, ..CYCLE },
    Case { name: "restart-10M", body_bytes: 100, waiting: 10 * MILLION, is_long: true, ..RESTART },
];

impl Case {
    /// Of one record.
    pub(crate) fn messages_per_record(&self) -> u64 {
        u64::from(self.batch) * u64::from(self.merged)
    }

    /// What its clients hold while it goes on.
    pub(crate) fn held_messages(&self) -> u64 {
        self.messages_per_record() * u64::from(self.records)
    }
}
