//! Whom a sidecar trusts, and how it proves who it is; the same of a shard that calls others.

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
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::ServerFiles;
use super::files::{Followed, follow};
use super::server::certified_key;
use crate::traces::{self, TRACEPARENT};

/// Whom to believe that they are a broker, and the token to show them. By default whoever answers, and none: on one machine
/// only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// A broker shows a certificate of these authorities, for the name that was dialled.
    authorities: Option<Arc<Followed<ClientConfig>>>,
    token: Option<Arc<Followed<MetadataValue<Ascii>>>>,
}

/// A connection whose calls say who calls, and as part of which trace.
pub(crate) type Connection = InterceptedService<Channel, Bearer>;

/// The token of this moment: Kubernetes replaces it long before it runs out.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<Arc<Followed<MetadataValue<Ascii>>>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", MetadataValue::clone(&token.current()));
        }
        if let Some(context) = traces::told_on().and_then(|context| context.parse().ok()) {
            request.metadata_mut().insert(TRACEPARENT, context);
        }
        Ok(request)
    }
}

impl Trust {
    /// Reads the files now, and again whenever they change; without authorities everybody is trusted.
    pub(crate) fn load(authorities: Option<PathBuf>, token: Option<PathBuf>) -> anyhow::Result<Self> {
        let authorities = authorities.map(|file| follow("authorities", [file], config)).transpose()?;
        let token = token.map(|file| follow("token", [file], bearer)).transpose()?;
        Ok(Self { authorities: authorities.map(Arc::new), token: token.map(Arc::new) })
    }

    /// The same of one who shows a certificate itself.
    pub(super) fn of_shard(authorities: PathBuf, own: &ServerFiles) -> anyhow::Result<Self> {
        let files = [authorities, own.certificate.clone(), own.key.clone()];
        let authorities = follow("certificates of the shards", files, config_of_shard)?;
        Ok(Self { authorities: Some(Arc::new(authorities)), token: None })
    }

    /// Connects when first used, and again, with the authorities of that time, after the connection broke.
    pub(crate) fn connection(&self, endpoint: &Endpoint) -> Connection {
        InterceptedService::new(self.channel(endpoint), Bearer(self.token.clone()))
    }

    /// The same without a token.
    pub(crate) fn channel(&self, endpoint: &Endpoint) -> Channel {
        match &self.authorities {
            None => endpoint.connect_lazy(),
            Some(config) => endpoint.connect_with_connector_lazy(Verified(Arc::clone(config))),
        }
    }
}

fn bearer([token]: &[Vec<u8>; 1]) -> anyhow::Result<MetadataValue<Ascii>> {
    let token = str::from_utf8(token).context("read the token")?.trim();
    ensure!(!token.is_empty(), "the file has no token");
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().context("read the token")?;
    value.set_sensitive(true);
    Ok(value)
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
