//! Which queues may be used, and where their shards are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackwell_engine::slots;
use ackwell_proto::v1::{Placement, RouteRequest, RouteResponse};
use ackwell_proto::{Failure, QueueName, Reason};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::{Response, Status};

use super::held::Held;
use super::options::Options;
use super::produce::Producers;
use super::retry::{Backoff, Deadline, RETRY_AFTER, describe, is_moved, is_transient};
use super::settled::Settled;
use super::shard_channel::ShardChannel;
use crate::tls::Trust;

/// More queues than one application speaks to; only reached without an allow-list.
const MAX_QUEUES: usize = 256;
/// More shards than a queue has; a receipt could name 65 536.
const MAX_SHARDS: usize = 1024;
/// While a queue is used, growth of it is seen within this.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// After a failure a shard may have moved; brokers are not asked more often than this.
const REFRESH_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A broker answers from memory.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(3);

/// The queues that this sidecar reaches.
#[derive(Debug)]
pub(crate) struct Router {
    options: Options,
    trust: Trust,
    queues: Mutex<HashMap<QueueName, Arc<Queue>>>,
    tasks: TaskTracker,
}

/// A queue, and the shards of it as last heard.
#[derive(Debug)]
pub(crate) struct Queue {
    full_name: String,
    entry_address: String,
    allow_listed: bool,
    trust: Trust,
    /// What the application received and has not settled.
    pub(crate) held: Held,
    /// What its streams hear of.
    pub(crate) settled: Settled,
    /// Where the batches of its producers went.
    pub(crate) producers: Producers,
    known: Mutex<Known>,
    asking: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Known {
    route: Option<Arc<Route>>,
    asked: Option<Instant>,
}

/// The shards of a queue, by ordinal.
#[derive(Debug)]
pub(crate) struct Route {
    generation: u64,
    pub(crate) placement: Placement,
    pub(crate) shards: Vec<Arc<ShardChannel>>,
}

/// Where a message belongs while the number of shards changes: first where it did, which knows what was stored there and refuses
/// what is new; then where it will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Before,
    After,
}

impl Route {
    /// The ordinal of the shard with the fewest calls outstanding; those that failed last time come last, and those that will be
    /// gone not at all.
    pub(crate) fn least_loaded(&self) -> usize {
        let load = |ordinal: &usize| self.shards[*ordinal].load();
        (0..self.among(Home::After)).min_by_key(load).expect("a route has a shard")
    }

    /// The ordinal of the shard of a key.
    pub(crate) fn home(&self, key: &str, home: Home) -> usize {
        let shards = u32::try_from(self.among(home)).expect("a route has at most 1024 shards");
        usize::try_from(slots::shard_of(key, shards)).expect("an ordinal")
    }

    /// How many shards keys are spread over.
    pub(crate) fn among(&self, home: Home) -> usize {
        let Placement { from, to, .. } = self.placement;
        let told = match home {
            Home::Before => from,
            Home::After => to,
        };
        usize::try_from(told)
            .ok()
            .filter(|told| (1..=self.shards.len()).contains(told))
            .unwrap_or(self.shards.len())
    }
}

impl Router {
    /// `trust` says who may be a broker; `tasks` owns what runs beside the calls.
    pub(crate) fn new(options: Options, trust: Trust, tasks: TaskTracker) -> Self {
        Self { options, trust, queues: Mutex::default(), tasks }
    }

    /// Finds the queue that an application names.
    pub(crate) fn queue(&self, text: &str) -> Result<Arc<Queue>, Failure> {
        let name = QueueName::parse(text, &self.options.namespace)
            .map_err(|error| Failure::invalid(error.to_string()))?;
        let allow_listed = self.options.queues.contains(&name);
        if !allow_listed && !self.options.queues.is_empty() {
            return Err(self.not_listed(&name));
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&name) {
            return Ok(Arc::clone(queue));
        }
        if queues.len() >= MAX_QUEUES {
            queues.retain(|_, queue| queue.known().route.is_some());
        }
        if queues.len() >= MAX_QUEUES {
            let message = format!("this sidecar already serves {MAX_QUEUES} queues; name them with --queues");
            return Err(Failure::new(Reason::Busy, message));
        }
        let queue = Arc::new(Queue {
            full_name: name.to_string(),
            entry_address: self.options.entry_address(&name),
            allow_listed,
            trust: self.trust.clone(),
            held: Held::default(),
            settled: Settled::default(),
            producers: Producers::default(),
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            tasks: self.tasks.clone(),
        });
        queues.insert(name, Arc::clone(&queue));
        Ok(queue)
    }

