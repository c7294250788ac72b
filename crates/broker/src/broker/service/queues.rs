//! Send, Receive, Settle, Extend, and the beginning of Produce, Consume and Commit.

use std::pin::Pin;

use ackwell_engine::command::{
    Batch, Extend, Handover, NewMessage, Outcome, Oversized, Receive, Send, Settle,
};
use ackwell_engine::message::QueueId;
use ackwell_engine::{Command, Refusal, Reply, command};
use ackwell_proto::v1::queues_server;
use ackwell_proto::v1::{
    CommitRequest, CommitResponse, ConsumeRequest, ConsumeResponse, ExtendRequest, ExtendResponse,
    ExtendResult, ProduceRequest, ProduceResponse, ReceiveRequest, ReceiveResponse, SendRequest,
    SendResponse, SendResult, SettleRequest, SettleResponse, SettleResult, Settlement,
};
use ackwell_proto::{Failure, Reason, timestamp};
use bytes::Bytes;
use futures::Stream;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::{Service, consume, produce};
use crate::broker::access::{Caller, Verb};
use crate::broker::convert;
use crate::broker::refusal::{failure, shutting_down};
use crate::broker::served::Allowed;
use crate::broker::shard::{Job, Poll};
use crate::calls::refused_item;
use crate::clock;
use crate::traces;

const DEFAULT_WAIT_MS: u64 = 20_000;
const MAX_WAIT_MS: u64 = 60_000;
/// Fits the 4 MiB that gRPC clients accept by default, with room for headers.
const DEFAULT_RECEIVE_BYTES: u64 = 3 << 20;
/// In an answer, for all that is not bodies. What does not fit goes back: a client that cannot read the answer could never
/// get past these messages.
const HEADERS_ROOM: u64 = 896 << 10;
const MAX_RECEIVE_BYTES: u64 = 16 << 20;

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + std::marker::Send>>;

#[tonic::async_trait]
impl queues_server::Queues for Service {
    type ProduceStream = ResponseStream<ProduceResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let caller = Caller::of(&request);
        Ok(Response::new(Box::pin(produce::open(self, caller, request.into_inner()).await?)))
    }

    type ConsumeStream = ResponseStream<ConsumeResponse>;

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let caller = Caller::of(&request);
        let SendRequest { queue, messages, atomic, request_id } = request.into_inner();
        let Allowed { served, sender } = self.queues.allow(&caller, Verb::Send, &queue)?;
        convert::batch_size("messages", messages.len())?;
        traces::sends(|| served.name(), &messages);
        let batch = if atomic { Batch::Atomic } else { Batch::Each };
        let request_id = convert::request_id(request_id)?;
        let parsed = messages.into_iter().map(|message| convert::new_message(message, &sender)).collect();
        let results = self.send_parsed(served.id, parsed, batch, request_id).await?;
        let results: Vec<_> = single_or_all(results)?.into_iter().map(send_result).collect();
        traces::sent(&results);
        Ok(Response::new(SendResponse { results }))
    }

    async fn receive(&self, request: Request<ReceiveRequest>) -> Result<Response<ReceiveResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let queue = request.queue.clone();
        let (receive, wait_ms) = self.parse_receive(&caller, request)?;
        self.answering.has_room()?;
        let max_answer = receive.max_bytes + HEADERS_ROOM;
        let (reply, answer) = oneshot::channel();
        let give_up_at = clock::now().plus_ms(wait_ms);
        self.shard.submit(Job::Poll(Poll { receive, give_up_at, reply }))?;
        let handed = tokio::select! {
            // First: what was found when the grant was gone goes back, to others.
            biased;
            failure = self.queues.lease(caller, Verb::Consume, &queue).over() => return Err(failure.into()),
            handed = answer => handed.map_err(|_| shutting_down())??,
        };
        let deliveries = handed.into_fitting(max_answer);
        let deliveries: Vec<_> = deliveries.into_iter().map(convert::delivery).collect();
        traces::receives(
            || self.queues.find(&queue).map_or_else(|_| queue.clone(), |it| it.name()),
            &deliveries,
        );
        Ok(self.answering.handed(ReceiveResponse { deliveries }))
    }

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let caller = Caller::of(&request);
        Ok(Response::new(Box::pin(consume::open(self, caller, request.into_inner()).await?)))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        let caller = Caller::of(&request);
        let SettleRequest { queue, settlements } = request.into_inner();
        let served = self.queues.allow(&caller, Verb::Consume, &queue)?.served;
        traces::settles(|| served.name(), &settlements);
        let results = self.settle_all(served.id, settlements, Patience::Call).await?;
        let results: Vec<_> = single_or_all(results)?.into_iter().map(settle_result).collect();
        traces::settled(&results);
        Ok(Response::new(SettleResponse { results }))
    }

    async fn extend(&self, request: Request<ExtendRequest>) -> Result<Response<ExtendResponse>, Status> {
        let caller = Caller::of(&request);
        let ExtendRequest { queue, receipts, ack_timeout } = request.into_inner();
        let queue = self.queues.allow(&caller, Verb::Consume, &queue)?.served.id;
        let ack_timeout_ms = convert::ack_timeout(ack_timeout.as_ref())?;
        let receipts = receipts.into_iter().map(Bytes::from).collect();
        let results = self.extend_all(queue, receipts, ack_timeout_ms, Patience::Call).await?;
        let results = single_or_all(results)?.into_iter().map(extend_result).collect();
        Ok(Response::new(ExtendResponse { results }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        traces::commits(|name| Some(self.queues.find(name).ok()?.name()), &request);
        Ok(Response::new(self.commit_all(&caller, request).await?))
    }
}

/// What becomes of a command for which the mailbox has no room.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// It is refused: the caller can wait better than we can.
    Call,
    /// It waits, and what its stream says next with it.
    Stream,
}

