//! Whom a sidecar trusts, and a shard that calls others.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, ensure};
use hyper_util::rt::TokioIo;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::ServerFiles;
use super::files::{Followed, follow};
use super::server::certified_key;

/// Whom to believe that they are a broker.
#[derive(Clone, Debug, Default)]
pub(crate) enum Trust {
    /// Whoever answers: on one machine only.
    #[default]
    Anyone,
    /// Who shows a certificate of these authorities, for the name that was dialled.
    Authorities(Arc<Followed<ClientConfig>>),
}

impl Trust {
    /// Reads the authorities now, and again whenever the file changes; without a file everybody is trusted.
    pub(crate) fn load(authorities: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(file) = authorities else { return Ok(Self::Anyone) };
        Ok(Self::Authorities(Arc::new(follow("authorities", [file], config)?)))
    }

    /// The same of one who shows a certificate itself.
    pub(super) fn of_shard(authorities: PathBuf, own: &ServerFiles) -> anyhow::Result<Self> {
        let files = [authorities, own.certificate.clone(), own.key.clone()];
        Ok(Self::Authorities(Arc::new(follow("certificates of the shards", files, config_of_shard)?)))
    }

    /// Connects when first used, and again, with the authorities of that time, after the connection broke.
    pub(crate) fn channel(&self, endpoint: &Endpoint) -> Channel {
        match self {
            Self::Anyone => endpoint.connect_lazy(),
            Self::Authorities(config) => endpoint.connect_with_connector_lazy(Verified(Arc::clone(config))),
        }
    }
}

fn config([bundle]: &[Vec<u8>; 1]) -> anyhow::Result<ClientConfig> {
    Ok(over_http2(builder(bundle)?.with_no_client_auth()))
}

fn config_of_shard([bundle, certificate, key]: &[Vec<u8>; 3]) -> anyhow::Result<ClientConfig> {
    let own = SingleCertAndKey::from(certified_key(certificate, key)?);
    Ok(over_http2(builder(bundle)?.with_client_cert_resolver(Arc::new(own))))
}

fn builder(bundle: &[u8]) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("set up TLS")?;
    Ok(builder.with_root_certificates(roots(bundle)?))
}

fn over_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The authorities of a file in PEM.
pub(super) fn roots(bundle: &[u8]) -> anyhow::Result<RootCertStore> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(bundle).collect::<Result<_, _>>().context("read the certificates")?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    ensure!(usable > 0, "the file has no certificate in PEM that can be used");
    Ok(roots)
}

/// Makes connections to those who prove to be who was dialled.
struct Verified(Arc<Followed<ClientConfig>>);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl Service<Uri> for Verified {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        Box::pin(connect(uri, self.0.current()))
    }
}

async fn connect(uri: Uri, config: Arc<ClientConfig>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().ok_or_else(|| io::Error::other("the broker's address has no port"))?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    Ok(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
}
