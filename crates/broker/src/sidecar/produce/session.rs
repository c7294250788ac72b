//! One stream of the application, and the streams to the shards behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::produce_response::Frame;
use ackwell_proto::v1::{
    GoAway, Message, ProduceBatch, ProduceConfirm, ProduceOpened, ProduceRequest, ProduceResponse,
    ProduceResult, ProduceWindow, SendResult, produce_request,
};
use ackwell_proto::{Failure, Reason};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status, Streaming};

use super::leg::{Event, Leg, Line, Part};
use super::pending::{Batch, Pending};
use super::placing::{self, Fitness, Placed};
use crate::producer::Producer;
use crate::sidecar::attempt::What;
use crate::sidecar::merge::{self, Answer};
use crate::sidecar::retry::{DEFAULT_BUDGET, Deadline, describe, is_transient};
use crate::sidecar::route::passed_on;
use crate::sidecar::route::{Home, Route};
use crate::sidecar::send::{self, Call, Item};
use crate::sidecar::service::{Sidecar, room_kib};
use crate::traces;

/// Batches of a stream that wait for brokers; the next is read when one is confirmed.
pub(super) const MAX_PENDING: usize = 1024;
/// What an application may have on its way until a shard says less.
pub(super) const WINDOW: ProduceWindow = ProduceWindow { max_messages: 10_000, max_bytes: 16 << 20 };

/// Something must be on its way to hear of room.
const NARROWEST: ProduceWindow = ProduceWindow { max_messages: 1, max_bytes: 1 };
/// Between two looks at whether a shard takes a batch that waits for one.
const LOOK: Duration = Duration::from_millis(50);

type Outgoing = Result<ProduceResponse, Status>;

/// A batch that is not with its shards yet.
struct Stalled {
    batch: ProduceBatch,
    since: Instant,
    /// What it will be taken apart by.
    route: Arc<Route>,
    /// By its name: the shard of messages that may lie on any.
    home: usize,
    /// The only shard for them; `None`: a new batch, that may go elsewhere.
    bound: Option<usize>,
}

/// What came of messages that went on to their new shard.
struct Redirected {
    seq: u64,
    parts: usize,
    answers: Result<Vec<Answer<SendResult>>, Status>,
}

/// Messages of a batch that a shard refused since they belong to another one by now.
#[derive(Default)]
struct Redirect {
    items: Vec<Item>,
    /// Parts of the batch that are confirmed but for these.
    parts: usize,
}

/// By batch, one after the other.
#[derive(Default)]
struct Redirects {
    waiting: BTreeMap<u64, Redirect>,
    is_under_way: bool,
    tell: Option<mpsc::Sender<Redirected>>,
}

impl Redirects {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.is_under_way
    }

    fn add(&mut self, seq: u64, item: Item) {
        self.waiting.entry(seq).or_default().items.push(item);
    }

    /// Whether a part of the batch, which its shard has confirmed, has messages here.
    fn answer_for(&mut self, seq: u64) -> bool {
        let here = self.waiting.get_mut(&seq).map(|redirect| redirect.parts += 1);
        here.is_some()
    }

    /// The oldest batch, unless another one is under way.
    fn begin(&mut self) -> Option<(u64, Redirect)> {
        let next = if self.is_under_way { None } else { self.waiting.pop_first() };
        self.is_under_way |= next.is_some();
        next
    }
}

pub(super) struct Session {
    sidecar: Arc<Sidecar>,
    line: Line,
    producer: Producer,
    legs: BTreeMap<usize, Leg>,
    pending: Pending,
    /// A batch for which there is no memory, or no shard, yet.
    stalled: Option<Stalled>,
    placed: Arc<Placed>,
    /// Some message had a home of its own, as others may.
    has_homes: bool,
    /// What the batches on their way were taken apart by.
    route: Option<Arc<Route>>,
    redirects: Redirects,
    /// As the application was told.
    window: ProduceWindow,
    /// Why the last stream to a shard ended.
    last_error: Option<String>,
    out: mpsc::Sender<Outgoing>,
}

impl Session {
    pub(super) fn new(
        sidecar: Arc<Sidecar>,
        line: Line,
        producer: Producer,
        placed: Arc<Placed>,
        out: mpsc::Sender<Outgoing>,
    ) -> Self {
        Self {
            sidecar,
            line,
            producer,
            legs: BTreeMap::new(),
            pending: Pending::default(),
            stalled: None,
            placed,
            has_homes: false,
            route: None,
            redirects: Redirects::default(),
            window: WINDOW,
            last_error: None,
            out,
        }
    }

