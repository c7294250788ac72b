//! What a broker shows.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::ServerFiles;
use super::files::{Followed, follow};

/// The certificate of a broker, as its files have it.
pub(crate) struct Identity {
    pub(super) acceptor: TlsAcceptor,
    pub(super) plain_loopback: bool,
}

#[derive(Debug)]
struct Shown(Followed<CertifiedKey>);

impl Identity {
    /// Reads the files now, and again whenever they change.
    pub(crate) fn load(files: ServerFiles) -> anyhow::Result<Self> {
        let ServerFiles { certificate, key, plain_loopback } = files;
        let shown = Shown(follow("certificate", [certificate, key], certified_key)?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), plain_loopback })
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// A key that is not the certificate's shows that one of both files is still the old one.
fn certified_key([certificate, key]: &[Vec<u8>; 2]) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .context("read the certificate")?;
    ensure!(!chain.is_empty(), "the file has no certificate in PEM");
    let key = PrivateKeyDer::from_pem_slice(key).context("read the key")?;
    let key = ring::sign::any_supported_type(&key).context("use the key")?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().context("the key is not the certificate's")?;
    Ok(certified)
}
