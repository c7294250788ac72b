//! What the commands about the folder of a stopped broker share.

use std::path::{Path, PathBuf};

use ackwell_engine::Timestamp;
use ackwell_engine::store::offline::{Offline, OfflineError};
use ackwell_engine::store::seal::Keys;
use anyhow::Context;
use clap::Args;

use crate::Outcome;

/// The folder of a stopped broker.
#[derive(Args)]
pub(crate) struct Folder {
    /// Folder of a stopped broker: --data of `ackwell dev`, the volume of a shard.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Keys of a folder that is sealed (spec.encryption): a folder with a file for each, named by its id, as the Secret has
    /// them; or the file of the only one that is needed.
    #[arg(long, value_name = "PATH")]
    keys: Option<PathBuf>,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn open(&self) -> anyhow::Result<Offline> {
        let read = |path: &PathBuf| if path.is_dir() { Keys::read(path) } else { Keys::read_file(path) };
        let keys = self.keys.as_ref().map(read).transpose().context("read the keys of the store")?;
        Ok(Offline::open(&self.dir, keys)?)
    }
}

/// What could not be read at all is told apart from what is damaged.
pub(crate) fn unreadable(error: anyhow::Error) -> anyhow::Result<Outcome> {
    match error.downcast_ref::<OfflineError>() {
        Some(OfflineError::Told(_)) | None => Err(error),
        Some(_) => {
            crate::output::note(format_args!("error: {error:#}"));
            Ok(Outcome::Unreadable)
        }
    }
}

/// `2026-11-25T02:00:00.123Z`; the number where it is no time that a calendar has.
pub(crate) fn time(at: Timestamp) -> String {
    let calendar = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    calendar.map_or_else(|| at.0.to_string(), |time| format!("{time:.3}"))
}

/// The word for a state, as everywhere in Ackwell.
pub(crate) fn state(state: ackwell_engine::State) -> &'static str {
    use ackwell_engine::State::{Dead, Delayed, InFlight, Ready};
    match state {
        Ready => "Ready",
        Delayed => "Delayed",
        InFlight => "InFlight",
        Dead => "Dead",
    }
}
