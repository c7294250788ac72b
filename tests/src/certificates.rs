//! Authorities and certificates of a test, and who shows which.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Who signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// What a broker shows, in files of its own folder.
pub struct Shown {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a machine has randomness");
        let certificate = params.self_signed(&key).expect("the parameters are sound").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.certificate
    }

    /// Replaces what is in `shown` by a new certificate for `name` that is valid for `life`.
    #[expect(clippy::disallowed_methods, reason = "certificates are valid from a time of the real clock")]
    pub fn issue(&self, name: &str, life: Duration, shown: &Shown) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(1)).into();
        params.not_after = (now + life).into();
        let key = KeyPair::generate().expect("a machine has randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("the parameters are sound").pem();
        replace(&shown.key, &key.serialize_pem());
        replace(&shown.certificate, &certificate);
    }
}

impl Shown {
    /// Files in `folder`, not written yet.
    pub fn in_folder(folder: &Path) -> Self {
        Self { certificate: folder.join("tls.crt"), key: folder.join("tls.key") }
    }

    /// The flags of a broker that shows it.
    pub fn flags(&self) -> [&str; 4] {
        ["--tls-cert", text(&self.certificate), "--tls-key", text(&self.key)]
    }

    /// A server of HTTP/2 that shows it.
    pub fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key is there");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![self.current()], key)
            .expect("the key is the certificate's");
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// The certificate in the file.
    pub fn current(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).expect("a certificate is there")
    }
}

/// Replaces a file as a whole.
pub fn replace(file: &Path, content: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).expect("a test can write into its own folder");
    std::fs::rename(&new, file).expect("a test can write into its own folder");
}

/// A path of a test, which is plain text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are plain text")
}

/// A connection of one who trusts `bundle`, and shows a certificate or none.
pub async fn connect_as(address: SocketAddr, bundle: &str, own: Option<&Shown>) -> anyhow::Result<Channel> {
    let mut config = trusting(bundle, own)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TokioIo::new(connect(address, config).await?);
    let mut once = Some(stream);
    let connector = service_fn(move |_: Uri| {
        let stream = once.take().ok_or_else(|| io::Error::other("it broke"));
        async move { stream }
    });
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector(connector).await?)
}

fn trusting(bundle: &str, own: Option<&Shown>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.context("read the bundle")?).context("trust the bundle")?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(&own.key).context("read the key")?;
    Ok(builder.with_client_auth_cert(vec![own.current()], key)?)
}

async fn connect(address: SocketAddr, config: ClientConfig) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.context("connect")?;
    let name = ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST)));
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("shake hands")
}

/// The certificate that is shown to one who trusts `bundle`.
pub async fn shown_at(address: SocketAddr, bundle: &str) -> anyhow::Result<CertificateDer<'static>> {
    let stream = connect(address, trusting(bundle, None)?).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().first().cloned();
    shown.context("a certificate was shown")
}
