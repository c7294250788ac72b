use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::content::{AUTHORITY, AUTHORITY_KEY, LEAF, LEAF_KEY, PREVIOUS};
use super::*;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

fn policy() -> Policy {
    Policy::for_service("ackwell-webhook", "ackwell-system", Lifetimes::default())
}

fn start() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// Carries out every step that is due; answers the steps, too.
fn settle(data: &SecretData, now: Timestamp) -> (SecretData, Vec<Step>) {
    let (mut data, mut steps) = (data.clone(), Vec::new());
    loop {
        let content = Content::read(&data);
        match next_step(&content, now, &policy()) {
            Step::Rest { until } => {
                assert!(until > now, "a step that is due is not a rest");
                return (data, steps);
            }
            step => {
                data = carry_out(step, &content, now, &policy()).unwrap();
                steps.push(step);
                assert!(steps.len() < 5, "the steps lead nowhere: {steps:?}");
            }
        }
    }
}

fn fresh(now: Timestamp) -> SecretData {
    settle(&SecretData::new(), now).0
}

/// As an API server does it.
fn accepts(trusted: &SecretData, served: &SecretData, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    let bundle = Content::read(trusted).bundle().unwrap();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap));
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let leaf = CertificateDer::from_pem_slice(&served[LEAF].0).unwrap();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap()));
    let name = "ackwell-webhook.ackwell-system.svc".try_into().unwrap();
    verifier.verify_server_cert(&leaf, &[], &name, &[], time).is_ok()
}

/// From nothing to a certificate that API servers accept, also one whose clock is a little behind.
#[test]
fn absent_secret_becomes_a_certificate_that_is_accepted() {
    let (data, steps) = settle(&SecretData::new(), start());
    assert_eq!(steps, [Step::NewAuthority(Cause::Unusable)]);
    assert!(accepts(&data, &data, start()));
    assert!(accepts(&data, &data, start() - SignedDuration::from_mins(4)));
    assert!(!data.contains_key(PREVIOUS));
}

/// No call fails while certificates change: at every step of four years, what is still served is accepted by API servers
/// that know the new bundle, and what is served next by those that still have the old one.
#[test]
fn four_years_of_rotations_are_never_refused() {
    let mut data = fresh(start());
    let (mut now, mut seen) = (start(), Vec::new());
    while now < start() + HOUR * 24 * 365 * 4 {
        let content = Content::read(&data);
        let step = next_step(&content, now, &policy());
        if let Step::Rest { until } = step {
            assert!(accepts(&data, &data, until), "refused at the end of a rest, {until}");
            now = until;
            continue;
        }
        let next = carry_out(step, &content, now, &policy()).unwrap();
        let forgets = step == Step::ForgetPrevious;
        assert!(accepts(&next, &data, now) && accepts(&next, &next, now), "{step:?} at {now}");
        assert!(
            matches!(step, Step::NewAuthority(_)) || forgets || accepts(&data, &next, now),
            "{step:?} at {now}"
        );
        seen.push(step);
        data = next;
    }
    let count = |step| seen.iter().filter(|seen| **seen == step).count();
    assert_eq!(count(Step::NewAuthority(Cause::Due)), 5, "{seen:?}");
    assert_eq!(count(Step::NewLeaf(Cause::Superseded)), 5, "{seen:?}");
    assert_eq!(count(Step::ForgetPrevious), 5, "{seen:?}");
    assert!(count(Step::NewLeaf(Cause::Due)) >= 15, "{seen:?}");
}

/// A new authority signs nothing before API servers had time to learn of it.
#[test]
fn new_authority_is_trusted_before_it_signs_what_is_served() {
    let old = fresh(start());
    let due = start() + HOUR * 24 * 250;
    let (leaf_renewed, _) = settle(&old, start() + HOUR * 24 * 200);
    let (rotated, steps) = settle(&leaf_renewed, due);
    assert_eq!(steps, [Step::NewAuthority(Cause::Due)]);
    assert_eq!(rotated[LEAF], leaf_renewed[LEAF]);
    assert_eq!(rotated[PREVIOUS], old[AUTHORITY]);

    let (waiting, steps) = settle(&rotated, due + SignedDuration::from_secs(59));
    assert_eq!((waiting, steps), (rotated.clone(), vec![]));
    let (moved, steps) = settle(&rotated, due + SignedDuration::from_secs(60));
    assert_eq!(steps, [Step::NewLeaf(Cause::Superseded)]);
    assert!(accepts(&moved, &rotated, due), "replicas that still serve the old one");

    let (last, steps) = settle(&moved, due + HOUR * 24 * 8);
    assert_eq!(steps, [Step::ForgetPrevious]);
    assert!(accepts(&last, &moved, due) && !accepts(&last, &old, due));
}

