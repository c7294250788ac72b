//! A part of a task: as much as takes about a second.

use std::time::Duration;

use ackwell_engine::task::{Progress, Task, TaskState};
use ackwell_engine::{Command, Reply};
use ackwell_proto::Failure;

use super::Service;
use crate::broker::refusal::failure;
use crate::clock;

/// An operator hears how far a task is about so often.
const PART: Duration = Duration::from_secs(1);

impl Service {
    /// Stretch by stretch, so that others are served in between.
    pub(super) async fn work_on(&self, task: Task) -> Result<Progress, Failure> {
        let started = clock::stopwatch();
        loop {
            let progress = match self.shard.apply(Command::Task(task.clone())).await? {
                Reply::Task(progress) => progress,
                Reply::Refused(refused) => return Err(failure(&refused)),
                other => unreachable!("a task is answered by how far it is, not {other:?}"),
            };
            if progress.state != TaskState::Running || started.elapsed() >= PART {
                return Ok(progress);
            }
        }
    }
}
