//! Does `QueueTasks`. A visit decides by what is known (`plan`, pure), has the shards do a part, and writes down how far that
//! is (`status`, pure). What was done the shards keep, so that a visit is safe to repeat, and to forget.

mod backup;
mod plan;
mod status;
mod writes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackwell_api::names::PAUSED_ANNOTATION;
use ackwell_api::{Queue, QueueTask, QueueTaskStatus, TaskState};
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use self::plan::{Ask, Scene, Step, age, is_before, is_of_same_queue, is_open};
use self::status::Answer;
use super::apply::{ApplyError, request};
use super::dereference::{Observed, dereference};
use super::{Context, DEBOUNCE, GuardedQueue, QueueRef, guarded};
use crate::clock;

/// A `QueueTask` as it is watched: one that cannot be read must not stop the others.
type GuardedTask = DeserializeGuard<QueueTask>;

/// Visits at the same time: each waits for brokers most of its time.
const CONCURRENCY: u16 = 8;
/// Until the next visit to a task that goes on: the write of this one is heard of by then.
const SOON: Duration = Duration::from_millis(200);
/// Until the next visit to a task that has done as much as it may in a second, or whose broker did not answer.
const LATER: Duration = Duration::from_secs(1);
/// Until the next visit to a task whose Queue stands still.
const MUCH_LATER: Duration = Duration::from_secs(10);
/// Until the next visit to a task that others come before, which wake it.
const IN_TURN: Duration = Duration::from_secs(30);
/// Tasks that were woken and are not visited yet; of more some wait for [`IN_TURN`].
const WOKEN: usize = 64;

struct Tasks {
    context: Arc<Context>,
    queues: Store<GuardedQueue>,
    all: Store<GuardedTask>,
    wake: mpsc::Sender<ObjectRef<GuardedTask>>,
    /// Failed visits in a row.
    failures: Mutex<HashMap<ObjectRef<GuardedTask>, u32>>,
}

/// Visits the `QueueTasks` of a namespace, or of all, until `shutdown`.
pub(super) fn run(
    context: Arc<Context>,
    namespace: Option<String>,
    queues: Store<GuardedQueue>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    let client = context.options.client.clone();
    let api: Api<GuardedTask> = match namespace {
        Some(namespace) => Api::namespaced(client, &namespace),
        None => Api::all(client),
    };
    let controller = Controller::new(api, watcher::Config::default());
    let all = controller.store();
    let (wake, woken) = mpsc::channel(WOKEN);
    let tasks = Arc::new(Tasks { context, queues, all, wake, failures: Mutex::default() });
    let visits = controller
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(ReceiverStream::new(woken))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(visit_measured, back_off, Arc::clone(&tasks));
    let visited = visits.for_each(move |result| {
        match result {
            Ok(_) => {}
            Err(controller::Error::ObjectNotFound(gone)) => {
                let namespace = gone.namespace.as_deref().unwrap_or_default();
                tasks.forget_failures(&ObjectRef::new(&gone.name).within(namespace));
                let is_near = |task: &QueueTask| task.metadata.namespace.as_deref() == Some(namespace);
                tasks.wake_oldest(|task| is_open(task) && is_near(task));
            }
            Err(controller::Error::ReconcilerFailed(error, task)) => {
                tracing::warn!(task = super::name_of(&task), %error, "visit to a task failed");
            }
            Err(error) => tracing::warn!(%error, "visit to a task failed"),
        }
        std::future::ready(())
    });
    visited.boxed()
}

/// One visit, counted.
async fn visit_measured(task: Arc<GuardedTask>, tasks: Arc<Tasks>) -> Result<Action, ApplyError> {
    let started = clock::monotonic();
    let result = visit_guarded(&task, &tasks).await;
    let class = result.as_ref().err().map(|error| error.class().as_str());
    tasks.context.options.metrics.reconciled(started.elapsed(), class);
    if result.is_ok() {
        tasks.forget_failures(&ObjectRef::from_obj(&*task));
    }
    result
}

