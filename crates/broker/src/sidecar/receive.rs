//! Receive: a long poll over all shards, whose deliveries are never lost on their way to the application.
//!
//! Every question to a shard is a task of its own. When the application is gone before the answer, the task finds
//! out what was handed out for nobody, by the same `request_id`. From there on deliveries are a [`Handout`], which goes
//! back wherever it is dropped.

use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::{
    Delivery, ReceiveRequest, ReceiveResponse, Release, SettleRequest, Settlement, settlement,
};
use ackwell_proto::{Failure, duration, duration_millis};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::receipt::Receipt;
use super::retry::{DEFAULT_BUDGET, Deadline};
use super::route::Queue;
use super::shard_channel::ShardChannel;
use crate::traces;

/// As in the API.
const DEFAULT_WAIT: Duration = Duration::from_secs(20);
const MAX_WAIT: Duration = Duration::from_mins(1);
const MAX_MESSAGES: u32 = 1000;
/// The first round over several shards must not wait for one that is down.
const FIRST_ROUND_TIMEOUT: Duration = Duration::from_secs(1);
/// Shards answer an empty long poll at the same time, give or take the network.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_millis(200);
/// Giving back is a courtesy: what a broker cannot take within this comes back by its ack timeout.
pub(crate) const RELEASE_BUDGET: Duration = Duration::from_secs(5);

/// How long the application wants to wait for the first message.
pub(crate) fn wait_of(request: &ReceiveRequest) -> Result<Duration, Failure> {
    let wait = match &request.wait {
        None => Some(DEFAULT_WAIT),
        Some(wait) => duration_millis(wait).map(Duration::from_millis),
    };
    wait.filter(|wait| *wait <= MAX_WAIT)
        .ok_or_else(|| Failure::invalid(format!("wait must be between 0 and {} s", MAX_WAIT.as_secs())))
}

/// The budget of a call whose caller set no deadline: the wait itself comes on top.
pub(crate) fn budget_of(wait: Duration) -> Duration {
    wait + DEFAULT_BUDGET
}

/// One call of an application.
pub(crate) struct Receiver {
    pub(crate) queue: Arc<Queue>,
    pub(crate) request: ReceiveRequest,
    pub(crate) deadline: Deadline,
    /// When an empty answer is due.
    pub(crate) wait_until: Instant,
    pub(crate) tasks: TaskTracker,
}

type Answer = Result<Handout, Status>;

/// Deliveries on their way to the application. Those that do not get there go back at once, free of charge.
struct Handout {
    deliveries: Vec<Delivery>,
    queue: Arc<Queue>,
    tasks: TaskTracker,
}

impl Handout {
    fn append(&mut self, mut more: Self) {
        self.deliveries.append(&mut more.deliveries);
    }

    /// They are in the application's answer.
    fn into_deliveries(mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }
}

impl Drop for Handout {
    fn drop(&mut self) {
        let receipts: Vec<_> = self.deliveries.drain(..).map(|delivery| delivery.receipt).collect();
        let queue = Arc::clone(&self.queue);
        // Without a runtime the process is at its end, and brokers notice.
        if let (false, Ok(runtime)) = (receipts.is_empty(), Handle::try_current()) {
            let give_back = async move { release(&queue, receipts, Deadline::within(RELEASE_BUDGET)).await };
            self.tasks.spawn_on(give_back, &runtime);
        }
    }
}

impl Receiver {
    /// Deliveries with sealed receipts; empty when nothing came in time.
    pub(crate) async fn receive(mut self) -> Result<ReceiveResponse, Status> {
        self.complete_request()?;
        let shards = self.queue.route(self.deadline).await?.shards.len();
        let deliveries = if shards == 1 {
            self.ask(0, self.request.max_messages, self.wait_until, self.deadline).answer().await?
        } else {
            self.receive_from(shards).await?
        };
        Ok(ReceiveResponse { deliveries: deliveries.into_deliveries() })
    }

    fn complete_request(&mut self) -> Result<(), Failure> {
        let request = &mut self.request;
        self.queue.full_name().clone_into(&mut request.queue);
        request.max_messages = request.max_messages.max(1);
        if request.max_messages > MAX_MESSAGES {
            return Err(Failure::invalid(format!("max_messages must be at most {MAX_MESSAGES}")));
        }
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        Ok(())
    }

