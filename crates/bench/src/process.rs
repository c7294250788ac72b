//! What the system says of a process.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

/// Of the times in `/proc`, on every platform that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// As the store calls its threads that write.
const STORE_THREADS: [&str; 2] = ["log", "checkpoint"];

/// A process, as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Observed(PathBuf);

impl Observed {
    /// This one.
    pub fn own() -> Self {
        Self("/proc/self".into())
    }

    /// The one with that number.
    pub fn with_id(id: u32) -> Self {
        Self(format!("/proc/{id}").into())
    }

    /// Resident memory in MiB.
    pub fn rss_mib(&self) -> anyhow::Result<f64> {
        Ok(self.number("status", "VmRSS:")? / 1024.0)
    }

    /// What of that is its own, not pages of its program that all processes of it share, in MiB.
    pub fn own_mib(&self) -> anyhow::Result<f64> {
        Ok(self.number("status", "RssAnon:")? / 1024.0)
    }

    /// The most resident memory it ever had, in MiB.
    pub fn peak_mib(&self) -> anyhow::Result<f64> {
        Ok(self.number("status", "VmHWM:")? / 1024.0)
    }

    /// Bytes that the store's threads wrote to its files. Not `write_bytes`, which counts a page of the cache as a whole each
    /// time that any of it becomes dirty; with pages of 64 KiB and more that is several times what the disk gets.
    pub fn disk_bytes(&self) -> anyhow::Result<f64> {
        let tasks = self.0.join("task");
        let mut bytes = 0.0;
        for task in std::fs::read_dir(&tasks).with_context(|| format!("read {}", tasks.display()))? {
            let task = Self(task?.path());
            let name = std::fs::read_to_string(task.0.join("comm")).unwrap_or_default();
            if STORE_THREADS.contains(&name.trim_end()) {
                bytes += task.number("io", "wchar:")?;
            }
        }
        Ok(bytes)
    }

    /// Bytes that it passed to the system to write, wherever to.
    pub fn written_bytes(&self) -> anyhow::Result<f64> {
        self.number("io", "wchar:")
    }

    /// Seconds that it kept a CPU busy, in all of its threads.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = self.0.join("stat");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // The name of the program, in brackets, may have spaces. From its end on: state, then ten more, then the times.
        let behind = text.rsplit_once(')').map(|(_, behind)| behind).unwrap_or_default();
        let times = behind.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        let ticks: f64 = times.sum::<Result<f64, _>>().with_context(|| format!("read {}", path.display()))?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// The number behind a word at the start of a line.
    fn number(&self, file: &str, word: &str) -> anyhow::Result<f64> {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value = text.lines().find_map(|line| line.strip_prefix(word)?.split_whitespace().next());
        let value = value.ok_or_else(|| anyhow!("{} says nothing of {word}", path.display()))?;
        value.parse().with_context(|| format!("read {word} in {}", path.display()))
    }
}

/// Processes that wanted a CPU in the last minute, on average, as the system writes it.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