impl Service {
    async fn apply(&self, command: Command, patience: Patience) -> Result<Reply, Failure> {
        match patience {
            Patience::Call => self.shard.apply(command).await,
            Patience::Stream => self.shard.enqueue(command, None).await.reply().await,
        }
    }

    async fn send_parsed(
        &self,
        queue: QueueId,
        parsed: Vec<Result<NewMessage, Failure>>,
        batch: Batch,
        request_id: String,
    ) -> Result<Vec<Result<command::Sent, Failure>>, Failure> {
        let (valid, invalid) = split(parsed);
        if valid.is_empty() || (batch == Batch::Atomic && invalid.iter().any(Option::is_some)) {
            return Ok(invalid
                .into_iter()
                .map(|failure| Err(failure.unwrap_or_else(batch_refused)))
                .collect());
        }
        let send = Send { queue, messages: valid, batch, request_id };
        match self.shard.apply(Command::Send(send)).await? {
            Reply::Sent(results) => Ok(merge(invalid, results)),
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("a Send is answered by results, not {other:?}"),
        }
    }

    fn parse_receive(&self, caller: &Caller, request: ReceiveRequest) -> Result<(Receive, u64), Failure> {
        let wait = request.wait.as_ref();
        let wait_ms =
            wait.map_or(Ok(DEFAULT_WAIT_MS), |wait| convert::bounded_millis("wait", wait, MAX_WAIT_MS))?;
        let max_messages = request.max_messages.max(1);
        convert::batch_size("messages wanted", max_messages as usize)?;
        if request.max_bytes > MAX_RECEIVE_BYTES {
            return Err(Failure::invalid(format!("max_bytes is over {MAX_RECEIVE_BYTES}")));
        }
        let receive = Receive {
            queue: self.queues.allow(caller, Verb::Consume, &request.queue)?.served.id,
            max_messages,
            max_bytes: if request.max_bytes == 0 { DEFAULT_RECEIVE_BYTES } else { request.max_bytes },
            oversized: Oversized::Comes,
            ack_timeout_ms: convert::ack_timeout(request.ack_timeout.as_ref())?,
            consumer: convert::consumer(request.consumer)?,
            request_id: convert::request_id(request.request_id)?,
            handover: Handover::AtOnce,
        };
        Ok((receive, wait_ms))
    }