/// Whatever happens to the Secret, it heals at once, and keeps what is good.
#[test]
fn damaged_secret_heals_and_keeps_what_is_good() {
    let (good, other) = (fresh(start()), fresh(start()));
    let now = start() + HOUR;
    let damages: [(&str, Option<&[u8]>, Step); 8] = [
        (LEAF, None, Step::NewLeaf(Cause::Unusable)),
        (LEAF, Some(b"\xff\xfe"), Step::NewLeaf(Cause::Unusable)),
        (LEAF_KEY, Some(b"-----BEGIN PRIVATE KEY-----\n"), Step::NewLeaf(Cause::Unusable)),
        (LEAF_KEY, Some(&other[LEAF_KEY].0), Step::NewLeaf(Cause::Unusable)),
        (AUTHORITY, None, Step::NewAuthority(Cause::Unusable)),
        (AUTHORITY, Some(&good[LEAF].0), Step::NewAuthority(Cause::Unusable)),
        (AUTHORITY_KEY, None, Step::NewAuthority(Cause::Unusable)),
        (AUTHORITY_KEY, Some(&other[AUTHORITY_KEY].0), Step::NewAuthority(Cause::Unusable)),
    ];
    for (key, value, expected) in damages {
        let mut data = good.clone();
        match value {
            None => drop(data.remove(key)),
            Some(value) => drop(data.insert(key.to_owned(), k8s_openapi::ByteString(value.to_vec()))),
        }
        let (healed, steps) = settle(&data, now);
        assert_eq!(steps, [expected], "{key}");
        assert!(accepts(&healed, &healed, now), "{key}");
        match expected {
            Step::NewLeaf(_) => assert_eq!(healed[AUTHORITY], good[AUTHORITY], "{key}"),
            _ if key == AUTHORITY_KEY => assert_eq!(healed[LEAF], good[LEAF], "{key}: it is still trusted"),
            _ => assert_ne!(healed[LEAF], good[LEAF], "{key}"),
        }
    }
}

/// What someone else put there is replaced: other names, other signers.
#[test]
fn foreign_certificate_is_replaced() {
    let now = start() + HOUR;
    let mut mixed = fresh(start());
    let stranger = fresh(start());
    for key in [LEAF, LEAF_KEY] {
        mixed.insert(key.to_owned(), stranger[key].clone());
    }
    assert_eq!(settle(&mixed, now).1, [Step::NewLeaf(Cause::Unusable)]);

    let renamed = Policy::for_service("other", "ackwell-system", Lifetimes::default());
    let content = Content::read(&fresh(start()));
    assert_eq!(next_step(&content, now, &renamed), Step::NewLeaf(Cause::Unusable));
}

/// An operator that was away for years, or comes back with a clock from the past, starts over.
#[test]
fn certificates_of_another_time_are_replaced() {
    let old = fresh(start());
    for now in [start() + WEEK * 200, start() - WEEK] {
        let (data, steps) = settle(&old, now);
        assert!(matches!(steps[0], Step::NewAuthority(_)), "{steps:?}");
        assert!(accepts(&data, &data, now));
    }
}

/// Lifetimes of minutes work: tests of a cluster use them.
#[test]
fn leaf_never_outlives_its_authority() {
    let lifetimes = Lifetimes { authority: Duration::from_mins(3), ..Lifetimes::default() };
    let policy = Policy { lifetimes, ..policy() };
    let data = carry_out(Step::NewAuthority(Cause::Unusable), &Content::default(), start(), &policy).unwrap();
    let content = Content::read(&data);
    assert_eq!(content.leaf.as_ref().unwrap().certificate.until, content.authority.as_ref().unwrap().until);
    let Step::Rest { until } = next_step(&content, start(), &policy) else { panic!("nothing is due") };
    assert_eq!(until, start() + SignedDuration::from_mins(2));
}
