//! A part of a task: as much as takes about a second. The first call only begins it.

use std::time::Duration;

use ackwell_engine::task::{Progress, Task, TaskState};
use ackwell_engine::{Command, Reply};
use ackwell_proto::Failure;

use super::{Service, audit};
use crate::broker::refusal::failure;
use crate::broker::served::Allowed;
use crate::clock;

/// An operator hears how far a task is about so often.
const PART: Duration = Duration::from_secs(1);

impl Service {
    /// Stretch by stretch, so that others are served in between. Each call that changed something leaves a line in the log, also if
    /// it failed in the middle: a task may be deleted at any time, and what it did is done.
    pub(super) async fn work_on(&self, by: &Allowed, task: Task) -> Result<Progress, Failure> {
        let (queue, id) = (task.queue, task.id.clone());
        let before = self.shard.look(move |view| view.engine.progress(queue, &id)).await?;
        let mut last = None;
        let result = self.go_on(&task, &mut last).await;
        if let Some(progress) = last.filter(|last| before.as_ref() != Some(last)) {
            audit::worked(by, &task.id.uid, before.map_or(0, |before| before.processed), &progress);
        }
        result
    }

    async fn go_on(&self, task: &Task, last: &mut Option<Progress>) -> Result<Progress, Failure> {
        let started = clock::stopwatch();
        loop {
            let progress = match self.shard.apply(Command::Task(task.clone())).await? {
                Reply::Task(progress) => *last.insert(progress),
                Reply::Refused(refused) => return Err(failure(&refused)),
                other => unreachable!("a task is answered by how far it is, not {other:?}"),
            };
            if !task.has_begun || progress.state != TaskState::Running || started.elapsed() >= PART {
                return Ok(progress);
            }
        }
    }
}
