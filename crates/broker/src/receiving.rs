//! A bound on what is being received: parts of messages that are not complete, of all connections together.
//!
//! A message is decoded only when all of it is there, and may have 20 MiB; the limit of streams per connection, and one of
//! each message, would still let a few clients fill the memory. A request that finds no room is refused. Messages that
//! come in one piece take no room, so that in normal times this costs nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ackwell_proto::{Failure, Reason};
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tower::Layer;

/// Three of the largest messages, or thousands of usual ones on their way at the same time.
const TOTAL_KIB: usize = 64 << 10;
/// Compression flag and length, before each message of a stream.
const PREFIX_BYTES: usize = 5;
/// What is being received elsewhere is complete, or given up, soon.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Wraps the bodies of all requests.
#[derive(Clone)]
pub(crate) struct Receiving(Arc<Semaphore>);

impl Receiving {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL_KIB)))
    }

    /// How much is being received.
    pub(crate) fn bytes(&self) -> u64 {
        (TOTAL_KIB.saturating_sub(self.0.available_permits()) as u64) << 10
    }
}

impl<S> Layer<S> for Receiving {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Bounded { inner, room: self.clone() }
    }
}

/// A service whose requests are bounded.
#[derive(Clone)]
pub(crate) struct Bounded<S> {
    inner: S,
    room: Receiving,
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Bounded<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let room = self.room.clone();
        let message = if is_grpc(request.headers()) { Message::new(room) } else { Message::endless(room) };
        self.inner.call(request.map(|body| Body::new(Counted { body, message })))
    }
}

pub(crate) fn is_grpc(headers: &http::HeaderMap) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A request's body.
struct Counted {
    body: Body,
    message: Message,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let counted = frame.and_then(|frame| {
            frame.data_ref().map_or(Ok(()), |data| this.message.receive(data))?;
            Ok(frame)
        });
        Poll::Ready(Some(counted))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The message that is being received.
struct Message {
    room: Receiving,
    taken: Option<OwnedSemaphorePermit>,
    prefix: Vec<u8>,
    received: usize,
    left: usize,
}

impl Message {
    fn new(room: Receiving) -> Self {
        Self { room, taken: None, prefix: Vec::with_capacity(PREFIX_BYTES), received: 0, left: 0 }
    }

    /// A body without prefixes: all of it is received before any is parsed.
    fn endless(room: Receiving) -> Self {
        Self { left: usize::MAX, ..Self::new(room) }
    }

    /// Goes through the data; what is left at its end of a message that is not complete takes room.
    fn receive(&mut self, mut data: &[u8]) -> Result<(), Failure> {
        while !data.is_empty() {
            if self.left == 0 {
                self.receive_prefix(&mut data);
                continue;
            }
            let count = self.left.min(data.len());
            self.received += count;
            self.left -= count;
            data.advance(count);
            if self.left == 0 {
                (self.received, self.taken) = (0, None);
            }
        }
        self.take_room()
    }

    fn receive_prefix(&mut self, data: &mut &[u8]) {
        let count = (PREFIX_BYTES - self.prefix.len()).min(data.len());
        self.prefix.extend_from_slice(&data[..count]);
        data.advance(count);
        if let [_, len @ ..] = &self.prefix[..]
            && let Ok(len) = <[u8; 4]>::try_from(len)
        {
            self.left = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
            self.prefix.clear();
        }
    }

    fn take_room(&mut self) -> Result<(), Failure> {
        let wanted = self.received.div_ceil(1024);
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(wanted.saturating_sub(taken)).unwrap_or(u32::MAX);
        if more == 0 {
            return Ok(());
        }
        let permit = Arc::clone(&self.room.0).try_acquire_many_owned(more).map_err(|_| full())?;
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        Ok(())
    }
}

fn full() -> Failure {
    let message = format!("{} MiB of requests are being received; try again", TOTAL_KIB >> 10);
    Failure::new(Reason::Busy, message).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Vec<u8> {
        let prefix = u32::try_from(len).unwrap().to_be_bytes();
        [&[0], &prefix[..], &vec![7; len]].concat()
    }

    /// Promise: only what is incomplete takes room, however it is cut, and it is given back when it is complete.
    #[test]
    fn incomplete_messages_take_room() {
        let room = Receiving::new();
        let mut stream = Message::new(room.clone());
        let data = [message(3000), message(0), message(10_000)].concat();
        for piece in [1, 2, 7, 1500, data.len()] {
            for chunk in data.chunks(piece) {
                stream.receive(chunk).unwrap();
                assert_eq!(room.bytes(), (stream.received.div_ceil(1024) as u64) << 10);
            }
            assert_eq!((room.bytes(), stream.left, stream.prefix.len()), (0, 0, 0), "cut by {piece}");
        }
    }

    /// What is not gRPC has no length in front; all of it counts until it is read.
    #[test]
    fn body_of_plain_http_takes_room_until_its_end() {
        let room = Receiving::new();
        let mut body = Message::endless(room.clone());
        body.receive(&[0; 3000]).unwrap();
        body.receive(&[0; 3000]).unwrap();
        assert_eq!(room.bytes(), 6 << 10);
        drop(body);
        assert_eq!(room.bytes(), 0);
    }

    /// Promise: however many streams begin large messages, memory is bounded; the next piece is refused, and what the others
    /// began goes on when there is room again.
    #[test]
    fn pieces_beyond_the_room_are_refused() {
        let room = Receiving::new();
        let half = &message(20 << 20)[..10 << 20];
        let mut streams: Vec<_> = (0..6).map(|_| Message::new(room.clone())).collect();
        streams.iter_mut().for_each(|stream| stream.receive(half).unwrap());
        let mut late = Message::new(room.clone());
        assert_eq!(late.receive(half).unwrap_err().reason, Reason::Busy);
        assert!(room.bytes() <= (TOTAL_KIB as u64) << 10);
        drop(streams.pop());
        drop(late);
        Message::new(room).receive(half).unwrap();
    }
}
