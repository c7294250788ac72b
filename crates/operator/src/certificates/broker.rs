//! The certificates of a Queue's brokers: one Secret each, signed by the authority of the webhook's.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rcgen::Issuer;
use tokio::sync::watch;

use super::content::{self, Certificate, Content, SecretData};
use super::issue::Pair;
use super::step::{after, renewal};
use super::{Cause, Lifetimes, Observed, Policy, Step, carry_out};
use crate::clock;

/// How long the certificate of a broker lives. It is renewed after two thirds: ten days in which an operator may be away
/// before anything is refused.
const LIFE: Duration = Duration::from_hours(24 * 30);
/// How long a new authority only is trusted before the brokers' certificates are signed by it: `ConfigMaps` reach pods
/// within two minutes, in busy clusters later.
const SETTLE: Duration = Duration::from_mins(10);

/// Whose certificate it is.
const COMMON_NAME: &str = "ackwell broker";

/// The authority, as its Secret was last seen.
#[derive(Clone)]
pub(crate) struct Authority(watch::Receiver<Observed<Secret>>);

impl Authority {
    pub(crate) fn new(secret: watch::Receiver<Observed<Secret>>) -> Self {
        Self(secret)
    }

    /// One of its own, which nobody renews and nobody else knows.
    pub(crate) fn unkept() -> Self {
        let policy = Policy::for_service("", "", Lifetimes::default());
        let step = Step::NewAuthority(Cause::Unusable);
        let data = carry_out(step, &Content::default(), clock::now().0, &policy).ok();
        let secret = Secret { data, ..Secret::default() };
        Self(watch::channel(Observed::Present(Arc::new(secret))).1)
    }

    /// What can be used of it.
    pub(crate) fn content(&self) -> Content {
        let Observed::Present(secret) = self.0.borrow().clone() else { return Content::default() };
        secret.data.as_ref().map(Content::read).unwrap_or_default()
    }

    /// Each change of it, and its first appearance.
    pub(crate) fn changes(&self) -> watch::Receiver<Observed<Secret>> {
        self.0.clone()
    }
}

/// Until when the certificate in `data` is good for `names`; from then on it is to be replaced.
pub(crate) fn good_until(
    data: &SecretData,
    authority: &Content,
    names: &[String],
    now: Timestamp,
) -> Timestamp {
    let leaf = Content::read(data).leaf.map(|leaf| leaf.certificate);
    let Some(leaf) = leaf.filter(|leaf| leaf.from <= now && leaf.covers(names)) else { return now };
    let signed_by = |by: &Option<Certificate>| by.as_ref().is_some_and(|by| leaf.is_signed_by(by));
    match &authority.authority {
        Some(current) if leaf.is_signed_by(current) => renewal(&leaf),
        Some(current) if signed_by(&authority.previous) => {
            renewal(&leaf).min(after(current.made(), SETTLE)).min(leaf.until)
        }
        _ => now,
    }
}

/// A new certificate for `names`, or nothing while there is no authority.
pub(crate) fn issue(
    authority: &Content,
    names: &[String],
    now: Timestamp,
) -> Result<Option<SecretData>, rcgen::Error> {
    issue_for(authority, names, now, LIFE)
}

