//! What the disk can do: the bytes of a record written and synced, with nothing else.

use std::fs::File;
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

/// Measures the limit, a while at a time: a disk that others use too is not the same from one second to the next.
#[derive(Debug)]
pub struct Probe {
    record: Vec<u8>,
    append: Target,
    recycled: Target,
}

impl Probe {
    /// With records of that length, in that folder.
    pub fn new(folder: &Path, record_bytes: usize) -> anyhow::Result<Self> {
        let append = Target::new(folder, MAX_APPENDED_BYTES).context("make a file to append to")?;
        let recycled = Target::new(folder, RECYCLED_BYTES).context("make a file to overwrite")?;
        recycled.fill().context("write what is overwritten later")?;
        Ok(Self { record: noise(record_bytes), append, recycled })
    }

    /// Measures on, for that time of each kind.
    pub fn measure(&mut self, each: Duration) -> anyhow::Result<()> {
        self.recycled.write(&self.record, each, |_| Ok(()))?;
        self.append.write(&self.record, each, |file| file.set_len(0))
    }

    /// By all that was measured.
    pub fn limit(&self) -> Limit {
        let rate = |target: &Target| rate(target.count, target.took);
        Limit { append: rate(&self.append), recycled: rate(&self.recycled) }
    }
}

/// A file without a name, that goes with its handle.
#[derive(Debug)]
struct Target {
    file: File,
    max_bytes: u64,
    offset: u64,
    count: u64,
    took: Duration,
}

impl Target {
    fn new(folder: &Path, max_bytes: u64) -> std::io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile_in(folder)?,
            max_bytes,
            offset: 0,
            count: 0,
            took: Duration::ZERO,
        })
    }

    fn fill(&self) -> std::io::Result<()> {
        let step = noise(STEP_BYTES);
        for offset in (0..self.max_bytes).step_by(STEP_BYTES) {
            self.file.write_all_at(&step, offset)?;
        }
        self.file.sync_all()
    }

    /// Begins at the start again where the end is reached, after what has to be done then.
    fn write(
        &mut self,
        record: &[u8],
        time: Duration,
        at_end: impl Fn(&File) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let since = Stopwatch::start();
        while since.elapsed() < time {
            if self.offset + record.len() as u64 > self.max_bytes {
                at_end(&self.file)?;
                self.offset = 0;
            }
            self.file.write_all_at(record, self.offset)?;
            self.file.sync_data()?;
            self.offset += record.len() as u64;
            self.count += 1;
        }
        self.took += since.elapsed();
        Ok(())
    }
}
