//! The other shards of a queue: what this one shows when it calls them, and whom it takes for one of them.
//!
//! A shard shows, as a caller too, the certificate that it shows to callers: its Secret is mounted by the brokers of its queue and
//! by nobody else. Whoever says to be a shard has to show what that shard would show if it were dialled.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ackwell_proto::{Failure, Reason};
use anyhow::Context;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{ServerName, UnixTime};
use tonic::transport::{Channel, Endpoint};

use super::client::{Trust, roots};
use super::files::{Followed, follow};
use super::{Chain, ServerFiles};
use crate::clock;

/// Whoever has to do with moving messages.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Kind>);

enum Kind {
    /// Whoever calls, and whoever answers: on one machine only.
    Anyone,
    /// There are certificates, but nothing to compare them with.
    Nobody,
    Certified {
        authorities: PathBuf,
        own: ServerFiles,
        /// Read when it is needed first: most queues never move.
        known: Mutex<Option<Known>>,
    },
}

#[derive(Clone)]
struct Known {
    trust: Trust,
    verifier: Arc<Followed<WebPkiServerVerifier>>,
}

impl Peers {
    pub(crate) fn new(own: Option<ServerFiles>, authorities: Option<PathBuf>) -> Self {
        let kind = match (own, authorities) {
            (None, _) => Kind::Anyone,
            (Some(_), None) => Kind::Nobody,
            (Some(own), Some(authorities)) => Kind::Certified { authorities, own, known: Mutex::default() },
        };
        Self(Arc::new(kind))
    }

    /// Whether nobody has to prove to be a shard.
    pub(crate) fn are_anyone(&self) -> bool {
        matches!(*self.0, Kind::Anyone)
    }

    /// A connection to the shard at `address`, made when it is first used, with limits of time for that and for each call.
    pub(crate) fn dial(&self, address: &str, connect: Duration, call: Duration) -> Result<Channel, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            Failure::invalid(format!("shard address {address:?} is not host:port: {error}"))
        })?;
        let endpoint = endpoint.connect_timeout(connect).timeout(call).tcp_nodelay(true);
        self.channel(&endpoint).map_err(|error| {
            Failure::new(Reason::BrokerUnavailable, format!("certificates of the shards: {error:#}"))
        })
    }

    /// The other side has to prove that it is the shard that was dialled.
    fn channel(&self, endpoint: &Endpoint) -> anyhow::Result<Channel> {
        Ok(self.known()?.map_or_else(|| endpoint.connect_lazy(), |known| known.trust.channel(endpoint)))
    }

    /// Whether a caller that showed `chain` is the shard with this address (`host:port`).
    pub(crate) fn is(&self, chain: &Chain, address: &str) -> anyhow::Result<()> {
        let Some(known) = self.known()? else { return Ok(()) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host).context("the address of the shard has no name")?;
        let (own, between) = chain.split_first().context("no certificate was shown")?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(clock::now().0));
        known.verifier.current().verify_server_cert(own, between, &name, &[], now)?;
        Ok(())
    }

    /// None: everybody is trusted.
    fn known(&self) -> anyhow::Result<Option<Known>> {
        let (authorities, own, known) = match &*self.0 {
            Kind::Anyone => return Ok(None),
            Kind::Nobody => {
                anyhow::bail!("this broker was started without --broker-ca: it can know no other")
            }
            Kind::Certified { authorities, own, known } => (authorities, own, known),
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            let trust = Trust::of_shard(authorities.clone(), own)?;
            let verifier = follow("authorities of the shards", [authorities.clone()], verifier)?;
            *known = Some(Known { trust, verifier: Arc::new(verifier) });
        }
        Ok(known.clone())
    }
}

fn verifier([bundle]: &[Vec<u8>; 1]) -> anyhow::Result<WebPkiServerVerifier> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(bundle)?), provider).build()?;
    Arc::into_inner(verifier).context("a verifier that was just made is nobody else's")
}