async fn visit_guarded(task: &GuardedTask, tasks: &Tasks) -> Result<Action, ApplyError> {
    match &task.0 {
        Ok(task) => tasks.visit(task).await,
        Err(invalid) => {
            tasks.context.options.metrics.undecodable();
            let note = format!("this version of the operator cannot read it: {}", invalid.error);
            let about = task.object_ref(&());
            tasks.context.publish(&about, EventType::Warning, "Undecodable", &note).await;
            // Another version changes it, or a person does: the watch tells.
            Ok(Action::await_change())
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that Controller::run takes")]
fn back_off(task: Arc<GuardedTask>, error: &ApplyError, tasks: Arc<Tasks>) -> Action {
    let mut failures = tasks.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(ObjectRef::from_obj(&*task)).or_default();
    *count = count.saturating_add(1);
    Action::requeue(error.class().backoff(*count))
}

impl Tasks {
    async fn visit(&self, task: &QueueTask) -> Result<Action, ApplyError> {
        if task.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let queue = self.queue_of(task).await?;
        let scene = self.look(task, queue.as_ref());
        match plan::next(&scene) {
            Step::Rest(wait) => {
                self.wake_oldest(|other| is_of_same_queue(other, task) && is_open(other));
                Ok(Action::requeue(wait))
            }
            Step::Acknowledge => self.note(task, status::acknowledged(&scene), SOON).await,
            Step::Delete => self.delete(task).await.map(|()| Action::requeue(LATER)),
            Step::Adopt(owner) => self.adopt_if_there(task, &owner).await.map(|()| Action::requeue(SOON)),
            Step::Begin(shards) => self.note(task, status::begun(&scene, shards), SOON).await,
            Step::Wait(why, again) => self.note(task, status::waiting(&scene, &why), again).await,
            Step::End(outcome) => self.note(task, status::ended(&scene, &outcome), SOON).await,
            Step::LeaveOut => self.note(task, status::left_out(&scene), SOON).await,
            Step::Run(asks) => match queue.as_ref().zip(task.spec.backup.as_ref()) {
                Some(copied) => self.back_up(&scene, copied, asks).await,
                None => self.work(&scene, asks).await,
            },
        }
    }

    /// Writes the status, and comes back.
    async fn note(
        &self,
        task: &QueueTask,
        status: QueueTaskStatus,
        again: Duration,
    ) -> Result<Action, ApplyError> {
        self.write(task, &status).await?;
        Ok(Action::requeue(again))
    }

    /// Has shards do a part. Nothing begins by what a cache has: it may have begun long ago, on a volume that was lost since.
    async fn work(&self, scene: &Scene<'_>, asks: Vec<Ask>) -> Result<Action, ApplyError> {
        if asks.iter().any(|ask| !ask.request.begun) && !self.is_newest(scene.task).await? {
            return Ok(Action::requeue(SOON));
        }
        let answers = self.ask(scene, asks).await;
        let status = status::after(scene, &answers);
        let again = status::next_look(&status, &answers);
        self.note(scene.task, status, again).await
    }

    async fn ask(&self, scene: &Scene<'_>, asks: Vec<Ask>) -> Vec<Answer> {
        let queue = &QueueRef::new(&scene.task.spec.queue_name).within(&scene.namespace());
        let ask = |Ask { ordinal, request }: Ask| async move {
            (ordinal, self.context.shards.run_task(queue, ordinal, request).await)
        };
        join_all(asks.into_iter().map(ask)).await
    }

    fn look<'a>(&self, task: &'a QueueTask, queue: Option<&'a Queue>) -> Scene<'a> {
        let namespace = task.namespace().unwrap_or_default();
        let before = self.before(task);
        // Who only waits for others needs not know how the Queue is.
        let look = || dereference(&self.context.caches, &namespace, &task.spec.queue_name);
        let observed = if before.is_none() || task.spec.cancel { look() } else { Observed::default() };
        let placement = observed.placement();
        Scene {
            task,
            queue,
            before,
            shards: observed.stateful_set.is_some().then(|| observed.live_shards()),
            is_moving: placement.is_some_and(|placement| placement.from != placement.to),
            is_paused: queue.is_some_and(|queue| queue.annotations().contains_key(PAUSED_ANNOTATION)),
            now: clock::now(),
        }
    }

    /// An older task of the same Queue that is not over.
    fn before(&self, task: &QueueTask) -> Option<String> {
        let is_it = |other: &GuardedTask| other.0.as_ref().is_ok_and(|other| is_before(other, task));
        self.all.state_filter(is_it).first().map(|other| other.name_any())
    }

    /// One is over, or gone, and known to be: it is the turn of the oldest of each Queue.
    fn wake_oldest(&self, is_meant: impl Fn(&QueueTask) -> bool) {
        let open = self.all.state_filter(|task: &GuardedTask| task.0.as_ref().is_ok_and(&is_meant));
        let mut open: Vec<&QueueTask> = open.iter().filter_map(|task| task.0.as_ref().ok()).collect();
        open.sort_by_key(|task| Reverse(age(task)));
        let oldest: BTreeMap<_, _> = open.into_iter().map(|task| (&task.spec.queue_name, task)).collect();
        for task in oldest.into_values() {
            let task = ObjectRef::new(&task.name_any()).within(&task.namespace().unwrap_or_default());
            // Where there are too many it comes by itself, later.
            _ = self.wake.try_send(task);
        }
    }

    fn forget_failures(&self, task: &ObjectRef<GuardedTask>) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(task);
    }

    /// The cache may not have heard of it yet.
    async fn queue_of(&self, task: &QueueTask) -> Result<Option<Queue>, ApplyError> {
        let namespace = task.namespace().unwrap_or_default();
        let name = &task.spec.queue_name;
        let key = guarded(&QueueRef::new(name).within(&namespace));
        let known = self.queues.get(&key).and_then(|queue| queue.0.as_ref().ok().cloned());
        let is_over = task.status.as_ref().is_some_and(|status| status.state.is_final());
        let queue = match known {
            Some(queue) => Some(queue),
            None if is_over => None,
            None => self.read_queue_of(task).await?,
        };
        Ok(queue.filter(|queue| queue.metadata.deletion_timestamp.is_none()))
    }

    async fn read_queue_of(&self, task: &QueueTask) -> Result<Option<Queue>, ApplyError> {
        let namespace = task.namespace().unwrap_or_default();
        let api: Api<Queue> = Api::namespaced(self.context.options.client.clone(), &namespace);
        request("read the Queue of", task, api.get_opt(&task.spec.queue_name)).await
    }

    /// Whether nothing was written of the task since it was read.
    async fn is_newest(&self, task: &QueueTask) -> Result<bool, ApplyError> {
        let newest = request("read", task, self.api(task).get_opt(&task.name_any())).await?;
        Ok(newest.is_some_and(|newest| newest.metadata.resource_version == task.metadata.resource_version))
    }

    /// The cache may still have an earlier Queue of this name: what belongs to one that is gone is deleted.
    async fn adopt_if_there(&self, task: &QueueTask, owner: &OwnerReference) -> Result<(), ApplyError> {
        let queue = self.read_queue_of(task).await?;
        if queue.and_then(|queue| queue.metadata.uid).is_some_and(|uid| uid == owner.uid) {
            self.adopt(task, owner).await?;
        }
        Ok(())
    }

    /// Tells people, and whoever counts, what became of a task.
    async fn tell(&self, task: &QueueTask, status: &QueueTaskStatus) {
        let was = task.status.as_ref().map(|status| status.state).unwrap_or_default();
        if was == status.state {
            return;
        }
        let (type_, reason) = match status.state {
            TaskState::Pending => return,
            TaskState::Running => (EventType::Normal, "TaskStarted"),
            TaskState::Succeeded => (EventType::Normal, "TaskSucceeded"),
            TaskState::Cancelled => (EventType::Normal, "TaskCancelled"),
            TaskState::Failed => (EventType::Warning, "TaskFailed"),
            TaskState::Rejected => (EventType::Warning, "TaskRejected"),
        };
        if status.state.is_final() {
            self.context.options.metrics.task_ended(plan::word(&task.spec), status.state);
        }
        self.context.publish(&task.object_ref(&()), type_, reason, &status::told(status)).await;
    }
}

#[cfg(test)]
mod tests;
