//! One stream to a shard, from its beginning to its end: what the legs of Consume and Produce have in common.

use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::queues_client::QueuesClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::retry::{DEFAULT_BUDGET, Deadline};
use super::route::Queue;
use crate::tls::Connection;

/// Something came from a shard.
pub(crate) struct Event<F> {
    pub(crate) shard: usize,
    /// Which of the leg's streams; what an ended one still says is old.
    pub(crate) epoch: u64,
    pub(crate) what: What<F>,
}

pub(crate) enum What<F> {
    Frame(F),
    /// The stream is over; `None` when the broker closed it in peace.
    Ended(Option<Status>),
}

/// A call with a stream each way.
pub(crate) trait Call: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    type Frame: Send + 'static;

    fn begin(
        queues: QueuesClient<Connection>,
        requests: ReceiverStream<Self::Request>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send;

    fn frame(response: Self::Response) -> Option<Self::Frame>;
}

pub(crate) struct Attempt<C: Call> {
    pub(crate) queue: Arc<Queue>,
    pub(crate) shard: usize,
    pub(crate) epoch: u64,
    pub(crate) events: mpsc::Sender<Event<C::Frame>>,
}

impl<C: Call> Attempt<C> {
    /// Ends with the stream, or with the session: then the broker sees a cancelled call.
    pub(crate) async fn run(self, requests: mpsc::Receiver<C::Request>, delay: Duration) {
        let stream = async {
            tokio::time::sleep(delay).await;
            let ended = self.pass_on(requests).await.err();
            self.queue.refresh_after_failure(ended.as_ref());
            self.tell(What::Ended(ended)).await;
        };
        tokio::select! { () = stream => {}, () = self.events.closed() => {} }
    }

    async fn pass_on(&self, requests: mpsc::Receiver<C::Request>) -> Result<(), Status> {
        let channel = self.queue.shard(self.shard, Deadline::within(DEFAULT_BUDGET)).await?;
        let call = C::begin(channel.queues(), ReceiverStream::new(requests));
        let mut responses = channel.watch(call).await?.into_inner();
        while let Some(response) = responses.message().await? {
            if let Some(frame) = C::frame(response) {
                self.tell(What::Frame(frame)).await;
            }
        }
        Ok(())
    }

    async fn tell(&self, what: What<C::Frame>) {
        _ = self.events.send(Event { shard: self.shard, epoch: self.epoch, what }).await;
    }
}