    pub(super) async fn settle_all(
        &self,
        queue: QueueId,
        settlements: Vec<Settlement>,
        patience: Patience,
    ) -> Result<Vec<Result<command::Settled, Failure>>, Failure> {
        convert::batch_size("settlements", settlements.len())?;
        let parse = |settlement: Settlement| Ok((settlement.receipt, convert::outcome(settlement.outcome)?));
        let (settlements, invalid) = split::<(Bytes, Outcome)>(settlements.into_iter().map(parse).collect());
        if settlements.is_empty() {
            return Ok(invalid.into_iter().flatten().map(Err).collect());
        }
        match self.apply(Command::Settle(Settle { queue, settlements }), patience).await? {
            Reply::Settled(results) => Ok(merge(invalid, results)),
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("a Settle is answered by results, not {other:?}"),
        }
    }

    pub(super) async fn extend_all(
        &self,
        queue: QueueId,
        receipts: Vec<Bytes>,
        ack_timeout_ms: Option<u64>,
        patience: Patience,
    ) -> Result<Vec<Result<ackwell_engine::Timestamp, Failure>>, Failure> {
        convert::batch_size("receipts", receipts.len())?;
        match self.apply(Command::Extend(Extend { queue, receipts, ack_timeout_ms }), patience).await? {
            Reply::Extended(results) => {
                Ok(results.into_iter().map(|result| result.map_err(|r| failure(&r))).collect())
            }
            Reply::Refused(refused) => Err(failure(&refused)),
            other => unreachable!("an Extend is answered by deadlines, not {other:?}"),
        }
    }
}

pub(super) fn settle_result(result: Result<command::Settled, Failure>) -> SettleResult {
    match result {
        Ok(settled) => convert::settle_result(settled),
        Err(failure) => SettleResult { error: Some(refused_item(failure)), ..Default::default() },
    }
}

pub(super) fn extend_result(result: Result<ackwell_engine::Timestamp, Failure>) -> ExtendResult {
    match result {
        Ok(deadline) => ExtendResult { ack_deadline: Some(timestamp(deadline.0)), error: None },
        Err(failure) => ExtendResult { ack_deadline: None, error: Some(refused_item(failure)) },
    }
}

pub(super) fn send_result(result: Result<command::Sent, Failure>) -> SendResult {
    match result {
        Ok(command::Sent { id, duplicate }) => SendResult { id: id.to_string(), duplicate, error: None },
        Err(failure) => SendResult { error: Some(refused_item(failure)), ..Default::default() },
    }
}

/// A call with a single item fails as a whole with it, so that the simplest client cannot overlook the error.
pub(super) fn single_or_all<T>(
    mut results: Vec<Result<T, Failure>>,
) -> Result<Vec<Result<T, Failure>>, Failure> {
    if results.len() == 1 && results[0].is_err() {
        return results.remove(0).map(|_| Vec::new());
    }
    Ok(results)
}

/// The valid items, and for each place of the batch what was wrong with it, if anything.
pub(super) fn split<T>(parsed: Vec<Result<T, Failure>>) -> (Vec<T>, Vec<Option<Failure>>) {
    let mut valid = Vec::with_capacity(parsed.len());
    let invalid = parsed.into_iter().map(|item| item.map(|item| valid.push(item)).err()).collect();
    (valid, invalid)
}

/// Puts the engine's results back into the places of the valid items.
pub(super) fn merge<T>(
    invalid: Vec<Option<Failure>>,
    results: Vec<Result<T, Refusal>>,
) -> Vec<Result<T, Failure>> {
    let mut results = results.into_iter().map(|result| result.map_err(|refused| failure(&refused)));
    let next = |failure: Option<Failure>| match failure {
        Some(failure) => Err(failure),
        None => results.next().expect("the engine answers every item"),
    };
    invalid.into_iter().map(next).collect()
}

fn batch_refused() -> Failure {
    Failure::new(Reason::BatchRefused, Refusal::BatchRefused.to_string())
}
