//! Makes Queues real: each change to a Queue or to anything it is made of leads to one visit of five steps.
//!
//! `dereference` (caches), `validate` (pure), `build` (pure), `apply` (writes children), `update_status` (writes the
//! status). [`tasks`] does `QueueTasks`. [`storage`] and [`rollout`] (pure) plan what takes several visits. A visit is safe to repeat and remembers nothing that a later one needs. Deleting needs no visit: garbage
//! collection follows the owner references.

mod apply;
mod build;
mod caches;
mod certificates;
#[cfg(test)]
mod convergence;
mod dereference;
mod error;
#[cfg(test)]
mod fixtures;
mod placement;
mod programs;
mod restore;
mod rollout;
mod shards;
mod storage;
mod tasks;
mod turns;
mod update_status;
mod validate;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ackwell_api::{Queue, names};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::apply::{Applied, Applier, ApplyError};
use self::build::Children;
use self::caches::Caches;
use self::certificates::Certificates;
use self::dereference::{Observed, dereference};
use self::error::{Class, Error};
use self::rollout::{Rollout, Scene, State};
use self::shards::Shards;
use self::turns::Turns;
use self::update_status::{Facts, StatusWriter, events};
use self::validate::Plan;
use crate::certificates::broker::Authority;
use crate::clock;
use crate::identity::{Own, Published};
use crate::metrics::Metrics;
use crate::traces::Traces;

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

/// How often to look again at what keeps a Queue from what it shall be, where no watch reports that it is gone.
const OBSTACLE: Duration = Duration::from_mins(1);

/// What the controller works with.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) client: Client,
    /// Empty: all namespaces.
    pub(crate) namespaces: Vec<String>,
    pub(crate) broker: BrokerImage,
    /// Besides who a Queue grants something.
    pub(crate) reach: Reach,
    /// This replica, in events.
    pub(crate) identity: String,
    pub(crate) metrics: Arc<Metrics>,
    /// How brokers know who calls.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Who calls them from here.
    pub(crate) own: Own,
    /// Signs the brokers' certificates.
    pub(crate) authority: Authority,
}

/// What brokers run.
#[derive(Clone, Debug)]
pub(crate) struct BrokerImage {
    pub(crate) image: String,
    /// Absent: Kubernetes decides by the tag.
    pub(crate) pull_policy: Option<String>,
    /// Absent: there are none.
    pub(crate) traces: Option<Traces>,
}

/// Who else's pods reach brokers for messages.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// There are no policies.
    Anybody,
    /// Those of these namespaces.
    Namespaces(BTreeSet<String>),
}

struct Context {
    options: Options,
    caches: Caches,
    applied: Applied,
    certificates: Certificates,
    turns: Arc<Turns>,
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
    let turns = Arc::<Turns>::default();
    let run = |namespace| run_scope(options.clone(), namespace, Arc::clone(&turns), shutdown.clone());
    let runs = scopes.into_iter().map(run);
    futures::future::join_all(runs).await;
}

async fn run_scope(
    options: Options,
    namespace: Option<String>,
    turns: Arc<Turns>,
    shutdown: CancellationToken,
) {
    let (visit, visits) = mpsc::channel(VISITS);
    let context = Arc::new(Context::new(options, namespace.as_deref(), turns, visit));
    let client = context.options.client.clone();
    let authority = context.options.authority.changes();
    let published = context.options.published.clone();
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
    context.find_rollouts();
    tracing::info!(namespace = namespace.as_deref().unwrap_or("all"), "visiting Queues");
    let guarded = |queue: QueueRef| guarded(&queue);
    let controller = Controller::new(api, watcher::Config::default());
    let tasks = tasks::run(Arc::clone(&context), namespace, controller.store(), shutdown.clone());
    let tasks = AbortOnDropHandle::new(tokio::spawn(tasks));
    let queues = controller
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(ReceiverStream::new(visits).map(guarded))
        .reconcile_all_on(WatchStream::from_changes(authority).map(drop))
        .reconcile_all_on(WatchStream::from_changes(published).map(drop))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(visit_measured, back_off, Arc::clone(&context))
        .for_each(|result| finished(&context, result))
        .boxed();
    tokio::join!(queues, unless_it_panics(tasks));
}