/// The same for so long.
pub(crate) fn issue_for(
    authority: &Content,
    names: &[String],
    now: Timestamp,
    life: Duration,
) -> Result<Option<SecretData>, rcgen::Error> {
    let (Some(certificate), Some(key)) = (&authority.authority, &authority.authority_key) else {
        return Ok(None);
    };
    let issuer = Issuer::from_ca_cert_der(certificate.der(), key)?;
    let until = after(now, life).min(certificate.until);
    let leaf = Pair::leaf(&issuer, COMMON_NAME, names, now, until)?;
    Ok(Some(content::leaf_data(&leaf.certificate, &leaf.key)))
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::SignedDuration;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;
    use crate::certificates::next_step;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn start() -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }

    fn policy() -> Policy {
        Policy::for_service("ackwell-webhook", "ackwell-system", Lifetimes::default())
    }

    fn names() -> Vec<String> {
        ackwell_api::names::server_names("shop", "orders")
    }

    /// The authority after every step that is due.
    fn settled(mut data: SecretData, now: Timestamp) -> SecretData {
        loop {
            let content = Content::read(&data);
            match next_step(&content, now, &policy()) {
                Step::Rest { .. } => return data,
                step => data = carry_out(step, &content, now, &policy()).unwrap(),
            }
        }
    }

    /// A new authority, in its Secret.
    pub(crate) fn fresh() -> SecretData {
        settled(SecretData::new(), clock::now().0)
    }

    pub(crate) fn authority_of(data: &SecretData) -> Authority {
        let secret = Secret { data: Some(data.clone()), ..Secret::default() };
        Authority::new(watch::channel(Observed::Present(Arc::new(secret))).1)
    }

    /// Certificate and key of the brokers of `shop/QUEUE`.
    pub(crate) fn identity(authority: &SecretData, queue: &str) -> (String, String) {
        let names = ackwell_api::names::server_names("shop", queue);
        let data = issue(&Content::read(authority), &names, clock::now().0).unwrap().unwrap();
        let text = |key| String::from_utf8(data[key].0.clone()).unwrap();
        (text(content::LEAF), text(content::LEAF_KEY))
    }

    fn issued(authority: &SecretData, now: Timestamp) -> SecretData {
        issue(&Content::read(authority), &names(), now).unwrap().unwrap()
    }

    /// As a sidecar does it, which dials `name`.
    fn accepts(bundle: &str, shown: &SecretData, name: &str, now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        let trusted = CertificateDer::pem_slice_iter(bundle.as_bytes());
        roots.add_parsable_certificates(trusted.map(Result::unwrap));
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_slice(&shown[content::LEAF].0).unwrap();
        let time = Duration::from_secs(u64::try_from(now.as_second()).unwrap());
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::since_unix_epoch(time)).is_ok()
    }

    /// Sidecars dial any shard, and each one by its own name; nobody else's names are good.
    #[test]
    fn certificate_is_good_for_the_names_that_sidecars_dial_and_no_others() {
        let authority = settled(SecretData::new(), start());
        let shown = issued(&authority, start());
        let bundle = Content::read(&authority).bundle().unwrap();
        for (name, good) in [
            ("ackwell-orders.shop.svc", true),
            ("ackwell-orders.shop.svc.cluster.local", true),
            ("ackwell-orders-0.ackwell-orders-shards.shop.svc", true),
            ("ackwell-orders-63.ackwell-orders-shards.shop.svc.cluster.local", true),
            ("ackwell-orders.other.svc", false),
            ("ackwell-logs.shop.svc", false),
            ("ackwell-webhook.ackwell-system.svc", false),
            ("a.b.ackwell-orders-shards.shop.svc", false),
        ] {
            assert_eq!(accepts(&bundle, &shown, name, start()), good, "{name}");
        }
    }

    /// Over four years, whenever anything changes, what a broker shows is accepted by sidecars that know the bundle of now,
    /// and by those that still have that of ten minutes ago: no handshake fails.
    #[test]
    fn four_years_of_rotations_are_never_refused() {
        let mut authority = settled(SecretData::new(), start());
        let mut shown = issued(&authority, start());
        let mut history = vec![(start(), authority.clone())];
        let (mut now, mut renewed) = (start(), 0);
        while now < start() + HOUR * 24 * 365 * 4 {
            authority = settled(authority, now);
            history.push((now, authority.clone()));
            let content = Content::read(&authority);
            if good_until(&shown, &content, &names(), now) <= now {
                shown = issued(&authority, now);
                renewed += 1;
            }
            let stale = history.iter().rfind(|(since, _)| *since <= now - SignedDuration::from_mins(10));
            for known in [&authority, stale.map_or(&authority, |(_, known)| known)] {
                let bundle = Content::read(known).bundle().unwrap();
                let name = "ackwell-orders-0.ackwell-orders-shards.shop.svc";
                assert!(accepts(&bundle, &shown, name, now), "at {now}");
            }
            let Step::Rest { until } = next_step(&content, now, &policy()) else { panic!("it has settled") };
            now = until.min(good_until(&shown, &content, &names(), now));
        }
        history.dedup_by_key(|(_, data)| data[content::AUTHORITY].clone());
        assert!(renewed > 60 && history.len() == 6, "{renewed} renewals, {} authorities", history.len());
    }

    /// Whatever is wrong with the Secret leads to a new certificate at once.
    #[test]
    fn damaged_foreign_and_renamed_certificates_are_replaced_at_once() {
        let authority = settled(SecretData::new(), start());
        let content = Content::read(&authority);
        let (good, now) = (issued(&authority, start()), start() + HOUR);
        assert!(good_until(&good, &content, &names(), now) > now);
        let mut damaged = good.clone();
        damaged.remove(content::LEAF_KEY);
        let stranger = issued(&settled(SecretData::new(), start()), start());
        for bad in [&SecretData::new(), &damaged, &stranger] {
            assert_eq!(good_until(bad, &content, &names(), now), now);
        }
        let other = ackwell_api::names::server_names("shop", "logs");
        assert_eq!(good_until(&good, &content, &other, now), now);
        assert_eq!(good_until(&good, &Content::default(), &names(), now), now, "nobody trusts it any more");
    }

    /// While there is no authority yet nothing is issued; the Queue waits.
    #[test]
    fn nothing_is_issued_without_an_authority() {
        assert!(issue(&Content::default(), &names(), start()).unwrap().is_none());
    }

    /// A certificate of the authority that was replaced is kept until sidecars know the new one.
    #[test]
    fn new_authority_signs_after_it_had_time_to_be_known() {
        let old = settled(SecretData::new(), start());
        let shown = issued(&old, start() + HOUR * 24 * 240);
        let due = start() + HOUR * 24 * 250;
        let old = Content::read(&old);
        let new = carry_out(Step::NewAuthority(Cause::Due), &old, due, &policy()).unwrap();
        let until = good_until(&shown, &Content::read(&new), &names(), due);
        assert_eq!(until, due + SignedDuration::from_mins(10));
    }
}
