//! Peek, Get, Explain, Stats, `WatchStats`, Redrive, Purge, Cancel, Pause.

use std::pin::Pin;
use std::time::Duration;

use ackwell_engine::command::{Cancel, Cursor, Filter, Mode, Pause, Selected, Selection};
use ackwell_engine::message::{Message, QueueId, State};
use ackwell_engine::{Command, Refusal, Reply, StoreError};
use ackwell_proto::v1::{
    CancelRequest, CancelResponse, CancelResult, ExplainRequest, ExplainResponse, GetRequest, GetResponse,
    PauseRequest, PauseResponse, PeekRequest, PeekResponse, PurgeRequest, PurgeResponse, RedriveRequest,
    RedriveResponse, StatsRequest, StatsResponse, queue_admin_server,
};
use ackwell_proto::{Failure, duration, v1};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use super::queues::{merge, single_or_all, split};
use super::{Service, audit, explain};
use crate::broker::access::{Caller, Verb};
use crate::broker::convert;
use crate::broker::refusal::{failure, storage_failure};
use crate::broker::shard::{Shard, View};
use crate::calls::{refused_item, refused_stream};
use crate::clock;

const DEFAULT_PEEK: u32 = 20;
const MAX_PEEK: u32 = 1000;
/// Of each body that a peek shows.
const MAX_BODY_BYTES: u32 = 1 << 20;
/// Of a page: fits the 4 MiB that gRPC clients accept by default. A larger message comes alone.
const MAX_ANSWER_BYTES: usize = 3 << 20;
/// Bodies read for a page, shown or not: nothing else is done meanwhile.
const MAX_READ_BYTES: usize = 4 << 20;
const DEFAULT_INTERVAL_MS: u64 = 5_000;
const MIN_INTERVAL_MS: u64 = 100;
const MAX_INTERVAL_MS: u64 = 3_600_000;

#[tonic::async_trait]
impl queue_admin_server::QueueAdmin for Service {
    type WatchStatsStream = Pin<Box<dyn Stream<Item = Result<StatsResponse, Status>> + Send>>;

