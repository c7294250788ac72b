//! What the Secret holds. Whatever is damaged is simply not there: the next step makes it anew.

use std::collections::BTreeMap;
use std::str;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{KeyPair, PublicKeyData};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::BACKDATE;
use super::step::after;

/// `data` of a Secret.
pub type SecretData = BTreeMap<String, ByteString>;

pub(super) const AUTHORITY: &str = "ca.crt";
pub(super) const AUTHORITY_KEY: &str = "ca.key";
pub(super) const PREVIOUS: &str = "previous-ca.crt";
pub(super) const LEAF: &str = "tls.crt";
pub(super) const LEAF_KEY: &str = "tls.key";

/// What a Secret holds, as far as it can be used.
#[derive(Debug, Default)]
pub struct Content {
    pub(super) authority: Option<Certificate>,
    /// Only if it is the authority's.
    pub(super) authority_key: Option<KeyPair>,
    pub(super) previous: Option<Certificate>,
    pub(super) leaf: Option<Leaf>,
}

/// A certificate, with what decisions need of it.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) pem: String,
    der: CertificateDer<'static>,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// What is served, with its own key.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) certificate: Certificate,
    pub(super) key_pem: String,
}

/// Who signed the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Issuer {
    Current,
    Previous,
}

impl Content {
    /// Reads what can be read.
    pub fn read(data: &SecretData) -> Self {
        let certificate = |key| Certificate::read(text(data, key)?);
        let authority = certificate(AUTHORITY);
        let authority_key = authority.as_ref().and_then(|authority| {
            let key = KeyPair::from_pem(text(data, AUTHORITY_KEY)?).ok()?;
            authority.is_of(&key).then_some(key)
        });
        let leaf = certificate(LEAF).and_then(|leaf| Leaf::read(leaf, text(data, LEAF_KEY)?));
        Self { authority, authority_key, previous: certificate(PREVIOUS), leaf }
    }

    /// Whom to trust: the authority, and the one before it while something it signed may be served.
    pub fn bundle(&self) -> Option<String> {
        let authority = self.authority.as_ref()?;
        Some(format!("{}{}", authority.pem, self.previous.as_ref().map_or("", |previous| &previous.pem)))
    }

    /// What to serve, if it can be.
    pub fn certified_key(&self) -> Option<CertifiedKey> {
        self.leaf.as_ref().and_then(Leaf::certified_key)
    }

    pub(super) fn issuer(&self) -> Option<Issuer> {
        let leaf = &self.leaf.as_ref()?.certificate;
        let signed = |by: &Option<Certificate>| by.as_ref().is_some_and(|by| leaf.is_signed_by(by));
        match (signed(&self.authority), signed(&self.previous)) {
            (true, _) => Some(Issuer::Current),
            (false, true) => Some(Issuer::Previous),
            (false, false) => None,
        }
    }
}

impl Certificate {
    fn read(pem: &str) -> Option<Self> {
        let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
        let der = found.next()?.ok()?;
        if found.next().is_some() {
            return None;
        }
        let (from, until) = parse(&der).and_then(|certificate| {
            let validity = certificate.validity();
            let time = |seconds| Timestamp::from_second(seconds).ok();
            Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
        })?;
        Some(Self { pem: format!("{}\n", pem.trim()), der, from, until })
    }

    /// When it was made: it is valid from a little earlier.
    pub(super) fn made(&self) -> Timestamp {
        after(self.from, BACKDATE)
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whether clients that call any of `names` accept it.
    pub(super) fn covers(&self, names: &[String]) -> bool {
        let Some(certificate) = parse(&self.der) else { return false };
        let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return false };
        let general = &alternatives.value.general_names;
        names.iter().all(|name| general.contains(&GeneralName::DNSName(name)))
    }

    fn is_of(&self, key: &KeyPair) -> bool {
        parse(&self.der)
            .is_some_and(|certificate| certificate.public_key().raw == key.subject_public_key_info())
    }

    pub(super) fn is_signed_by(&self, issuer: &Self) -> bool {
        let (Some(own), Some(issuer)) = (parse(&self.der), parse(&issuer.der)) else { return false };
        own.issuer() == issuer.subject() && own.verify_signature(Some(issuer.public_key())).is_ok()
    }
}

impl Leaf {
    fn read(certificate: Certificate, key_pem: &str) -> Option<Self> {
        let leaf = Self { certificate, key_pem: key_pem.to_owned() };
        leaf.certified_key().is_some().then_some(leaf)
    }

    fn certified_key(&self) -> Option<CertifiedKey> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).ok()?;
        let key = ring::sign::any_supported_type(&key).ok()?;
        let certified = CertifiedKey::new(vec![self.certificate.der.clone()], key);
        certified.keys_match().is_ok().then_some(certified)
    }
}

/// What a Secret of `kubernetes.io/tls` holds.
pub(super) fn leaf_data(certificate: &str, key: &str) -> SecretData {
    [(LEAF, certificate), (LEAF_KEY, key)]
        .map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())))
        .into()
}

fn text<'a>(data: &'a SecretData, key: &str) -> Option<&'a str> {
    str::from_utf8(&data.get(key)?.0).ok()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate)
}
