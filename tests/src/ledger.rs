//! What an application was told and did, written down before it went on: what is left of one that was killed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

/// Something that an application was told, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message is stored.
    Stored {
        /// Its number, which the application chose.
        number: u64,
        /// What it is called by now.
        id: String,
    },
    /// A message was delivered.
    Got {
        /// Of the delivery.
        receipt: String,
        /// Of the message, by its body.
        number: u64,
        /// Of the message.
        id: String,
        /// As the delivery counts them.
        attempts: u32,
        /// As the delivery counts them.
        deliveries: u32,
    },
    /// The delivery is settled for the first time.
    Settling {
        /// Of the delivery.
        receipt: String,
        /// `ack`, `nack` or `release`.
        outcome: String,
    },
    /// That was answered.
    Settled {
        /// Of the delivery.
        receipt: String,
        /// `OK` or a reason.
        answer: String,
    },
    /// Something happened that must not.
    Broken {
        /// In words.
        what: String,
    },
}

/// A file with an event a line, each with its time in microseconds since 1970.
pub struct Ledger(File);

impl Ledger {
    /// One that is written on.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    /// Writes down what happens now.
    #[expect(clippy::disallowed_methods, reason = "processes compare the times of what they saw")]
    pub fn note(&self, event: &Event) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        // In one piece: of a process that is killed nothing is left, or the line.
        (&self.0).write_all(format!("{at} {}\n", event.line()).as_bytes()).expect("a ledger can be written");
    }

    /// All events of a ledger, with their times.
    pub fn read(path: &Path) -> anyhow::Result<Vec<(u64, Event)>> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| parse(line).with_context(|| line.to_owned())).collect()
    }
}

impl Event {
    fn line(&self) -> String {
        match self {
            Self::Stored { number, id } => format!("stored {number} {id}"),
            Self::Got { receipt, number, id, attempts, deliveries } => {
                format!("got {receipt} {number} {id} {attempts} {deliveries}")
            }
            Self::Settling { receipt, outcome } => format!("settling {receipt} {outcome}"),
            Self::Settled { receipt, answer } => format!("settled {receipt} {answer}"),
            Self::Broken { what } => format!("broken {}", what.replace('\n', " ")),
        }
    }
}

fn parse(line: &str) -> anyhow::Result<(u64, Event)> {
    let (at, rest) = line.split_once(' ').context("a line begins with its time")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let text = |index: usize| words[index].to_owned();
    let event = match words[..] {
        ["stored", number, _] => Event::Stored { number: number.parse()?, id: text(2) },
        ["got", _, number, _, attempts, deliveries] => Event::Got {
            receipt: text(1),
            number: number.parse()?,
            id: text(3),
            attempts: attempts.parse()?,
            deliveries: deliveries.parse()?,
        },
        ["settling", _, _] => Event::Settling { receipt: text(1), outcome: text(2) },
        ["settled", _, _] => Event::Settled { receipt: text(1), answer: text(2) },
        ["broken", ..] => Event::Broken { what: words[1..].join(" ") },
        _ => bail!("no event"),
    };
    Ok((at.parse()?, event))
}
