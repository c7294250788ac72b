//! What a broker shows.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
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
        let shown = Shown(follow("certificate", [certificate, key], |[certificate, key]| {
            certified_key(certificate, key)
        })?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?
            .with_client_cert_verifier(Arc::new(Unchecked::new()))
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

/// Takes any certificate, or none, and has its owner prove to have the key. What it is good for is looked at when it is needed:
/// by [`super::Peers`], for the name of a shard.
#[derive(Debug)]
struct Unchecked(WebPkiSupportedAlgorithms);

impl Unchecked {
    fn new() -> Self {
        Self(ring::default_provider().signature_verification_algorithms)
    }
}

impl ClientCertVerifier for Unchecked {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A key that is not the certificate's shows that one of both files is still the old one.
pub(super) fn certified_key(certificate: &[u8], key: &[u8]) -> anyhow::Result<CertifiedKey> {
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