    async fn peek(&self, request: Request<PeekRequest>) -> Result<Response<PeekResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let queue = self.queues.allow(&caller, Verb::Peek, &request.queue)?.served.id;
        let filter = convert::filter(request.filter)?;
        let after = cursor(&request.cursor)?;
        let limit = peek_limit(request.limit)?;
        if request.body_bytes > MAX_BODY_BYTES {
            return Err(Failure::invalid(format!("body_bytes is over {MAX_BODY_BYTES}")).into());
        }
        let body_bytes = request.body_bytes as usize;
        self.answering.has_room()?;
        let page =
            self.shard.look(move |view| page(&view, queue, &filter, after, (limit, body_bytes))).await?;
        Ok(self.answering.peeked(page.map_err(|error| storage_failure(&error))?)?)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let caller = Caller::of(&request);
        let GetRequest { queue, id } = request.into_inner();
        let queue = self.queues.allow(&caller, Verb::Peek, &queue)?.served.id;
        let filter = Filter { ids: vec![convert::message_id(&id)?], ..Filter::default() };
        let found = self.shard.look(move |view| view.engine.peek(queue, &filter, None, 1)).await?;
        let (mut found, _) = found.map_err(|error| storage_failure(&error))?;
        let message = found.pop().ok_or_else(|| failure(&Refusal::UnknownMessage))?;
        Ok(self.answering.peeked(GetResponse { message: Some(convert::message(message)) })?)
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let caller = Caller::of(&request);
        let ExplainRequest { queue, id } = request.into_inner();
        let (queue, id) =
            (self.queues.allow(&caller, Verb::Peek, &queue)?.served.id, convert::message_id(&id)?);
        let explained = self.shard.look(move |view| explain::explain(&view, queue, id)).await?;
        let explained = explained.map_err(|error| storage_failure(&error))?;
        Ok(Response::new(explained.ok_or_else(|| failure(&Refusal::UnknownMessage))?))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let caller = Caller::of(&request);
        let queue = self.queues.allow(&caller, Verb::Look, &request.into_inner().queue)?.served.id;
        Ok(Response::new(stats(&self.shard, queue).await?))
    }

    async fn watch_stats(
        &self,
        request: Request<StatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let caller = Caller::of(&request);
        let StatsRequest { queue: name, interval } = request.into_inner();
        let queue = self.queues.allow(&caller, Verb::Look, &name)?.served.id;
        let wanted = interval.map(|interval| convert::bounded_millis("interval", &interval, MAX_INTERVAL_MS));
        let interval_ms = wanted.transpose()?.unwrap_or(DEFAULT_INTERVAL_MS).max(MIN_INTERVAL_MS);
        let stopping = self.stopping.clone().cancelled_owned();
        let stats = watch(self.shard.clone(), queue, Duration::from_millis(interval_ms));
        let over = self.queues.lease(caller, Verb::Look, &name).over();
        let over = stream::once(over).map(|failure| Err(refused_stream(failure)));
        Ok(Response::new(stream::select(stats, over).take_until(stopping).boxed()))
    }

    async fn redrive(&self, request: Request<RedriveRequest>) -> Result<Response<RedriveResponse>, Status> {
        let caller = Caller::of(&request);
        let RedriveRequest { queue, filter, max_messages, dry_run } = request.into_inner();
        let allowed = self.queues.allow(&caller, Verb::Admin, &queue)?;
        let filter = convert::filter(filter)?;
        if filter.states.iter().any(|state| *state != State::Dead) {
            return Err(Failure::invalid(
                "only Dead messages can be redriven: leave states out of the filter",
            )
            .into());
        }
        let selection = selection(allowed.served.id, filter, max_messages, dry_run);
        let result = self.select_all(selection, Command::Redrive).await;
        audit::selected("redrive", &allowed, dry_run, &result);
        let Selected { matched, changed, .. } = result?;
        Ok(Response::new(RedriveResponse { matched, redriven: changed }))
    }

    async fn purge(&self, request: Request<PurgeRequest>) -> Result<Response<PurgeResponse>, Status> {
        let caller = Caller::of(&request);
        let PurgeRequest { queue, filter, dry_run, max_messages } = request.into_inner();
        let allowed = self.queues.allow(&caller, Verb::Admin, &queue)?;
        let filter = convert::filter(filter)?;
        if filter.states.contains(&State::InFlight) {
            let message = "messages in flight are not purged: leave that state out of the filter";
            return Err(Failure::invalid(message).into());
        }
        let selection = selection(allowed.served.id, filter, max_messages, dry_run);
        let result = self.select_all(selection, Command::Purge).await;
        audit::selected("purge", &allowed, dry_run, &result);
        let Selected { matched, changed, .. } = result?;
        Ok(Response::new(PurgeResponse { matched, purged: changed }))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let caller = Caller::of(&request);
        let CancelRequest { queue, ids } = request.into_inner();
        let allowed = self.queues.allow(&caller, Verb::Admin, &queue)?;
        convert::batch_size("ids", ids.len())?;
        let (ids, invalid) = split(ids.iter().map(|id| convert::message_id(id)).collect());
        let cancelled =
            match self.shard.apply(Command::Cancel(Cancel { queue: allowed.served.id, ids })).await? {
                Reply::Cancelled(results) => merge(invalid, results),
                Reply::Refused(refused) => return Err(failure(&refused).into()),
                other => unreachable!("a Cancel is answered by results, not {other:?}"),
            };
        audit::cancelled(&allowed, &cancelled);
        let result = |result: Result<(), Failure>| CancelResult { error: result.err().map(refused_item) };
        let results = single_or_all(cancelled)?.into_iter().map(result).collect();
        Ok(Response::new(CancelResponse { results }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<PauseResponse>, Status> {
        let caller = Caller::of(&request);
        let PauseRequest { queue, paused } = request.into_inner();
        let allowed = self.queues.allow(&caller, Verb::Admin, &queue)?;
        match self.shard.apply(Command::Pause(Pause { queue: allowed.served.id, paused })).await? {
            Reply::Paused => {
                audit::paused(&allowed, paused);
                Ok(Response::new(PauseResponse {}))
            }
            Reply::Refused(refused) => Err(failure(&refused).into()),
            other => unreachable!("a Pause is answered by nothing else, not {other:?}"),
        }
    }
}

impl Service {
    /// Stretch by stretch, so that others are served in between.
    async fn select_all(
        &self,
        mut selection: Selection,
        command: fn(Selection) -> Command,
    ) -> Result<Selected, Failure> {
        let mut total = Selected::default();
        loop {
            let Selected { matched, changed, next } =
                match self.shard.apply(command(selection.clone())).await? {
                    Reply::Redriven(selected) | Reply::Purged(selected) => selected,
                    Reply::Refused(refused) => return Err(failure(&refused)),
                    other => unreachable!("a selection is answered by counts, not {other:?}"),
                };
            total.matched += matched;
            total.changed += changed;
            selection.max_messages -= matched;
            selection.after = next;
            if next.is_none() || selection.max_messages == 0 {
                return Ok(total);
            }
        }
    }
}

/// Of all messages from the first on; a `max_messages` of zero is no limit.
fn selection(queue: QueueId, filter: Filter, max_messages: u64, dry_run: bool) -> Selection {
    let max_messages = if max_messages == 0 { u64::MAX } else { max_messages };
    let mode = if dry_run { Mode::DryRun } else { Mode::Apply };
    Selection { queue, filter, after: None, max_messages, mode }
}

/// The counts now.
pub(crate) async fn stats(shard: &Shard, queue: QueueId) -> Result<StatsResponse, Failure> {
    let look = move |view: View<'_>| {
        let (engine, consumers) = (view.engine, view.consumers(queue));
        (engine.stats(queue), engine.disk_used(), engine.is_paused(queue), consumers)
    };
    let (stats, disk_used, paused, consumers) = shard.look(look).await?;
    let now = clock::now();
    Ok(StatsResponse {
        ready: stats.counts.ready,
        delayed: stats.counts.delayed,
        in_flight: stats.counts.in_flight,
        dead: stats.counts.dead,
        bytes: stats.counts.bytes,
        disk_used,
        oldest_ready: stats.oldest_ready.map(|stored_at| duration(now.ms_since(stored_at))),
        sent: stats.totals.sent,
        acked: stats.totals.acked,
        nacked: stats.totals.failed(),
        consumers: u32::try_from(consumers).unwrap_or(u32::MAX),
        paused,
    })
}

/// The counts at once and then whenever they changed, looked at once per interval.
fn watch(
    shard: Shard,
    queue: QueueId,
    interval: Duration,
) -> impl Stream<Item = Result<StatsResponse, Status>> {
    let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(interval));
    let looked = ticks.then(move |_| {
        let shard = shard.clone();
        async move { stats(&shard, queue).await.map_err(Status::from) }
    });
    looked
        .scan(None, |last: &mut Option<StatsResponse>, now| {
            let is_same = matches!((&*last, &now), (Some(last), Ok(now)) if same_counts(last, now));
            *last = now.as_ref().ok().copied();
            std::future::ready(Some((!is_same).then_some(now)))
        })
        .flat_map(stream::iter)
}

