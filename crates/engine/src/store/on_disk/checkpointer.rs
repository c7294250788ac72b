//! Writes checkpoints, beside the engine's thread or in it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use crate::store::record::Position;
use crate::store::tables::Tables;
use crate::store::{Changes, Checkpoints, StoreError};

pub(super) struct Checkpointer {
    how: How,
    is_idle: bool,
}

enum How {
    InPlace(Arc<Tables>),
    Beside(Beside),
}

struct Beside {
    /// `None` while the thread is being ended.
    jobs: Option<SyncSender<(Changes, Position)>>,
    done: Receiver<Result<(), StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn new(checkpoints: Checkpoints, tables: Arc<Tables>) -> Result<Self, StoreError> {
        let how = match checkpoints {
            Checkpoints::InPlace => How::InPlace(tables),
            Checkpoints::Beside => How::Beside(Beside::spawn(tables)?),
        };
        Ok(Self { how, is_idle: true })
    }

    /// Begins the next one; the one before is over.
    pub(super) fn begin(&mut self, changes: Changes, applied: Position) -> Result<(), StoreError> {
        match &self.how {
            How::InPlace(tables) => tables.write(&changes, applied),
            How::Beside(beside) => {
                self.is_idle = false;
                let jobs = beside.jobs.as_ref().ok_or(StoreError::CheckpointThread)?;
                jobs.send((changes, applied)).map_err(|_| StoreError::CheckpointThread)
            }
        }
    }

    /// Whether nothing is being written.
    pub(super) fn poll(&mut self) -> Result<bool, StoreError> {
        if let (How::Beside(beside), false) = (&self.how, self.is_idle) {
            match beside.done.try_recv() {
                Ok(done) => done?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(StoreError::CheckpointThread),
            }
            self.is_idle = true;
        }
        Ok(true)
    }

    /// The same, once it is so.
    pub(super) fn wait(&mut self) -> Result<bool, StoreError> {
        if let (How::Beside(beside), false) = (&self.how, self.is_idle) {
            beside.done.recv().map_err(|_| StoreError::CheckpointThread)??;
            self.is_idle = true;
        }
        Ok(true)
    }
}

impl Beside {
    fn spawn(tables: Arc<Tables>) -> Result<Self, StoreError> {
        let (jobs, todo) = sync_channel::<(Changes, Position)>(1);
        let (tell, done) = sync_channel(1);
        let write_all = move || {
            for (changes, applied) in todo {
                if tell.send(tables.write(&changes, applied)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(write_all);
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread.map_err(StoreError::Files)?) })
    }
}

impl Drop for Beside {
    /// Whoever opens the store next must find nobody writing.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panicked: what it was writing is not durable, which opening finds out.
            _ = thread.join();
        }
    }
}
