//! Makes Queues real: each change to a Queue or to anything it is made of leads to one visit of five steps.
//!
//! `dereference` (caches), `validate` (pure), `build` (pure), `apply` (writes children), `update_status` (writes the
//! status). A visit is safe to repeat and remembers nothing that a later one needs. Deleting needs no visit: garbage
//! collection follows the owner references.

mod apply;
mod build;
mod caches;
mod dereference;
mod error;
#[cfg(test)]
mod fixtures;
mod shards;
mod update_status;
mod validate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_api::{Queue, names};
use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use self::apply::{Applied, Applier};
use self::caches::Caches;
use self::dereference::{Observed, dereference};
use self::error::{Class, Error};
use self::shards::Shards;
use self::update_status::{Facts, StatusWriter, events};
use self::validate::Plan;
use crate::clock;
use crate::metrics::Metrics;

/// A Queue by namespace and name.
pub(crate) type QueueRef = ObjectRef<Queue>;
/// A Queue as it is watched: one that cannot be read must not stop the others.
type GuardedQueue = DeserializeGuard<Queue>;

/// Visits at the same time: enough to hide the API server's latency, few enough not to flood it.
const CONCURRENCY: u16 = 8;
/// Several changes at once, as when all pods of a Queue start, are one visit.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Changes of children that wait to become visits; a full channel makes the watches wait.
const VISITS: usize = 1024;

/// What the controller works with.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) client: Client,
    /// Empty: all namespaces.
    pub(crate) namespaces: Vec<String>,
    pub(crate) broker: BrokerImage,
    /// This replica, in events.
    pub(crate) identity: String,
    pub(crate) metrics: Arc<Metrics>,
}

/// What brokers run.
#[derive(Clone, Debug)]
pub(crate) struct BrokerImage {
    pub(crate) image: String,
    /// Absent: Kubernetes decides by the tag.
    pub(crate) pull_policy: Option<String>,
}

struct Context {
    options: Options,
    caches: Caches,
    applied: Applied,
    shards: Shards,
    status: StatusWriter,
    recorder: Recorder,
    /// Failed visits in a row.
    failures: Mutex<HashMap<ObjectRef<GuardedQueue>, u32>>,
}

/// Visits Queues until `shutdown`; visits under way are finished.
pub(crate) async fn run(options: Options, shutdown: CancellationToken) {
    let scopes = match options.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let runs = scopes.into_iter().map(|namespace| run_scope(options.clone(), namespace, shutdown.clone()));
    futures::future::join_all(runs).await;
}