/// A panic of the tasks ends all, so that another replica does them: nobody else would notice.
async fn unless_it_panics(tasks: AbortOnDropHandle<()>) {
    if let Err(error) = tasks.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
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
    context.options.metrics.visited(queue);
    let mut observed =
        dereference(&context.caches, &queue.namespace().unwrap_or_default(), &queue.name_any());
    observed.shards = context.shards.views(&QueueRef::from_obj(queue));
    let outcome = make(queue, &observed, context).await;
    if waits_for_a_person(outcome.as_ref()) {
        context.turns.give_back(&QueueRef::from_obj(queue));
    }
    let shards = context.shards.views(&QueueRef::from_obj(queue));
    let facts = Facts { queue, outcome: outcome.as_ref(), observed: &observed, shards: &shards };
    let counts = context.status.update(&facts, &clock::now(), clock::monotonic()).await?;
    let plan = outcome?;
    let obstacle = (!plan.obstacles.is_empty()).then_some(OBSTACLE);
    let certificate = context.certificates.next_look(&QueueRef::from_obj(queue));
    let restoring = plan.is_restoring.then_some(restore::LOOK_EVERY);
    let again = [counts, plan.rollout.revisit, obstacle, restoring].into_iter().flatten().min();
    Ok(Action::requeue(again.map_or(certificate, |again| again.min(certificate))))
}

/// Whether nothing happens until somebody does something: meanwhile others may replace their brokers.
fn waits_for_a_person(outcome: Result<&Plan, &Error>) -> bool {
    outcome.map_or_else(|error| error.class() == Class::User, |plan| plan.paused)
}

