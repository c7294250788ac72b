//! Makes authorities and what they sign.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::content::{self, Content, SecretData};
use super::step::{Step, after};
use super::{BACKDATE, Policy};

/// The Secret after `step`. A step that finds no authority begins with one.
pub fn carry_out(
    step: Step,
    content: &Content,
    now: Timestamp,
    policy: &Policy,
) -> Result<SecretData, Error> {
    match (step, &content.authority, &content.authority_key) {
        (Step::NewLeaf(_), Some(authority), Some(key)) => {
            let leaf =
                webhook_leaf(&Issuer::from_ca_cert_der(authority.der(), key)?, now, authority.until, policy)?;
            Ok(data(&Pair::of(&authority.pem, key), previous(content), &leaf))
        }
        (Step::ForgetPrevious | Step::Rest { .. }, Some(authority), Some(key)) if content.leaf.is_some() => {
            let kept = previous(content).filter(|_| step != Step::ForgetPrevious);
            Ok(data(&Pair::of(&authority.pem, key), kept, &kept_leaf(content).unwrap_or_default()))
        }
        _ => new_authority(content, now, policy),
    }
}

/// What is served stays, and with it the trust in who signed it: API servers learn of the new authority first.
fn new_authority(content: &Content, now: Timestamp, policy: &Policy) -> Result<SecretData, Error> {
    let (params, key) = authority(now, policy)?;
    let pair = Pair::of(&params.self_signed(&key)?.pem(), &key);
    let until = after(now, policy.lifetimes.authority);
    if let Some((leaf, issuer)) =
        kept_leaf(content).filter(|_| usable(content, now, policy)).zip(issuer(content))
    {
        return Ok(data(&pair, Some(issuer), &leaf));
    }
    let leaf = webhook_leaf(&Issuer::new(params, &key), now, until, policy)?;
    let old = content.authority.as_ref().filter(|old| now < old.until);
    Ok(data(&pair, old.map(|old| old.pem.as_str()), &leaf))
}

/// Never outlives its issuer: it would be refused from then on.
fn webhook_leaf(
    issuer: &Issuer<'_, &KeyPair>,
    now: Timestamp,
    issuer_until: Timestamp,
    policy: &Policy,
) -> Result<Pair, Error> {
    let until = after(now, policy.lifetimes.leaf).min(issuer_until);
    Pair::leaf(issuer, "ackwell-operator webhook", &policy.names, now, until)
}

fn usable(content: &Content, now: Timestamp, policy: &Policy) -> bool {
    let leaf = content.leaf.as_ref().map(|leaf| &leaf.certificate);
    leaf.is_some_and(|leaf| leaf.from <= now && now < leaf.until && leaf.covers(&policy.names))
}

fn issuer(content: &Content) -> Option<&str> {
    match content.issuer()? {
        content::Issuer::Current => content.authority.as_ref().map(|authority| authority.pem.as_str()),
        content::Issuer::Previous => previous(content),
    }
}

fn previous(content: &Content) -> Option<&str> {
    content.previous.as_ref().map(|previous| previous.pem.as_str())
}

fn kept_leaf(content: &Content) -> Option<Pair> {
    let leaf = content.leaf.as_ref()?;
    Some(Pair { certificate: leaf.certificate.pem.clone(), key: leaf.key_pem.clone() })
}

/// A certificate and its key, as PEM.
#[derive(Default)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Pair {
    fn of(certificate: &str, key: &KeyPair) -> Self {
        Self { certificate: certificate.to_owned(), key: key.serialize_pem() }
    }

    /// For a server that is called by any of `names`.
    pub(super) fn leaf(
        issuer: &Issuer<'_, &KeyPair>,
        common_name: &str,
        names: &[String],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = params(common_name, names.to_vec())?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, until);
        Ok(Self::of(&params.signed_by(&key, issuer)?.pem(), &key))
    }
}

/// The name tells authorities apart, for people and for the verifiers that look issuers up by name.
fn authority(now: Timestamp, policy: &Policy) -> Result<(CertificateParams, KeyPair), Error> {
    let mut params = params(&format!("ackwell authority {now:.3}"), Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    valid(&mut params, now, after(now, policy.lifetimes.authority));
    Ok((params, KeyPair::generate()?))
}

fn params(common_name: &str, names: Vec<String>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

fn valid(params: &mut CertificateParams, now: Timestamp, until: Timestamp) {
    params.not_before = offset(now.checked_sub(BACKDATE).unwrap_or(Timestamp::MIN));
    params.not_after = offset(until);
}

fn offset(time: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.as_second())
        .expect("both types hold the years -9999 to 9999, and no certificate is asked for outside of them")
}

fn data(authority: &Pair, previous: Option<&str>, leaf: &Pair) -> SecretData {
    let mut entries = vec![
        (content::AUTHORITY, authority.certificate.as_str()),
        (content::AUTHORITY_KEY, authority.key.as_str()),
        (content::LEAF, leaf.certificate.as_str()),
        (content::LEAF_KEY, leaf.key.as_str()),
    ];
    entries.extend(previous.map(|previous| (content::PREVIOUS, previous)));
    entries.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
}
