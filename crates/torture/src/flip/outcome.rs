//! What may come of a flipped bit.

use std::fmt;

use anyhow::Context;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Harmless,
    Corrupt,
    Reported,
    Torn,
    Refused,
    RefusedLater,
    Changed,
    Returned,
    Lost,
    WrongBody,
    Panicked,
    Aborted,
}

impl Outcome {
    pub(super) const ALL: [Self; 12] = [
        Self::Harmless,
        Self::Corrupt,
        Self::Reported,
        Self::Torn,
        Self::Refused,
        Self::RefusedLater,
        Self::Changed,
        Self::Returned,
        Self::Lost,
        Self::WrongBody,
        Self::Panicked,
        Self::Aborted,
    ];

    /// Whether nobody was deceived, and nothing ended that should go on.
    pub(super) fn is_allowed(self) -> bool {
        self <= Self::RefusedLater
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Corrupt => "corrupt",
            Self::Reported => "reported",
            Self::Torn => "torn",
            Self::Refused => "refused",
            Self::RefusedLater => "refused-later",
            Self::Changed => "changed",
            Self::Returned => "returned",
            Self::Lost => "lost",
            Self::WrongBody => "wrong-body",
            Self::Panicked => "panicked",
            Self::Aborted => "aborted",
        }
    }

    pub(super) fn parse(word: &str) -> anyhow::Result<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.word() == word)
            .with_context(|| format!("no outcome {word}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Harmless => "everything is there, whole",
            Self::Corrupt => "messages are named corrupt, all others are there, whole",
            Self::Reported => "something is missing, and is named",
            Self::Torn => "the last record of a killed process is taken for one that nobody was answered",
            Self::Refused => "opening is refused, naming what is damaged",
            Self::RefusedLater => "a later operation is refused, naming what is damaged",
            Self::Changed => "SILENT: something else about a message changed",
            Self::Returned => "SILENT: a message is back that was gone",
            Self::Lost => "SILENT: a message is lost",
            Self::WrongBody => "SILENT: a message has another body",
            Self::Panicked => "PANIC",
            Self::Aborted => "the process ENDED",
        })
    }
}