async fn run_scope(options: Options, namespace: Option<String>, shutdown: CancellationToken) {
    let (visit, visits) = mpsc::channel(VISITS);
    let context = Arc::new(Context::new(options, namespace.as_deref(), visit));
    let client = context.options.client.clone();
    let api = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let ready = tokio::select! {
        ready = context.caches.ready() => ready,
        () = shutdown.cancelled() => false,
    };
    if !ready {
        return;
    }
    tracing::info!(namespace = namespace.as_deref().unwrap_or("all"), "visiting Queues");
    let guarded = |queue: QueueRef| guarded(&queue);
    Controller::new(api, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(ReceiverStream::new(visits).map(guarded))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(visit_measured, back_off, Arc::clone(&context))
        .for_each(|result| {
            finished(&context, result);
            std::future::ready(())
        })
        .await;
}

/// One visit, counted.
async fn visit_measured(queue: Arc<GuardedQueue>, context: Arc<Context>) -> Result<Action, Error> {
    let started = clock::monotonic();
    let result = match &queue.0 {
        Ok(queue) => visit(queue, &context).await,
        Err(invalid) => {
            context.report_undecodable(&queue, &invalid.error).await;
            Err(Error::Undecodable(invalid.error.clone()))
        }
    };
    let class = result.as_ref().err().map(|error| error.class().as_str());
    context.options.metrics.reconciled(started.elapsed(), class);
    if result.is_ok() {
        context.failures().remove(&ObjectRef::from_obj(queue.as_ref()));
    }
    result
}

async fn visit(queue: &Queue, context: &Context) -> Result<Action, Error> {
    if queue.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let observed = dereference(&context.caches, &queue.namespace().unwrap_or_default(), &queue.name_any());
    let outcome = make(queue, &observed, context).await;
    let shards = context.shards.views(&QueueRef::from_obj(queue));
    let facts = Facts { queue, outcome: outcome.as_ref(), observed: &observed, shards: &shards };
    let later = context.status.update(&facts, &clock::now(), clock::monotonic()).await?;
    outcome?;
    Ok(later.map_or_else(Action::await_change, Action::requeue))
}

/// Steps 2 to 4, and the settings for the brokers.
async fn make(queue: &Queue, observed: &Observed, context: &Context) -> Result<Plan, Error> {
    let plan = validate::validate(queue, observed)?;
    let children = build::build(&plan, observed, &context.options.broker);
    let Options { client, metrics, .. } = &context.options;
    let applier = Applier { client, applied: &context.applied, metrics };
    applier.apply(&context.caches, &children).await?;
    context.shards.sync(&plan.queue, plan.shards, observed);
    Ok(plan)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that Controller::run takes")]
fn back_off(queue: Arc<GuardedQueue>, error: &Error, context: Arc<Context>) -> Action {
    let mut failures = context.failures();
    let count = failures.entry(ObjectRef::from_obj(queue.as_ref())).or_default();
    *count = count.saturating_add(1);
    Action::requeue(error.class().backoff(*count))
}

fn finished(
    context: &Context,
    result: Result<(ObjectRef<GuardedQueue>, Action), controller::Error<Error, watcher::Error>>,
) {
    match result {
        Ok((queue, _)) => tracing::debug!(%queue, "visited"),
        // Something of a deleted Queue changed.
        Err(controller::Error::ObjectNotFound(queue)) => {
            context.forget(&queue.name, queue.namespace.as_deref().unwrap_or_default());
        }
        Err(controller::Error::ReconcilerFailed(error, queue)) if error.class() == Class::Waiting => {
            tracing::debug!(%queue, %error, "visit waits");
        }
        Err(error) => tracing::warn!(%error, "visit failed"),
    }
}

fn guarded(queue: &QueueRef) -> ObjectRef<GuardedQueue> {
    ObjectRef::new(&queue.name).within(queue.namespace.as_deref().unwrap_or_default())
}

impl Context {
    fn new(options: Options, namespace: Option<&str>, visit: mpsc::Sender<QueueRef>) -> Self {
        let reporter =
            Reporter { controller: names::MANAGER.to_owned(), instance: Some(options.identity.clone()) };
        let recorder = Recorder::new(options.client.clone(), reporter);
        Self {
            caches: Caches::start(&options.client, namespace, &visit),
            applied: Applied::default(),
            shards: Shards::new(visit),
            status: StatusWriter::new(options.client.clone(), recorder.clone()),
            recorder,
            failures: Mutex::default(),
            options,
        }
    }

    /// Forgets a Queue that is gone.
    fn forget(&self, name: &str, namespace: &str) {
        let queue = QueueRef::new(name).within(namespace);
        self.shards.forget(&queue);
        self.status.forget(&queue);
        self.applied.forget(namespace, &[names::child(name), names::shards_service(name)]);
        self.failures().remove(&guarded(&queue));
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<ObjectRef<GuardedQueue>, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Such a Queue gets no status: that would take reading it. Told once, not on every attempt.
    async fn report_undecodable(&self, queue: &GuardedQueue, error: &str) {
        self.options.metrics.undecodable();
        if self.failures().contains_key(&ObjectRef::from_obj(queue)) {
            return;
        }
        let note = format!("this version of the operator cannot read it: {error}");
        let event = events::event(EventType::Warning, "Undecodable", &note);
        if let Err(error) = self.recorder.publish(&event, &queue.object_ref(&())).await {
            tracing::debug!(%error, "event not published");
        }
    }
}