    /// Every queue that was used.
    pub(crate) fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn not_listed(&self, name: &QueueName) -> Failure {
        let allowed: Vec<_> = self.options.queues.iter().map(ToString::to_string).collect();
        let allowed = allowed.join(", ");
        let help = "add it to the pod's annotation ackwell.dev/queues (flag --queues) or correct the name";
        Failure::new(
            Reason::QueueNotFound,
            format!("queue {name} is not among this sidecar's ({allowed}); {help}"),
        )
    }
}

impl Queue {
    /// `namespace/name`, which every broker understands.
    pub(crate) fn full_name(&self) -> &str {
        &self.full_name
    }

    /// How many shards are known, and how many of them failed last time.
    pub(crate) fn shards(&self) -> (usize, usize) {
        let known = self.known();
        let shards = known.route.as_ref().map_or(&[][..], |route| &route.shards);
        (shards.len(), shards.iter().filter(|channel| channel.load().0).count())
    }

    /// The shards; asks for them when they are not known, and again in the background when that was long ago.
    pub(crate) async fn route(self: &Arc<Self>, deadline: Deadline) -> Result<Arc<Route>, Status> {
        let route = self.known().route.clone();
        match route {
            Some(route) => {
                self.refresh_if_older(REFRESH_INTERVAL);
                Ok(route)
            }
            None => self.learn(deadline).await,
        }
    }

    /// Calls one shard, again and again while it is unavailable, until the deadline.
    pub(crate) async fn call<T, F>(
        self: &Arc<Self>,
        ordinal: usize,
        deadline: Deadline,
        attempt: impl Fn(Arc<ShardChannel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut backoff = Backoff::new();
        let mut last = None;
        loop {
            let channel = self.shard(ordinal, deadline).await?;
            let address = channel.address().to_owned();
            let call = channel.watch(attempt(Arc::clone(&channel)));
            match timeout_at(deadline.at(), call).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if is_moved(&status) => {
                    self.refresh_if_older(REFRESH_AFTER_FAILURE);
                    return Err(passed_on(&status));
                }
                Ok(Err(status)) if is_transient(&status) => last = Some(describe(&status)),
                Ok(Err(status)) => return Err(passed_on(&status)),
                Err(_) => return Err(self.unavailable(deadline, &address, last.as_deref()).into()),
            }
            self.refresh_if_older(REFRESH_AFTER_FAILURE);
            if deadline.pause(backoff.step()).await.is_err() {
                return Err(self.unavailable(deadline, &address, last.as_deref()).into());
            }
        }
    }

    /// The shards as last heard.
    pub(crate) fn current(&self) -> Option<Arc<Route>> {
        self.known().route.clone()
    }

    /// The connection to one shard.
    pub(crate) async fn shard(
        self: &Arc<Self>,
        ordinal: usize,
        deadline: Deadline,
    ) -> Result<Arc<ShardChannel>, Status> {
        let route = self.route(deadline).await?;
        route.shards.get(ordinal).cloned().ok_or_else(|| {
            let message = format!("queue {} no longer has a shard {ordinal}", self.full_name);
            Failure::new(Reason::ShardMoved, message).retry_after(RETRY_AFTER).into()
        })
    }

    /// What the application hears when no broker answered in time.
    pub(crate) fn unavailable(&self, deadline: Deadline, address: &str, last: Option<&str>) -> Failure {
        let last = last.unwrap_or("no answer yet");
        let seconds = deadline.budget().as_secs_f32();
        let message = format!(
            "no broker of queue {} answered within {seconds:.1} s; last error from {address}: {last}; \
             see whether the Queue is Ready and its pods run, then try again",
            self.full_name
        );
        Failure::new(Reason::BrokerUnavailable, message).retry_after(RETRY_AFTER)
    }

    /// Asks for the shards again, in the background, unless that happened within `age`.
    pub(crate) fn refresh_if_older(self: &Arc<Self>, age: Duration) {
        if self.known().asked.is_some_and(|asked| asked.elapsed() < age) {
            return;
        }
        self.known().asked = Some(Instant::now());
        let queue = Arc::clone(self);
        self.tasks.spawn(async move { queue.refresh().await });
    }

    /// A shard that ended a stream may have moved.
    pub(crate) fn refresh_after_failure(self: &Arc<Self>, ended: Option<&Status>) {
        if ended.is_none_or(is_transient) {
            self.refresh_if_older(REFRESH_AFTER_FAILURE);
        }
    }