/// Age and file size change by themselves and are no news.
fn same_counts(a: &StatsResponse, b: &StatsResponse) -> bool {
    StatsResponse { oldest_ready: None, disk_used: 0, ..*a }
        == StatsResponse { oldest_ready: None, disk_used: 0, ..*b }
}

fn page(
    view: &View<'_>,
    queue: QueueId,
    filter: &Filter,
    after: Option<Cursor>,
    (limit, body_bytes): (usize, usize),
) -> Result<PeekResponse, StoreError> {
    let mut messages = Vec::new();
    let (mut answer_bytes, mut read_bytes) = (0, 0);
    let mut last = after;
    // One message at a time, so that a page ends where its size does.
    while messages.len() < limit && read_bytes < MAX_READ_BYTES {
        let (found, next) = view.engine.peek(queue, filter, last, 1)?;
        let is_scan_over = found.is_empty();
        for message in found {
            read_bytes += message.payload.body.len();
            let message = show(message, body_bytes);
            answer_bytes += convert::len_in_list(&message);
            if answer_bytes > MAX_ANSWER_BYTES && !messages.is_empty() {
                return Ok(PeekResponse { messages, cursor: write_cursor(last) });
            }
            messages.push(message);
        }
        last = next;
        if last.is_none() || is_scan_over {
            break;
        }
    }
    Ok(PeekResponse { messages, cursor: write_cursor(last) })
}

fn write_cursor(last: Option<Cursor>) -> Vec<u8> {
    last.map(|last| last.to_be_bytes().to_vec()).unwrap_or_default()
}

fn show(message: Message, body_bytes: usize) -> v1::Message {
    let mut shown = convert::message(message);
    let len = shown.body.len().min(body_bytes);
    // A slice would keep the whole body in memory until the answer is written.
    shown.body = Bytes::copy_from_slice(&shown.body[..len]);
    shown
}

fn cursor(bytes: &[u8]) -> Result<Option<Cursor>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes = bytes.try_into().map_err(|_| Failure::invalid("cursor is not one that Peek answered"))?;
    Ok(Some(Cursor::from_be_bytes(bytes)))
}

fn peek_limit(limit: u32) -> Result<usize, Failure> {
    match limit {
        0 => Ok(DEFAULT_PEEK as usize),
        1..=MAX_PEEK => Ok(limit as usize),
        _ => Err(Failure::invalid(format!("limit is over {MAX_PEEK}; use the cursor for more"))),
    }
}
