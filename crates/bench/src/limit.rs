//! What the disk can do: the bytes of a record written and synced, with nothing else.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::body::noise;
use crate::clock::Stopwatch;
use crate::figures::rate;
use anyhow::Context;

/// Longer than any cache of a controller holds for long, short enough to be written in a second.
const RECYCLED_BYTES: u64 = 256 << 20;
/// What a file may grow to.
const MAX_APPENDED_BYTES: u64 = 2 << 30;
const STEP_BYTES: usize = 1 << 20;

/// Records a second.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// At the end of a file that grows.
    pub append: f64,
    /// Over what was written before.
    pub recycled: f64,
}

impl Limit {
    /// Of records of that length, in that folder.
    pub fn measure(folder: &Path, record_bytes: usize, each: Duration) -> anyhow::Result<Self> {
        let record = noise(record_bytes);
        let path = folder.join("limit");
        let create = || OpenOptions::new().write(true).create_new(true).open(&path);
        let recycled = {
            let file = create().context("create a file for the limit of recycled segments")?;
            fill(&file)?;
            write(&file, &record, each, Reach::Around(RECYCLED_BYTES))
        };
        std::fs::remove_file(&path)?;
        let append = write(&create()?, &record, each, Reach::UpTo(MAX_APPENDED_BYTES));
        std::fs::remove_file(&path)?;
        Ok(Self { append: append?, recycled: recycled? })
    }

    /// Of a disk that was measured twice.
    #[must_use]
    pub fn between(self, other: Self) -> Self {
        Self {
            append: f64::midpoint(self.append, other.append),
            recycled: f64::midpoint(self.recycled, other.recycled),
        }
    }
}

/// Where to write once the end is reached.
#[derive(Clone, Copy)]
enum Reach {
    /// Begin anew.
    Around(u64),
    /// Stop.
    UpTo(u64),
}

fn fill(file: &File) -> anyhow::Result<()> {
    let step = noise(STEP_BYTES);
    for offset in (0..RECYCLED_BYTES).step_by(STEP_BYTES) {
        file.write_all_at(&step, offset)?;
    }
    file.sync_all().context("write what is overwritten later")
}

fn write(file: &File, record: &[u8], time: Duration, reach: Reach) -> anyhow::Result<f64> {
    let (mut offset, mut count) = (0, 0);
    let since = Stopwatch::start();
    while since.elapsed() < time {
        match reach {
            Reach::Around(end) if offset + record.len() as u64 > end => offset = 0,
            Reach::UpTo(end) if offset + record.len() as u64 > end => break,
            _ => {}
        }
        file.write_all_at(record, offset)?;
        file.sync_data()?;
        offset += record.len() as u64;
        count += 1;
    }
    Ok(rate(count, since.elapsed()))
}
