//! Why a caller's stream ended, told apart in one place for broker and sidecar.
//!
//! What tonic shows of an end (hyper 1, h2 0.4):
//!
//! | The caller | `requests.message()` | our response stream |
//! |---|---|---|
//! | half-closes | `Ok(None)` after its last frame | stays |
//! | cancels (`RST_STREAM` `CANCEL`, what gRPC libraries send for a cancelled call; tonic half-closes when both halves are dropped) | `Ok(None)` after its last frame | is dropped |
//! | dies, or the network does (end of file, reset, unanswered pings) | `Err` | is dropped |
//!
//! So only an `Err` of the reading side is a break. When the response stream is dropped first, read on:
//! [`after_drop`] does. An undecodable frame is an `Err` too: its sender no longer speaks our protocol.
//!
//! What follows from an end (free release, or a grace period and then a lost attempt) is the caller's to decide.

use std::time::Duration;

use tonic::{Status, Streaming};

/// The reading side of a dropped stream ends at once; this only bounds what a library might do otherwise.
const READ_ON_TIMEOUT: Duration = Duration::from_secs(1);

/// How a caller's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The caller wanted it: it half-closed, or cancelled.
    Deliberate,
    /// The caller, or the connection to it, died.
    Broken,
}

impl StreamEnd {
    /// What the result of `Streaming::message()` says; `Err` holds the frame of a stream that goes on.
    pub(crate) fn of<T>(read: Result<Option<T>, Status>) -> Result<Self, T> {
        match read {
            Ok(Some(frame)) => Err(frame),
            Ok(None) => Ok(Self::Deliberate),
            Err(_) => Ok(Self::Broken),
        }
    }
}

/// Reads what the caller still sent before its response stream was dropped, and why that was.
pub(crate) async fn after_drop<T>(requests: &mut Streaming<T>, mut take: impl FnMut(T)) -> StreamEnd {
    loop {
        let Ok(read) = tokio::time::timeout(READ_ON_TIMEOUT, requests.message()).await else {
            return StreamEnd::Broken;
        };
        match StreamEnd::of(read) {
            Ok(end) => return end,
            Err(frame) => take(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::pin::Pin;

    use ackwell_proto::v1::queues_client::QueuesClient;
    use ackwell_proto::v1::queues_server::{Queues, QueuesServer};
    use ackwell_proto::v1::{
        CommitRequest, CommitResponse, ConsumeRequest, ConsumeResponse, Drain, ExtendRequest, ExtendResponse,
        ProduceRequest, ProduceResponse, ReceiveRequest, ReceiveResponse, SendRequest, SendResponse,
        SettleRequest, SettleResponse, consume_request,
    };
    use futures::Stream;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::codegen::http;
    use tonic::transport::server::TcpIncoming;
    use tonic::transport::{Channel, Server};
    use tonic::{Request, Response};

    use super::*;

    /// Tells how each stream ended, and how many frames it had.
    struct Teller(mpsc::Sender<(StreamEnd, usize)>);

    #[tonic::async_trait]
    impl Queues for Teller {
        type ProduceStream = Pin<Box<dyn Stream<Item = Result<ProduceResponse, Status>> + Send>>;

        async fn produce(
            &self,
            _: Request<Streaming<ProduceRequest>>,
        ) -> Result<Response<Self::ProduceStream>, Status> {
            Err(Status::unimplemented(""))
        }

        type ConsumeStream = Pin<Box<dyn Stream<Item = Result<ConsumeResponse, Status>> + Send>>;

        async fn consume(
            &self,
            request: Request<Streaming<ConsumeRequest>>,
        ) -> Result<Response<Self::ConsumeStream>, Status> {
            let (give, responses) = mpsc::channel(1);
            let tell = self.0.clone();
            tokio::spawn(async move {
                give.send(Ok(ConsumeResponse::default())).await.unwrap();
                let mut requests = request.into_inner();
                let mut frames = 0;
                let end = loop {
                    tokio::select! {
                        biased;
                        () = give.closed() => break after_drop(&mut requests, |_| frames += 1).await,
                        read = requests.message() => match StreamEnd::of(read) {
                            Ok(end) => break end,
                            Err(_) => frames += 1,
                        },
                    }
                };
                tell.send((end, frames)).await.unwrap();
            });
            Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
        }

        async fn send(&self, _: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn receive(&self, _: Request<ReceiveRequest>) -> Result<Response<ReceiveResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn commit(&self, _: Request<CommitRequest>) -> Result<Response<CommitResponse>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn extend(&self, _: Request<ExtendRequest>) -> Result<Response<ExtendResponse>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    /// A stream through a proxy that can be cut like a network.
    struct Rig {
        frames: mpsc::Sender<ConsumeRequest>,
        responses: Streaming<ConsumeResponse>,
        network: tokio::task::JoinHandle<()>,
        ends: mpsc::Receiver<(StreamEnd, usize)>,
    }

    async fn serve() -> (SocketAddr, mpsc::Receiver<(StreamEnd, usize)>) {
        let (tell, ends) = mpsc::channel(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = QueuesServer::new(Teller(tell));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        (address, ends)
    }

    impl Rig {
        async fn open() -> Self {
            let (server, ends) = serve().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let network = tokio::spawn(async move {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(server).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
            let (frames, requests) = mpsc::channel(4);
            let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
            let mut client = QueuesClient::new(channel);
            let mut responses = client.consume(ReceiverStream::new(requests)).await.unwrap().into_inner();
            responses.message().await.unwrap().unwrap();
            Self { frames, responses, network, ends }
        }

        async fn send_frame(&self) {
            let frame = Some(consume_request::Frame::Drain(Drain {}));
            self.frames.send(ConsumeRequest { frame }).await.unwrap();
        }
    }

    /// Closing is deliberate, and what was sent before it is read.
    #[tokio::test]
    async fn half_close_is_deliberate() {
        let Rig { mut ends, frames, responses, network, .. } = {
            let rig = Rig::open().await;
            rig.send_frame().await;
            rig
        };
        drop(frames);
        assert_eq!(ends.recv().await, Some((StreamEnd::Deliberate, 1)));
        drop((responses, network));
    }

    /// A cancelled call burns no attempts, and what was sent before it is read. Python, Go and Java cancel like this;
    /// a tonic client that drops both halves only half-closes.
    #[tokio::test]
    async fn cancel_is_deliberate() {
        let (address, mut ends) = serve().await;
        let tcp = TcpStream::connect(address).await.unwrap();
        let (h2, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://{address}/ackwell.v1.Queues/Consume"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (response, mut frames) = h2.ready().await.unwrap().send_request(request, false).unwrap();
        let empty_message = bytes::Bytes::from_static(&[0; 5]);
        frames.send_data(empty_message, false).unwrap();
        let mut body = response.await.unwrap().into_body();
        body.data().await.unwrap().unwrap();
        frames.send_reset(h2::Reason::CANCEL);
        assert_eq!(ends.recv().await, Some((StreamEnd::Deliberate, 1)));
    }

    /// A process that died is told apart from one that left.
    #[tokio::test]
    async fn cut_connection_is_broken() {
        let Rig { mut ends, frames, responses, network, .. } = Rig::open().await;
        network.abort();
        assert_eq!(ends.recv().await, Some((StreamEnd::Broken, 0)));
        drop((frames, responses));
    }
}