    /// Until the stream ends; an error is for the application to hear.
    pub(super) async fn serve(
        &mut self,
        requests: &mut Streaming<ProduceRequest>,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<(), Status> {
        let producer = self.producer.name().to_owned();
        self.send(Frame::Opened(ProduceOpened { producer, window: Some(self.window) })).await;
        let stopping = self.sidecar.stopping.clone();
        let (tell, mut redirected) = mpsc::channel(1);
        self.redirects.tell = Some(tell);
        let (mut is_told, mut is_closed) = (false, false);
        while !(is_closed && self.pending.len() == 0 && self.stalled.is_none()) {
            let reads_on = !is_closed && self.has_room();
            let target = self.target();
            tokio::select! {
                () = self.out.closed() => return Ok(()),
                () = stopping.cancelled(), if !is_told => {
                    is_told = true;
                    self.send(Frame::GoAway(GoAway { reason: "the sidecar is stopping".to_owned() })).await;
                }
                Some(event) = events.recv() => self.on_event(event).await?,
                Some(redirected) = redirected.recv() => self.on_redirected(redirected).await?,
                (room, shard) = self.room(target) => self.ask_stalled(room, shard),
                () = sleep(LOOK), if self.stalled.is_some() && target.is_none() => {}
                read = requests.message(), if reads_on => match read {
                    Ok(Some(request)) => self.take(request).await?,
                    Ok(None) => is_closed = true,
                    // A connection that broke does not hear it; a frame that is too large has a sender that does.
                    Err(status) => return Err(status),
                },
                () = self.expiry() => return Err(self.expired().into()),
            }
        }
        Ok(())
    }

    /// Messages of a key that is moving must not overtake those before them, which may go from shard to shard yet.
    fn keeps_order_by_waiting(&self) -> bool {
        let is_same = |(route, newest): (&Arc<Route>, Arc<Route>)| route.placement == newest.placement;
        let newest = self.line.queue.current();
        let is_planned_alike = self.route.as_ref().zip(newest).is_none_or(is_same);
        self.pending.len() > 0 && !(is_planned_alike && self.redirects.is_empty())
    }

    fn has_room(&self) -> bool {
        self.stalled.is_none()
            && self.pending.len() < MAX_PENDING
            && self.pending.messages < self.window.max_messages as usize
            && (self.pending.bytes as u64) < self.window.max_bytes
    }

    /// Where the messages of the stalled batch go that may lie on any shard; `None`, while it is worth waiting.
    fn target(&mut self) -> Option<usize> {
        self.keep_up();
        let Stalled { home, bound, route, .. } = self.stalled.as_ref()?;
        let (home, shards) = (*home, route.shards.len());
        if bound.is_some() {
            return *bound;
        }
        let now = Instant::now();
        self.prepare(home);
        if matches!(self.legs[&home].fitness(now), Fitness::Full(_) | Fitness::Away) {
            (0..shards).for_each(|shard| self.prepare(shard));
        }
        let fitness = |shard| self.legs.get(&shard).map_or(Fitness::Opening, |leg| leg.fitness(now));
        placing::choose(home, &(0..shards).map(fitness).collect::<Vec<_>>())
    }

    fn prepare(&mut self, shard: usize) {
        self.legs.entry(shard).or_insert_with(|| Leg::new(shard)).prepare(&self.line);
    }

    /// Plans the stalled batch anew if the shards have changed since.
    fn keep_up(&mut self) {
        let Some(newest) = self.line.queue.current() else { return };
        let outdated = self.stalled.take_if(|stalled| !Arc::ptr_eq(&stalled.route, &newest));
        if let Some(Stalled { batch, since, .. }) = outdated {
            self.stall(batch, since, newest);
        }
    }

    /// Memory for the stalled batch, once there is a shard for it too; never, when there is none.
    fn room(&self, target: Option<usize>) -> impl Future<Output = (OwnedSemaphorePermit, usize)> + use<> {
        let stalled = self.stalled.as_ref().filter(|_| !self.keeps_order_by_waiting());
        let room = stalled.map(|stalled| self.sidecar.room(room_kib(&stalled.batch)));
        async move {
            match room.zip(target) {
                Some((room, shard)) => (room.await, shard),
                None => std::future::pending().await,
            }
        }
    }

    /// When the oldest batch is given up; never, when there is none.
    fn expiry(&self) -> impl Future<Output = ()> + use<> {
        let oldest = self.pending.oldest().or(self.stalled.as_ref().map(|stalled| stalled.since));
        async move {
            match oldest {
                Some(since) => sleep_until(since + DEFAULT_BUDGET).await,
                None => std::future::pending().await,
            }
        }
    }

    fn expired(&self) -> Failure {
        let deadline = Deadline::within(DEFAULT_BUDGET);
        self.line.queue.unavailable(deadline, "its shard", self.last_error.as_deref())
    }

    fn parse(&mut self, request: ProduceRequest) -> Result<ProduceBatch, Failure> {
        let batch = match request.frame {
            Some(produce_request::Frame::Batch(batch)) => batch,
            Some(produce_request::Frame::Open(_)) => {
                return Err(Failure::invalid("`open` may only be the first frame of Produce"));
            }
            None => {
                return Err(Failure::invalid("a frame of Produce is empty, or newer than this sidecar"));
            }
        };
        merge::check_batch(batch.messages.len(), "messages")?;
        send::check_headers(&batch.messages)?;
        self.producer.advance(batch.seq)?;
        Ok(batch)
    }

    /// Reads a batch.
    async fn take(&mut self, request: ProduceRequest) -> Result<(), Status> {
        let batch = self.parse(request)?;
        let route = self.line.queue.route(Deadline::within(DEFAULT_BUDGET)).await?;
        self.stall(batch, Instant::now(), route);
        Ok(())
    }

    /// Its messages with a key or `dedup_id` belong to a shard each; the others have the home of their batch, and go nowhere
    /// else while shards come and go.
    fn stall(&mut self, batch: ProduceBatch, since: Instant, route: Arc<Route>) {
        let home = route.home(&self.producer.request_id(batch.seq), Home::Before);
        let is_free = |message: &&Message| send::home(message, &route, Home::Before).is_none();
        let free = batch.messages.iter().filter(is_free).count();
        self.has_homes |= free < batch.messages.len();
        let may_go = free > 0 && route.among(Home::Before) == route.among(Home::After);
        let known = if free > 0 { self.placed.bound(batch.seq, home) } else { None };
        // A shard that has gone remembered nothing any more.
        let known = known.map(|shard| if shard < route.shards.len() { shard } else { home });
        let bound = if may_go { known } else { Some(known.unwrap_or(home)) };
        self.stalled = Some(Stalled { batch, since, route, home, bound });
    }

    /// Gives the batch to its shards; messages that may lie on any go to `anywhere`.
    fn ask_stalled(&mut self, room: OwnedSemaphorePermit, anywhere: usize) {
        let Some(Stalled { batch: ProduceBatch { seq, messages }, route, home, .. }) = self.stalled.take()
        else {
            return;
        };
        let (count, bytes) = (messages.len(), messages.iter().map(|message| message.body.len()).sum());
        self.placed.put(seq, count, anywhere, home);
        let span = traces::send_frame(|| self.line.queue.full_name().to_owned(), &messages);
        let items = messages.into_iter().enumerate().collect();
        let parts = send::by_shard(items, count, anywhere, &route, Home::Before);
        self.route = Some(route);
        let since = Instant::now();
        self.pending.add(Batch {
            seq,
            messages: count,
            bytes,
            since,
            parts: parts.len(),
            results: Vec::new(),
            span,
            _room: room,
        });
        for part in parts {
            let leg = self.legs.entry(part.shard).or_insert_with(|| Leg::new(part.shard));
            let batch = ProduceBatch { seq, messages: part.items };
            leg.ask(&self.line, Part { positions: part.positions, batch, since });
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), Status> {
        let Event { shard, epoch, what } = event;
        let Some(leg) = self.legs.get_mut(&shard).filter(|leg| leg.epoch == epoch) else { return Ok(()) };
        match what {
            What::Frame(Frame::Opened(opened)) => leg.opened(opened.window),
            What::Frame(Frame::Window(window)) => leg.window = Some(window),
            What::Frame(Frame::GoAway(_)) => leg.hang_up(),
            What::Frame(Frame::Confirm(confirm)) => self.on_confirm(shard, confirm).await,
            What::Ended(Some(status)) if !is_transient(&status) => return Err(passed_on(&status)),
            What::Ended(status) => {
                self.last_error = status.as_ref().map(describe).or(self.last_error.take());
                leg.ended(&self.line);
            }
        }
        self.pass_window_on().await;
        Ok(())
    }

    async fn on_confirm(&mut self, shard: usize, confirm: ProduceConfirm) {
        let Some(leg) = self.legs.get_mut(&shard) else { return };
        if confirm.results.iter().any(is_for_want_of_room) {
            leg.refused();
        }
        for ProduceResult { seq, index, result } in confirm.results {
            let is_moved = result.as_ref().is_some_and(send::is_refused_as_moved);
            match leg.item(seq, index) {
                Some(item) if is_moved => self.redirects.add(seq, item),
                Some((position, _)) => self.pending.result(seq, position, result),
                None => {}
            }
        }
        for seq in leg.confirmed(confirm.through_seq) {
            if !self.redirects.answer_for(seq) {
                self.pending.confirmed(seq);
            }
        }
        self.redirect_next();
        self.pass_confirms_on().await;
    }

    async fn pass_confirms_on(&mut self) {
        while let Some(confirm) = self.pending.confirm() {
            self.send(Frame::Confirm(confirm)).await;
        }
    }

    /// Sends to their new shard what its old one refused, one batch after the other.
    fn redirect_next(&mut self) {
        let Some((seq, Redirect { items, parts })) = self.redirects.begin() else { return };
        self.line.queue.refresh_if_older(Duration::ZERO);
        let (queue, request_id) = (Arc::clone(&self.line.queue), self.producer.request_id(seq));
        let whole = self.pending.messages_of(seq);
        let tell = self.redirects.tell.clone();
        self.line.tasks.spawn(async move {
            let call = Call { queue: &queue, atomic: false, request_id, is_bound: true, whole };
            let answers = call.store(items, Home::After, Deadline::within(DEFAULT_BUDGET)).await;
            if let Some(tell) = tell {
                _ = tell.send(Redirected { seq, parts, answers }).await;
            }
        });
    }

    async fn on_redirected(&mut self, Redirected { seq, parts, answers }: Redirected) -> Result<(), Status> {
        self.redirects.is_under_way = false;
        for (positions, answer) in answers? {
            let results = answer?;
            for (position, result) in positions.into_iter().zip(results) {
                if self.line.want_ids || result.error.is_some() || result.duplicate {
                    self.pending.result(seq, position, Some(result));
                }
            }
        }
        (0..parts).for_each(|_| self.pending.confirmed(seq));
        self.redirect_next();
        self.pass_confirms_on().await;
        Ok(())
    }

    /// The widest of the shards', since another one takes what one does not. Where some messages have a shard of their own the
    /// tightest: any shard may be the one that the next belong to.
    async fn pass_window_on(&mut self) {
        let pick: fn(_, _) -> _ = if self.has_homes { tightest } else { widest };
        let granted = self.legs.values().filter_map(|leg| leg.window).reduce(pick);
        let window = granted.map_or(WINDOW, |window| tightest(widest(window, NARROWEST), WINDOW));
        if window != self.window {
            self.window = window;
            self.send(Frame::Window(window)).await;
        }
    }

    async fn send(&mut self, frame: Frame) {
        // A closed transport is noticed by `serve`.
        _ = self.out.send(Ok(ProduceResponse { frame: Some(frame) })).await;
    }
}

fn is_for_want_of_room(result: &ProduceResult) -> bool {
    let error = result.result.as_ref().and_then(|result| result.error.as_ref());
    let reason = error.and_then(|error| Reason::parse(&error.reason));
    reason.is_some_and(|reason| reason.code() == Code::ResourceExhausted)
}

fn tightest(one: ProduceWindow, other: ProduceWindow) -> ProduceWindow {
    ProduceWindow {
        max_messages: one.max_messages.min(other.max_messages),
        max_bytes: one.max_bytes.min(other.max_bytes),
    }
}

fn widest(one: ProduceWindow, other: ProduceWindow) -> ProduceWindow {
    ProduceWindow {
        max_messages: one.max_messages.max(other.max_messages),
        max_bytes: one.max_bytes.max(other.max_bytes),
    }
}
