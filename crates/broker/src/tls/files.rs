//! Values made from files, and made again when the files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Certificates change every few weeks, and Kubernetes takes a minute to bring them: looking this often adds little.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A value as its files last said it, as far as they could be understood.
#[derive(Debug)]
pub(crate) struct Followed<T> {
    current: watch::Receiver<Arc<T>>,
    _task: AbortOnDropHandle<()>,
}

impl<T> Followed<T> {
    pub(super) fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow())
    }
}

/// Reads `files` now, which must succeed, and from then on whenever they changed. A change that cannot be understood is
/// told and not taken: files of one kind may be replaced one after the other.
pub(super) fn follow<T, const N: usize>(
    what: &'static str,
    files: [PathBuf; N],
    parse: fn(&[Vec<u8>; N]) -> anyhow::Result<T>,
) -> anyhow::Result<Followed<T>>
where
    T: Send + Sync + 'static,
{
    let mut seen = read(&files)?;
    let first = parse(&seen).with_context(|| format!("use {}", list(&files)))?;
    let (sender, current) = watch::channel(Arc::new(first));
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Ok(now) = read(&files) else { continue };
            if now == seen {
                continue;
            }
            match parse(&now) {
                Ok(value) => {
                    tracing::info!(files = list(&files), "{what} replaced");
                    sender.send_replace(Arc::new(value));
                }
                Err(error) => tracing::warn!(files = list(&files), "{what} not replaced: {error:#}"),
            }
            seen = now;
        }
    });
    Ok(Followed { current, _task: AbortOnDropHandle::new(task) })
}

fn read<const N: usize>(files: &[PathBuf; N]) -> anyhow::Result<[Vec<u8>; N]> {
    let mut contents = [const { Vec::new() }; N];
    for (file, content) in files.iter().zip(&mut contents) {
        *content = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    }
    Ok(contents)
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(contents: &[Vec<u8>; 1]) -> anyhow::Result<u32> {
        Ok(std::str::from_utf8(&contents[0])?.trim().parse()?)
    }

    async fn becomes(followed: &Followed<u32>, value: u32) {
        let mut current = followed.current.clone();
        current.wait_for(|now| **now == value).await.unwrap();
    }

    /// What is half written, or gone, leaves the last value in use, and what comes after it is taken.
    #[tokio::test(start_paused = true)]
    async fn damaged_and_missing_files_leave_the_last_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        assert!(follow("number", [file.clone()], number).is_err(), "missing at the start");
        std::fs::write(&file, "x").unwrap();
        assert!(follow("number", [file.clone()], number).is_err(), "damaged at the start");
        std::fs::write(&file, "1").unwrap();
        let followed = follow("number", [file.clone()], number).unwrap();
        for damage in [Some("2x"), None] {
            match damage {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            tokio::time::sleep(LOOK_EVERY * 2).await;
            assert_eq!(*followed.current(), 1);
        }
        std::fs::write(&file, "3").unwrap();
        becomes(&followed, 3).await;
    }
}
