//! Work that takes a disk's time: done beside the engine, or in its place.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use super::{StoreError, Threads};

type Work<J> = Box<dyn FnMut(J) -> Result<(), StoreError> + Send>;

/// Jobs that wait while one is being done, so that the next one begins the moment that one is over.
const MAX_QUEUED: usize = 8;

/// Who is served first where processors are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Callers wait for it.
    High,
    /// Nobody waits for it, unless it falls far behind.
    Low,
}

/// Of a thread with low urgency: beside one with none it gets about a tenth of a processor that both want.
const LOW_NICE: i32 = 10;

/// Does one job after the other.
pub(super) struct Worker<J> {
    how: How<J>,
    begun: u64,
    done: u64,
    /// After an error nothing more is done.
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
        urgency: Urgency,
        work: impl FnMut(J) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let how = match threads {
            Threads::One => How::InPlace(Box::new(work)),
            Threads::Several => How::Beside(Beside::spawn(name, urgency, Box::new(work))?),
        };
        Ok(Self { how, begun: 0, done: 0, has_failed: false })
    }

    /// Has the job done once all before it are; not at all if one of these fails.
    pub(super) fn begin(&mut self, job: J) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        if self.begun - self.done > MAX_QUEUED as u64 {
            self.wait_for(self.done + 1)?;
        }
        self.begun += 1;
        match &mut self.how {
            How::InPlace(work) => {
                let done = work(job);
                self.note(done)
            }
            How::Beside(beside) => {
                let jobs = beside.jobs.as_ref().ok_or(StoreError::Failed)?;
                jobs.send(job).map_err(|_| StoreError::Failed)
            }
        }
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether no job is left to do.
    pub(super) fn poll(&mut self) -> Result<bool, StoreError> {
        while let (How::Beside(beside), true) = (&self.how, self.done < self.begun) {
            match beside.done.try_recv() {
                Ok(done) => self.note(done)?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(StoreError::Failed),
            }
        }
        self.check().map(|()| true)
    }

    /// Returns when so many jobs are done of all that were begun.
    pub(super) fn wait_for(&mut self, jobs: u64) -> Result<(), StoreError> {
        while let (How::Beside(beside), true) = (&self.how, self.done < jobs.min(self.begun)) {
            let done = beside.done.recv().unwrap_or(Err(StoreError::Failed));
            self.note(done)?;
        }
        self.check()
    }

    /// Returns when no job is left to do.
    pub(super) fn wait(&mut self) -> Result<(), StoreError> {
        self.wait_for(self.begun)
    }

    fn note(&mut self, done: Result<(), StoreError>) -> Result<(), StoreError> {
        self.done += 1;
        self.check()?;
        self.has_failed = done.is_err();
        done
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.has_failed { Err(StoreError::Failed) } else { Ok(()) }
    }
}

impl<J: Send + 'static> Beside<J> {
    fn spawn(name: &str, urgency: Urgency, mut work: Work<J>) -> Result<Self, StoreError> {
        let (jobs, todo) = sync_channel::<J>(MAX_QUEUED);
        let (tell, done) = sync_channel(MAX_QUEUED + 1);
        let work_off = move || {
            urgency.take_effect();
            for job in todo {
                let done = work(job);
                let is_last = done.is_err();
                if tell.send(done).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work_off);
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread.map_err(StoreError::Files)?) })
    }
}

impl Urgency {
    /// On this thread. Where the system refuses it, all is as urgent.
    fn take_effect(self) {
        if self == Self::Low {
            _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), LOW_NICE);
        }
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