    /// First what is there, shard by shard from a random one; then the first of all shards that has something.
    async fn receive_from(&self, shards: usize) -> Answer {
        let deliveries = self.first_round(shards).await?;
        if !deliveries.deliveries.is_empty() {
            return Ok(deliveries);
        }
        let credit = self.request.max_messages.div_ceil(u32::try_from(shards).unwrap_or(u32::MAX));
        let asked = |shard| self.ask(shard, credit, self.wait_until, self.deadline).answer();
        first_of((0..shards).map(asked).collect()).await
    }

    async fn first_round(&self, shards: usize) -> Answer {
        let start = random_below(shards);
        let route = self.queue.route(self.deadline).await?;
        let mut handout = self.handout(Vec::new());
        for shard in (start..shards).chain(0..start) {
            let credit = self.credit_left(&handout.deliveries);
            let (is_failing, _) = route.shards.get(shard).map_or((true, 0), |channel| channel.load());
            if credit == 0 || is_failing {
                continue;
            }
            let asked = self.ask(shard, credit, Instant::now(), Deadline::within(FIRST_ROUND_TIMEOUT));
            match asked.answer().await {
                Ok(more) => handout.append(more),
                Err(error) => tracing::debug!(%error, shard, "first round"),
            }
        }
        Ok(handout)
    }

    fn handout(&self, deliveries: Vec<Delivery>) -> Handout {
        Handout { deliveries, queue: Arc::clone(&self.queue), tasks: self.tasks.clone() }
    }

    fn credit_left(&self, deliveries: &[Delivery]) -> u32 {
        let taken = u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
        self.request.max_messages.saturating_sub(taken)
    }

    /// Asks one shard, in a task that outlives this call where it must.
    fn ask(&self, shard: usize, max_messages: u32, wait_until: Instant, deadline: Deadline) -> Asked {
        let (give, answer) = oneshot::channel();
        let request = ReceiveRequest { max_messages, ..self.request.clone() };
        let nothing = self.handout(Vec::new());
        let question = Question { nothing, shard, request, wait_until };
        self.tasks.spawn(traces::carried(traces::this_call(), question.ask(give, deadline)));
        Asked(answer)
    }
}

/// An answer under way; dropping it makes the question end.
struct Asked(oneshot::Receiver<Answer>);

impl Asked {
    async fn answer(self) -> Answer {
        self.0
            .await
            .unwrap_or_else(|_| Err(Status::internal("the task of this call ended without an answer")))
    }
}

/// The first answer with deliveries; else an empty one; else an error.
async fn first_of(mut answers: FuturesUnordered<impl Future<Output = Answer>>) -> Answer {
    let mut error = None;
    loop {
        match answers.next().await {
            Some(Ok(handout)) if handout.deliveries.is_empty() => {
                return Ok(last_of(answers).await.unwrap_or(handout));
            }
            Some(Ok(handout)) => return Ok(handout),
            Some(Err(status)) => error = Some(status),
            None => return Err(error.unwrap_or_else(|| Status::internal("no shard was asked"))),
        }
    }
}

/// The wait is over: deliveries that come with the last answers.
async fn last_of(mut answers: FuturesUnordered<impl Future<Output = Answer>>) -> Option<Handout> {
    while let Ok(Some(answer)) = timeout(LAST_ANSWERS_TIMEOUT, answers.next()).await {
        if let Ok(handout) = answer
            && !handout.deliveries.is_empty()
        {
            return Some(handout);
        }
    }
    None
}

/// A Receive to one shard.
struct Question {
    /// Becomes the answer.
    nothing: Handout,
    shard: usize,
    request: ReceiveRequest,
    wait_until: Instant,
}

impl Question {
    async fn ask(mut self, mut give: oneshot::Sender<Answer>, deadline: Deadline) {
        let answer = tokio::select! {
            answer = self.call(self.wait_until, deadline) => answer,
            () = give.closed() => self.call(Instant::now(), Deadline::within(RELEASE_BUDGET)).await,
        };
        // What nobody takes goes back.
        _ = give.send(answer.map(|deliveries| {
            self.nothing.deliveries = deliveries;
            self.nothing
        }));
    }

