//! Connections as they come in: bounded in number, each with its handshake done before it costs more than that.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use super::Identity;

/// Connections at once. Each sidecar has one, so that this is the number of pods that use a shard.
const MAX_CONNECTIONS: usize = 8192;
/// Of one address at once: many pods may share one behind a gateway, but nobody takes all.
const MAX_CONNECTIONS_PER_ADDRESS: usize = 1024;
/// A handshake takes milliseconds, on a busy machine more; one that never ends holds its place this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Accepting fails when descriptors run out; some may be closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Accepted and not taken by the server yet, which takes them at once.
const ACCEPTED: usize = 16;
/// How a TLS record with a handshake begins; HTTP begins with a letter.
const TLS_HANDSHAKE: u8 = 0x16;

/// Accepted connections, in the order in which their handshakes end.
pub(crate) struct Incoming {
    accepted: ReceiverStream<io::Result<Connection>>,
    _task: AbortOnDropHandle<()>,
}

/// Accepts on `listener`, with TLS where there is an identity to show.
pub(crate) fn accept(listener: TcpListener, identity: Option<Identity>) -> Incoming {
    let (sender, accepted) = mpsc::channel(ACCEPTED);
    let door = Door { places: Arc::default(), identity: identity.map(Arc::new), sender };
    let task = AbortOnDropHandle::new(tokio::spawn(door.open(listener)));
    Incoming { accepted: ReceiverStream::new(accepted), _task: task }
}

struct Door {
    places: Arc<Places>,
    identity: Option<Arc<Identity>>,
    sender: mpsc::Sender<io::Result<Connection>>,
}

impl Door {
    async fn open(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// One that finds no place is closed at once: its peer tries again, and nobody waits behind it.
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = Place::take(&self.places, peer.ip()) else {
            tracing::debug!(%peer, "refused a connection: too many are open");
            return;
        };
        let (identity, sender) = (self.identity.clone(), self.sender.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, secure(stream, peer, identity.as_deref())).await {
                // A closed channel means that the server stops.
                Ok(Ok(stream)) => drop(sender.send(Ok(Connection { stream, peer, _place: place })).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%peer, "a handshake did not end in time"),
            }
        });
    }
}

async fn secure(stream: TcpStream, peer: SocketAddr, identity: Option<&Identity>) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    match identity {
        None => Ok(Stream::Plain(stream)),
        Some(identity) if identity.plain_loopback && is_plain(&stream, peer).await? => {
            Ok(Stream::Plain(stream))
        }
        Some(identity) => Ok(Stream::Tls(Box::new(identity.acceptor.accept(stream).await?))),
    }
}

/// Whether it comes from this machine's own loopback and speaks no TLS.
async fn is_plain(stream: &TcpStream, peer: SocketAddr) -> io::Result<bool> {
    if !peer.ip().to_canonical().is_loopback() {
        return Ok(false);
    }
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE)
}

/// Open connections, by address.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

/// One open connection's.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Place {
    fn take(places: &Arc<Places>, address: IpAddr) -> Option<Self> {
        let mut open = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= MAX_CONNECTIONS {
            return None;
        }
        let count = open.entry(address).or_default();
        if *count >= MAX_CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self { places: Arc::clone(places), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// A connection whose handshake is done.
pub(crate) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    _place: Place,
}

enum Stream {
    Plain(TcpStream),
    /// Several times the size of the other.
    Tls(Box<TlsStream<TcpStream>>),
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.accepted).poll_next(context)
    }
}

/// The certificate that a peer showed, and those between it and its authority; none: it showed none.
#[derive(Clone, Default)]
pub(crate) struct Chain(Arc<[CertificateDer<'static>]>);

impl Deref for Chain {
    type Target = [CertificateDer<'static>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Who is at the other end, as far as the connection shows it.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    pub(crate) chain: Chain,
}

impl Connected for Connection {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        let chain = match &self.stream {
            Stream::Plain(_) => Chain::default(),
            Stream::Tls(stream) => Chain(stream.get_ref().1.peer_certificates().unwrap_or_default().into()),
        };
        Remote { address: self.peer, chain }
    }
}

/// Calls a method of whichever stream it is.
macro_rules! either {
    ($connection:ident, $method:ident($($argument:expr),*)) => {
        match &mut $connection.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(context, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, poll_write_vectored(context, data))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: one address never takes all places, and a place that is given back is taken again.
    #[test]
    fn places_are_bounded_per_address_and_in_all() {
        let places = Arc::<Places>::default();
        let from = |number: u8| IpAddr::from([10, 0, 0, number]);
        let mut held: Vec<_> = std::iter::from_fn(|| Place::take(&places, from(1))).collect();
        assert_eq!(held.len(), MAX_CONNECTIONS_PER_ADDRESS);
        let other = Place::take(&places, from(2));
        assert!(other.is_some(), "another address");
        drop(held.pop());
        assert!(Place::take(&places, from(1)).is_some());
        let rest: Vec<_> = (3..=u8::MAX).map_while(|number| Place::take(&places, from(number))).collect();
        let full = || Place::take(&places, from(2)).is_none();
        let more: Vec<_> = (3..11)
            .flat_map(|number| std::iter::from_fn(move || Some(number)).take(MAX_CONNECTIONS_PER_ADDRESS))
            .filter_map(|number| Place::take(&places, from(number)))
            .collect();
        assert_eq!(held.len() + rest.len() + more.len() + 1, MAX_CONNECTIONS);
        assert!(full());
        drop((held, other, rest, more));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