    async fn learn(self: &Arc<Self>, deadline: Deadline) -> Result<Arc<Route>, Status> {
        let mut backoff = Backoff::new();
        let mut last = None;
        loop {
            match timeout_at(deadline.at(), self.ask_once()).await {
                Ok(Ok(route)) => return Ok(route),
                Ok(Err(status)) if is_transient(&status) => last = Some(describe(&status)),
                Ok(Err(status)) => return Err(passed_on(&status)),
                Err(_) => {
                    return Err(self.unavailable(deadline, &self.entry_address, last.as_deref()).into());
                }
            }
            if !self.allow_listed && name_is_unknown(&self.entry_address).await {
                return Err(self.no_such_address().into());
            }
            if deadline.pause(backoff.step()).await.is_err() {
                return Err(self.unavailable(deadline, &self.entry_address, last.as_deref()).into());
            }
        }
    }

    /// Callers that wait for the same answer share one question.
    async fn ask_once(&self) -> Result<Arc<Route>, Status> {
        let _turn = self.asking.lock().await;
        let route = self.known().route.clone();
        match route {
            Some(route) => Ok(route),
            None => self.ask(self.entry()?).await,
        }
    }

    /// Asks the shards we know, the healthiest first, then whoever answers at the entry address.
    async fn refresh(&self) {
        let Ok(_turn) = self.asking.try_lock() else { return };
        let mut candidates =
            self.known().route.as_ref().map(|route| route.shards.clone()).unwrap_or_default();
        candidates.sort_by_key(|channel| channel.load());
        candidates.extend(self.entry());
        for channel in candidates {
            match self.ask(channel).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(queue = self.full_name, %error, "asking for shards"),
            }
        }
    }

    async fn ask(&self, channel: Arc<ShardChannel>) -> Result<Arc<Route>, Status> {
        let request = RouteRequest { queue: self.full_name.clone() };
        let mut client = channel.shard();
        let answer = timeout(ROUTE_TIMEOUT, client.route(request))
            .await
            .map_err(|_| Status::unavailable(format!("no answer within {ROUTE_TIMEOUT:?}")))??;
        self.adopt(&answer.into_inner(), channel)
    }

    /// Takes over a newer route; connections whose address stays are kept.
    fn adopt(&self, answer: &RouteResponse, asked: Arc<ShardChannel>) -> Result<Arc<Route>, Status> {
        if answer.shard_addresses.len() > MAX_SHARDS {
            return Err(Status::internal(format!("a broker named more than {MAX_SHARDS} shards")));
        }
        let mut known = self.known();
        known.asked = Some(Instant::now());
        if let Some(route) = known.route.as_ref().filter(|route| route.covers(answer)) {
            return Ok(Arc::clone(route));
        }
        let mut reusable = known.route.as_ref().map(|route| route.shards.clone()).unwrap_or_default();
        reusable.push(Arc::clone(&asked));
        let shards = if answer.shard_addresses.is_empty() {
            vec![asked]
        } else {
            answer
                .shard_addresses
                .iter()
                .map(|address| self.reuse(&reusable, address))
                .collect::<Result<_, _>>()?
        };
        let placement = answer.placement.unwrap_or_default();
        let route = Arc::new(Route { generation: answer.generation, placement, shards });
        known.route = Some(Arc::clone(&route));
        drop(known);
        tracing::info!(queue = self.full_name, shards = route.shards.len(), "shards known");
        Ok(route)
    }

    /// A new connection to whichever shard is ready.
    fn entry(&self) -> Result<Arc<ShardChannel>, Failure> {
        ShardChannel::new(&self.entry_address, &self.trust).map(Arc::new)
    }

    fn reuse(&self, channels: &[Arc<ShardChannel>], address: &str) -> Result<Arc<ShardChannel>, Failure> {
        match channels.iter().find(|channel| channel.address() == address) {
            Some(channel) => Ok(Arc::clone(channel)),
            None => ShardChannel::new(address, &self.trust).map(Arc::new),
        }
    }

    fn no_such_address(&self) -> Failure {
        let message = format!(
            "queue {} does not exist: no address {}; apply a Queue of this name or correct the name",
            self.full_name, self.entry_address
        );
        Failure::new(Reason::QueueNotFound, message)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route {
    /// Whether the answer says nothing new: it is older, or names the shards that we have.
    fn covers(&self, answer: &RouteResponse) -> bool {
        let same = answer.shard_addresses.is_empty() && self.shards.len() == 1
            || self.shards.iter().map(|shard| shard.address()).eq(answer.shard_addresses.iter());
        let placement = answer.placement.unwrap_or_default();
        let is_old = answer.generation < self.generation || placement.generation < self.placement.generation;
        is_old || same && placement == self.placement
    }
}

/// A broker's status as our own: code, message and details, without the headers of its connection.
pub(crate) fn passed_on(status: &Status) -> Status {
    Status::with_details(status.code(), status.message(), bytes::Bytes::copy_from_slice(status.details()))
}

/// Whether name resolution says that the name does not exist, which differs from not answering.
async fn name_is_unknown(address: &str) -> bool {
    /// What glibc and musl say for `EAI_NONAME` and `EAI_NODATA`; std does not expose the number.
    const UNKNOWN: [&str; 3] =
        ["Name or service not known", "No address associated with hostname", "Name does not resolve"];
    match timeout(ROUTE_TIMEOUT, tokio::net::lookup_host(address)).await {
        Ok(Err(error)) => UNKNOWN.iter().any(|text| error.to_string().contains(text)),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sidecar::options::DEFAULT_BROKER_ADDRESS;

    pub(crate) fn route_of(shards: usize) -> Route {
        let shard =
            |port| Arc::new(ShardChannel::new(&format!("127.0.0.1:{port}"), &Trust::default()).unwrap());
        let placement = Placement::default();
        Route { generation: 1, placement, shards: (1..=shards).map(shard).collect() }
    }

    pub(crate) fn router(queues: &[&str]) -> Router {
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            unix_socket: None,
            http: None,
            namespace: "shop".to_owned(),
            queues: queues.iter().map(|name| QueueName::parse(name, "shop").unwrap()).collect(),
            broker_address: DEFAULT_BROKER_ADDRESS.to_owned(),
            entries: HashMap::new(),
            broker_ca: None,
            token: None,
        };
        Router::new(options, Trust::default(), TaskTracker::new())
    }

    fn answer(generation: u64, addresses: &[&str]) -> RouteResponse {
        let shard_addresses = addresses.iter().map(ToString::to_string).collect();
        RouteResponse { generation, shard_addresses, placement: None }
    }

    /// A typing error is told at once, with the names that would work.
    #[tokio::test]
    async fn queue_off_the_list_is_not_found() {
        let router = router(&["orders", "logs"]);
        assert_eq!(router.queue("orders").unwrap().full_name(), "shop/orders");
        let failure = router.queue("order").unwrap_err();
        assert_eq!(failure.reason, Reason::QueueNotFound);
        assert!(failure.message.contains("shop/orders, shop/logs"), "{failure}");
        assert_eq!(router.queue("Orders").unwrap_err().reason, Reason::InvalidArgument);
    }

    /// Names that nobody serves do not fill the memory.
    #[tokio::test]
    async fn unknown_queues_are_forgotten_at_the_bound() {
        let router = router(&[]);
        for index in 0..=MAX_QUEUES {
            router.queue(&format!("q{index}")).unwrap();
        }
        assert!(router.queues.lock().unwrap().len() <= MAX_QUEUES);
    }

    /// While shards change a key has two homes, and what has none keeps away from a shard that goes. A placement that names more shards
    /// than are known is not believed.
    #[tokio::test]
    async fn key_has_its_home_of_before_and_of_after() {
        let placed = |from, to| Route { placement: Placement { generation: 1, from, to }, ..route_of(3) };
        let (all, fewer) = (placed(3, 3), placed(3, 2));
        let keys: Vec<_> = (0..100).map(|key| format!("key-{key}")).collect();
        let moved = keys.iter().filter(|key| fewer.home(key, Home::Before) != fewer.home(key, Home::After));
        let moved: Vec<_> = moved.collect();
        assert!(!moved.is_empty() && moved.iter().all(|key| fewer.home(key, Home::Before) == 2));
        assert!(keys.iter().all(|key| fewer.home(key, Home::Before) == all.home(key, Home::After)));
        assert!(fewer.least_loaded() < 2);
        assert_eq!((placed(9, 0).among(Home::Before), placed(9, 0).among(Home::After)), (3, 3));
    }

    /// Growth keeps the connections of the shards that stay; old news changes nothing.
    #[tokio::test]
    async fn newer_route_keeps_connections() {
        let queue = router(&[]).queue("orders").unwrap();
        let asked = Arc::new(ShardChannel::new("a:1", &Trust::default()).unwrap());
        let one = queue.adopt(&answer(1, &[]), Arc::clone(&asked)).unwrap();
        assert!(Arc::ptr_eq(&one.shards[0], &asked));
        let two = queue.adopt(&answer(2, &["a:1", "b:1"]), Arc::clone(&asked)).unwrap();
        assert!(Arc::ptr_eq(&two.shards[0], &asked));
        assert_eq!(two.shards.len(), 2);
        let stale = queue.adopt(&answer(1, &["a:1"]), asked).unwrap();
        assert_eq!(stale.shards.len(), 2);
    }
}