    async fn call(&self, wait_until: Instant, deadline: Deadline) -> Result<Vec<Delivery>, Status> {
        let attempt = |channel: Arc<ShardChannel>| {
            let left = wait_until.saturating_duration_since(Instant::now());
            let wait = Some(duration(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
            let request = ReceiveRequest { wait, ..self.request.clone() };
            async move { channel.queues().receive(request).await }
        };
        let mut deliveries = self.nothing.queue.call(self.shard, deadline, attempt).await?.deliveries;
        seal(&mut deliveries, self.shard);
        Ok(deliveries)
    }
}

/// Puts the shard's ordinal before each receipt.
pub(crate) fn seal(deliveries: &mut [Delivery], shard: usize) {
    let shard = u16::try_from(shard).expect("a route has at most 1024 shards");
    for delivery in deliveries {
        delivery.receipt = Receipt::seal(shard, &delivery.receipt);
    }
}

/// Gives deliveries back free of charge; what fails comes back by its ack timeout.
pub(crate) async fn release(queue: &Arc<Queue>, receipts: Vec<Bytes>, deadline: Deadline) {
    settle_all(queue, receipts, &settlement::Outcome::Release(Release {}), deadline).await;
}

/// Settles any number of sealed receipts alike, and only logs what fails.
pub(crate) async fn settle_all(
    queue: &Arc<Queue>,
    receipts: Vec<Bytes>,
    outcome: &settlement::Outcome,
    deadline: Deadline,
) {
    for chunk in receipts.chunks(MAX_SETTLEMENTS) {
        let settlement =
            |receipt: &Bytes| Settlement { receipt: receipt.clone(), outcome: Some(outcome.clone()) };
        let request = SettleRequest {
            queue: queue.full_name().to_owned(),
            settlements: chunk.iter().map(settlement).collect(),
        };
        match super::settle::settle(queue, request.settlements, deadline).await {
            Ok(_) => tracing::debug!(queue = queue.full_name(), messages = chunk.len(), ?outcome, "settled"),
            Err(error) => {
                tracing::warn!(queue = queue.full_name(), messages = chunk.len(), %error, ?outcome, "not settled");
            }
        }
    }
}

/// As in the API.
const MAX_SETTLEMENTS: usize = 1000;

fn random_below(bound: usize) -> usize {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    usize::try_from(random % bound as u64).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::sidecar::route::tests::router;

    fn handout(count: usize) -> Handout {
        let deliveries = vec![Delivery::default(); count];
        let queue = router(&[]).queue("orders").unwrap();
        Handout { deliveries, queue, tasks: TaskTracker::new() }
    }

    fn answers(list: Vec<Answer>) -> FuturesUnordered<std::future::Ready<Answer>> {
        list.into_iter().map(ready).collect()
    }

    /// One shard's outage is not the application's while another answers.
    #[tokio::test]
    async fn first_of_prefers_deliveries_then_emptiness_then_error() {
        let down = || Err(Status::unavailable("down"));
        let (none, some) = (|| Ok(handout(0)), || Ok(handout(1)));
        let first = async |list| first_of(answers(list)).await.map(|handout| handout.deliveries.len());
        assert_eq!(first(vec![down(), none(), some()]).await.unwrap(), 1);
        assert_eq!(first(vec![down(), none()]).await.unwrap(), 0);
        assert!(first(vec![down(), down()]).await.is_err());
    }

    /// Handing over is free: what did not get to the application goes back, wherever it was lost.
    #[tokio::test]
    async fn dropped_handout_goes_back() {
        let (give, asked) = oneshot::channel();
        let mut handout = handout(1);
        let tasks = handout.tasks.clone();
        handout.append(self::handout(1));
        _ = give.send(Ok(handout));
        assert_eq!(tasks.len(), 0);
        drop(Asked(asked));
        assert_eq!(tasks.len(), 1);
    }

    /// A wait that no broker takes is refused at once.
    #[test]
    fn wait_over_the_bound_is_refused() {
        let request = |wait| ReceiveRequest { wait, ..ReceiveRequest::default() };
        assert_eq!(wait_of(&request(None)), Ok(DEFAULT_WAIT));
        assert_eq!(wait_of(&request(Some(duration(60_000)))), Ok(MAX_WAIT));
        assert!(wait_of(&request(Some(duration(60_001)))).is_err());
    }
}
