//! Work that takes a disk's time: done beside the engine, or in its place.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::{StoreError, Threads};

type Work<J> = Box<dyn FnMut(J) -> Result<(), StoreError> + Send>;

/// Does one job after the other.
pub(super) struct Worker<J> {
    how: How<J>,
    is_busy: bool,
    /// After an error nothing more is begun.
    has_failed: bool,
}

enum How<J> {
    InPlace(Work<J>),
    Beside(Beside<J>),
}

struct Beside<J> {
    /// `None` while the thread is being ended.
    jobs: Option<SyncSender<J>>,
    done: Receiver<Result<(), StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl<J: Send + 'static> Worker<J> {
    pub(super) fn new(
        threads: Threads,
        name: &'static str,
        work: impl FnMut(J) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let how = match threads {
            Threads::One => How::InPlace(Box::new(work)),
            Threads::Several => How::Beside(Beside::spawn(name, Box::new(work))?),
        };
        Ok(Self { how, is_busy: false, has_failed: false })
    }

    /// Begins the next job; the one before is over.
    pub(super) fn begin(&mut self, job: J) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        match &mut self.how {
            How::InPlace(work) => {
                let done = work(job);
                self.note(done)
            }
            How::Beside(beside) => {
                debug_assert!(!self.is_busy, "the caller has waited");
                self.is_busy = true;
                let jobs = beside.jobs.as_ref().ok_or(StoreError::Failed)?;
                jobs.send(job).map_err(|_| StoreError::Failed)
            }
        }
    }

    /// Whether no job is being done.
    pub(super) fn poll(&mut self) -> Result<bool, StoreError> {
        let done = match &self.how {
            How::Beside(beside) if self.is_busy => beside.done.try_recv(),
            _ => return self.note(Ok(())).map(|()| true),
        };
        match done {
            Ok(done) => self.note(done).map(|()| true),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => Err(StoreError::Failed),
        }
    }

    /// Returns when no job is being done.
    pub(super) fn wait(&mut self) -> Result<(), StoreError> {
        let done = match &self.how {
            How::Beside(beside) if self.is_busy => beside.done.recv().unwrap_or(Err(StoreError::Failed)),
            _ => Ok(()),
        };
        self.note(done)
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        self.is_busy = false;
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        self.has_failed = done.is_err();
        done
    }
}

impl<J: Send + 'static> Beside<J> {
    fn spawn(name: &str, mut work: Work<J>) -> Result<Self, StoreError> {
        let (jobs, todo) = sync_channel::<J>(1);
        let (tell, done) = sync_channel(1);
        let work_off = move || {
            for job in todo {
                if tell.send(work(job)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work_off);
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread.map_err(StoreError::Files)?) })
    }
}

impl<J> Drop for Beside<J> {
    /// Whoever opens the store next must find nobody writing.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panicked: what it was writing may not be durable, which opening finds out.
            _ = thread.join();
        }
    }
}