/// Steps 2 to 4, and the settings for the brokers.
async fn make(queue: &Queue, observed: &Observed, context: &Context) -> Result<Plan, Error> {
    let mut plan = validate::validate(queue, observed)?;
    plan.authorities = context.options.authority.content().bundle();
    if plan.paused {
        return Ok(plan);
    }
    let published = context.options.published.borrow().clone().ok_or(Error::NoKeys)?;
    plan = plan.with_access(published, &context.options.own.account);
    let applier = context.applier();
    // Volumes first: whatever else is refused, one that is full must be able to grow.
    plan.obstacles.extend(applier.ask_for_room(&plan.storage).await?);
    // Large, and kept over many waits.
    let mut children = Box::new(build::build(&plan, observed, &context.options.broker));
    children.network_policy = build::network_policy(&plan, observed, &context.options.reach);
    plan.rollout = context.steer(&mut children.stateful_set, &plan, observed);
    // Before the pods that mount it.
    context.certificates.ensure(&plan, &applier).await?;
    if !context.apply(queue, observed, &mut plan, &mut children).await? {
        return Ok(plan);
    }
    context.replace_stuck(queue, &plan.rollout).await?;
    context.shards.sync(&plan, observed);
    plan.obstacles.extend(applier.limit(queue, &context.caches, &children).await?);
    context.restore(&mut plan, observed).await?;
    if let Some(set) = apply::recreation_is_due(&plan, observed) {
        applier.orphan_pods(queue, set).await?;
    }
    Ok(plan)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that Controller::run takes")]
fn back_off(queue: Arc<GuardedQueue>, error: &Error, context: Arc<Context>) -> Action {
    let mut failures = context.failures();
    let count = failures.entry(ObjectRef::from_obj(queue.as_ref())).or_default();
    *count = count.saturating_add(1);
    Action::requeue(error.class().backoff(*count))
}

async fn finished(
    context: &Context,
    result: Result<(ObjectRef<GuardedQueue>, Action), controller::Error<Error, watcher::Error>>,
) {
    match result {
        Ok((queue, _)) => tracing::debug!(queue = name_of(&queue), "visited"),
        // Something of a deleted Queue changed.
        Err(controller::Error::ObjectNotFound(queue)) => {
            context.forget(&queue.name, queue.namespace.as_deref().unwrap_or_default()).await;
        }
        Err(controller::Error::ReconcilerFailed(error, queue)) if error.class() == Class::Waiting => {
            tracing::debug!(queue = name_of(&queue), %error, "visit waits");
        }
        Err(controller::Error::ReconcilerFailed(error, queue)) => {
            tracing::warn!(queue = name_of(&queue), %error, "visit failed");
        }
        Err(error) => tracing::warn!(%error, "visit failed"),
    }
}

/// As every log names it.
pub(crate) fn name_of<K: kube::Resource>(object: &ObjectRef<K>) -> String
where
    K::DynamicType: Eq + Hash + Clone,
{
    format!("{}/{}", object.namespace.as_deref().unwrap_or_default(), object.name)
}

fn guarded(queue: &QueueRef) -> ObjectRef<GuardedQueue> {
    ObjectRef::new(&queue.name).within(queue.namespace.as_deref().unwrap_or_default())
}

impl Context {
    fn new(
        options: Options,
        namespace: Option<&str>,
        turns: Arc<Turns>,
        visit: mpsc::Sender<QueueRef>,
    ) -> Self {
        let reporter =
            Reporter { controller: names::MANAGER.to_owned(), instance: Some(options.identity.clone()) };
        let recorder = Recorder::new(options.client.clone(), reporter);
        Self {
            caches: Caches::start(&options.client, namespace, &visit),
            applied: Applied::default(),
            certificates: Certificates::new(options.authority.clone()),
            turns,
            shards: Shards::new(visit, options.authority.clone(), options.own.token.clone()),
            status: StatusWriter::new(options.client.clone(), recorder.clone()),
            recorder,
            failures: Mutex::default(),
            options,
        }
    }

    fn applier(&self) -> Applier<'_> {
        let Options { client, metrics, .. } = &self.options;
        Applier { client, applied: &self.applied, metrics }
    }

    /// Queues that an earlier operator left in the middle of a rollout.
    fn find_rollouts(&self) {
        let rolling = self.caches.stateful_sets.state_filter(rollout::is_held_back);
        let queue = |set: &Arc<StatefulSet>| {
            let name = names::queue_of_child(set.metadata.name.as_deref()?)?;
            Some(QueueRef::new(name).within(set.metadata.namespace.as_deref()?))
        };
        rolling.iter().filter_map(queue).for_each(|queue| self.turns.goes_on(queue));
    }

    /// Decides which brokers follow the template of `desired`.
    fn steer(&self, desired: &mut StatefulSet, plan: &Plan, observed: &Observed) -> Rollout {
        let queue = QueueRef::from_obj(plan.queue.queue());
        let (shards, now) = (self.shards.views(&queue), clock::now());
        let scene = Scene { plan, observed, shards: &shards, now: &now };
        let rollout = rollout::steer(desired, &scene, || self.turns.take(&queue));
        match rollout.state {
            State::Done | State::Held | State::Kept => self.turns.give_back(&queue),
            // The others need not wait for somebody's application. What goes on of itself once that is ready, goes on.
            _ if rollout::waits_for_applications(plan, observed) => self.turns.give_back(&queue),
            State::Rolling => self.turns.goes_on(queue),
            State::Unsettled | State::Halted { .. } | State::Waiting => {}
        }
        rollout
    }

    /// Applies the children. A template that the API server refuses leaves the pods what they are, and the rest is applied.
    async fn apply(
        &self,
        queue: &Queue,
        observed: &Observed,
        plan: &mut Plan,
        children: &mut Children,
    ) -> Result<bool, ApplyError> {
        let apply =
            async |children: &_| self.applier().apply((queue, observed), &self.caches, children).await;
        let refused = match apply(children).await {
            Err(error) if error.class() == Class::User && plan.may_keep_template(observed) => error,
            done => return done,
        };
        plan.keep_template(&refused.into());
        plan.rollout = self.steer(&mut children.stateful_set, plan, observed);
        apply(children).await
    }

    async fn replace_stuck(&self, queue: &Queue, rollout: &Rollout) -> Result<(), ApplyError> {
        for pod in &rollout.stuck {
            if self.applier().delete(&**pod).await? {
                let note = format!("{} did not serve, and had an old template", pod.name_any());
                self.publish(&queue.object_ref(&()), EventType::Normal, "StuckPodReplaced", &note).await;
            }
        }
        Ok(())
    }

    /// Forgets a Queue that is gone.
    async fn forget(&self, name: &str, namespace: &str) {
        let queue = QueueRef::new(name).within(namespace);
        if let Err(error) = self.applier().sweep(&self.caches, &queue).await {
            tracing::warn!(%queue, %error, "pods that belong to nobody stay");
        }
        self.turns.give_back(&queue);
        self.shards.forget(&queue);
        self.certificates.forget(&queue);
        self.status.forget(&queue);
        self.options.metrics.forget(namespace, name);
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
        self.publish(&queue.object_ref(&()), EventType::Warning, "Undecodable", &note).await;
    }

    /// Events are a courtesy: one that is lost changes nothing.
    async fn publish(&self, about: &ObjectReference, type_: EventType, reason: &str, note: &str) {
        if let Err(error) = self.recorder.publish(&events::event(type_, reason, note), about).await {
            tracing::debug!(%error, reason, "event not published");
        }
    }
}
