use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// A key of nobody but these tests.
const RSA_KEY: &[u8] = include_bytes!("tests/rsa.pk8");

/// What signs tokens: an API server of a test.
enum Signer {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    fn ec() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random);
        Self::Ec(key.unwrap())
    }

    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(RSA_KEY).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    /// As an API server publishes it.
    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "alg": "ES256",
                       "x": encoded(x), "y": encoded(y)})
            }
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "kid": id, "alg": "RS256", "n": encoded(n), "e": encoded(e)})
            }
        }
    }

    fn sign(&self, message: &str) -> String {
        let random = SystemRandom::new();
        match self {
            Self::Ec(key) => encoded(key.sign(&random, message.as_bytes()).unwrap().as_ref()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                encoded(&signature)
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        format!("{message}.{}", self.sign(&message))
    }

    /// A token as Kubernetes makes it, changed by `edit`.
    fn edited(&self, id: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({"alg": self.algorithm(), "kid": id, "typ": "JWT"});
        let mut claims = claims();
        edit(&mut header, &mut claims);
        self.token(&header, &claims)
    }

    fn good(&self, id: &str) -> String {
        self.edited(id, |_, _| {})
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn seconds() -> u64 {
    clock::now().0 / 1000
}

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "system:serviceaccount:shop:api",
        "aud": ["ackwell.dev"],
        "iat": seconds() - 60,
        "nbf": seconds() - 60,
        "exp": seconds() + 3600,
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "api", "uid": "1"}},
    })
}

fn access(keys: &[Value], grants: Vec<Grant>) -> Access {
    let keys = json!({"keys": keys}).to_string();
    let operator = "ackwell-system/ackwell".to_owned();
    Access::new(v1::Access { issuer: ISSUER.to_owned(), keys, operator, grants }).unwrap()
}

fn grant(namespace: &str, service_account: &str, verbs: &[v1::Verb]) -> Grant {
    Grant {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        verbs: verbs.iter().map(|verb| i32::from(*verb)).collect(),
    }
}

fn everybody() -> Vec<Grant> {
    vec![grant("shop", "", &[v1::Verb::Send])]
}

fn caller(token: &str) -> Caller {
    let mut request = Request::new(());
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    Caller::of(&request)
}

/// Whose call it is, if it is allowed.
fn allow(access: &Access, token: &str, verb: Verb) -> Result<Arc<str>, Failure> {
    access.allow(&caller(token), verb, &BadTokens::default()).map(|proved| proved.account)
}

/// Promise: tokens that the cluster made for us, and that are valid now, prove who calls, whichever of both algorithms
/// it signs with.
#[test]
fn good_tokens_prove_their_service_account() {
    for signer in [Signer::ec(), Signer::rsa()] {
        let access = access(&[signer.jwk("1")], everybody());
        let some_audiences =
            |_: &mut Value, claims: &mut Value| claims["aud"] = json!(["other", "ackwell.dev"]);
        let one_audience = |_: &mut Value, claims: &mut Value| claims["aud"] = json!("ackwell.dev");
        let slow_clock = |_: &mut Value, claims: &mut Value| claims["nbf"] = json!(seconds() + 5);
        for token in [
            signer.good("1"),
            signer.edited("1", some_audiences),
            signer.edited("1", one_audience),
            signer.edited("1", slow_clock),
        ] {
            assert_eq!(&*allow(&access, &token, Verb::Send).unwrap(), "shop/api", "{token}");
        }
    }
}

/// What a token may lack, and what the refusal says.
type Case = (&'static str, fn(&mut Value, &mut Value), &'static str);

/// Promise: a token that lacks anything proves nothing, and the refusal says what.
#[test]
fn every_flaw_of_a_token_is_refused() {
    let cases: [Case; 19] = [
        ("expired", |_, claims| claims["exp"] = json!(seconds() - 30), "ExpiredSignature"),
        ("not valid yet", |_, claims| claims["nbf"] = json!(seconds() + 60), "ImmatureSignature"),
        ("of another cluster", |_, claims| claims["iss"] = json!("https://other"), "InvalidIssuer"),
        ("for the API server", |_, claims| claims["aud"] = json!([ISSUER]), "InvalidAudience"),
        ("for nobody", |_, claims| claims["aud"] = json!([]), "InvalidAudience"),
        ("without exp", |_, claims| without(claims, "exp"), ""),
        ("without nbf", |_, claims| without(claims, "nbf"), ""),
        ("without iss", |_, claims| without(claims, "iss"), ""),
        ("without aud", |_, claims| without(claims, "aud"), ""),
        ("without sub", |_, claims| without(claims, "sub"), ""),
        ("exp as text", |_, claims| claims["exp"] = json!("9999999999"), ""),
        ("nbf as text", |_, claims| claims["nbf"] = json!("0"), ""),
        ("of a node", |_, claims| claims["sub"] = json!("system:node:n1"), "not one of a ServiceAccount"),
        ("of a user", |_, claims| claims["sub"] = json!("shop/api"), "not one of a ServiceAccount"),
        ("unsigned", |header, _| header["alg"] = json!("none"), "cannot be read"),
        ("said to be symmetric", |header, _| header["alg"] = json!("HS256"), "InvalidAlgorithm"),
        ("said to be of the other kind", |header, _| header["alg"] = json!("RS256"), "InvalidAlgorithm"),
        ("by a key that is not published", |header, _| header["kid"] = json!("2"), "does not publish"),
        ("by no key", |header, _| without(header, "kid"), "does not publish"),
    ];
    let signer = Signer::ec();
    let access = access(&[signer.jwk("1")], everybody());
    for (what, edit, says) in cases {
        let refused = allow(&access, &signer.edited("1", edit), Verb::Send).expect_err(what);
        assert_eq!(refused.reason, Reason::Unauthenticated, "{what}");
        assert!(
            refused.message.contains(says) && refused.message.contains("ackwell.dev"),
            "{what}: {refused}"
        );
    }
}

fn without(object: &mut Value, field: &str) {
    object.as_object_mut().unwrap().remove(field);
}

/// Promise: whoever changes a token, or makes one with a key of their own or with the public key as a secret, gets nothing.
#[test]
fn forged_tokens_are_refused() {
    let (signer, forger) = (Signer::ec(), Signer::ec());
    let access = access(&[signer.jwk("1")], everybody());
    let good = signer.good("1");
    let [header, _, signature] = &good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let mut other = claims();
    other["sub"] = json!("system:serviceaccount:shop:admin");
    let changed = format!("{header}.{}.{signature}", encoded(other.to_string()));
    let unsigned = format!("{}.{}.", encoded(json!({"alg": "none"}).to_string()), encoded(other.to_string()));
    let long = "x".repeat(MAX_TOKEN_BYTES + 1);
    for token in
        [&changed, &unsigned, &long, &forger.good("1"), "x", "a.b.c", "..", "", &good[..good.len() - 4]]
    {
        let refused = allow(&access, token, Verb::Send).expect_err(token);
        assert_eq!(refused.reason, Reason::Unauthenticated, "{token}");
    }
    let nobody = access.allow(&Caller::default(), Verb::Send, &BadTokens::default()).unwrap_err();
    assert_eq!(nobody.reason, Reason::Unauthenticated);
    assert!(nobody.message.contains("no token"), "{nobody}");
}

/// Promise: while the cluster changes its keys both are good; when the old one is gone, what it signed is no longer.
#[test]
fn keys_of_the_cluster_rotate() {
    let (old, new) = (Signer::rsa(), Signer::ec());
    let foreign = json!({"kty": "oct", "kid": "3", "k": "c2VjcmV0"});
    let both = access(&[old.jwk("1"), new.jwk("2"), foreign.clone()], everybody());
    for token in [old.good("1"), new.good("2")] {
        allow(&both, &token, Verb::Send).unwrap();
    }
    let after = access(&[new.jwk("2")], everybody());
    assert!(allow(&after, &old.good("1"), Verb::Send).is_err());
    allow(&after, &new.good("2"), Verb::Send).unwrap();
    let keys = json!({"keys": [foreign]}).to_string();
    let unusable = v1::Access { keys, ..v1::Access::default() };
    assert!(Access::new(unusable).is_err(), "nobody could ever prove anything");
}

/// Promise: what is not granted is refused: other verbs, other accounts, other namespaces; and only the operator
/// configures.
#[test]
fn only_what_is_granted_is_allowed() {
    let signer = Signer::ec();
    let grants = vec![
        grant("shop", "", &[v1::Verb::Send]),
        grant("shop", "api", &[v1::Verb::Consume, v1::Verb::Peek]),
        grant("ops", "people", &[v1::Verb::Admin]),
        grant("none", "nothing", &[]),
    ];
    let access = access(&[signer.jwk("1")], grants);
    let verbs = [Verb::Send, Verb::Consume, Verb::Peek, Verb::Admin, Verb::Look, Verb::Configure];
    for (account, expected) in [
        ("shop:api", [true, true, true, false, true, false]),
        ("shop:web", [true, false, false, false, true, false]),
        ("ops:people", [false, false, false, true, true, false]),
        ("ops:api", [false, false, false, false, false, false]),
        ("other:api", [false, false, false, false, false, false]),
        ("ackwell-system:ackwell", [false, false, false, false, true, true]),
    ] {
        let subject = json!(format!("system:serviceaccount:{account}"));
        let token = signer.edited("1", |_, claims| claims["sub"] = subject);
        for (verb, expected) in verbs.into_iter().zip(expected) {
            let answer = allow(&access, &token, verb);
            assert_eq!(answer.is_ok(), expected, "{account} {verb:?}");
            let denied = |failure: &Failure| {
                failure.reason == Reason::PermissionDenied
                    && failure.message.contains(&account.replace(':', "/"))
            };
            assert!(answer.as_ref().err().is_none_or(denied), "{account} {verb:?}: {answer:?}");
        }
    }
}

/// Promise: however many tokens are shown, few are remembered; and what is remembered of one is not for longer than it is good.
#[test]
fn remembered_tokens_are_bounded_and_run_out() {
    let signer = Signer::ec();
    let access = access(&[signer.jwk("1")], everybody());
    let short = signer.edited("1", |_, claims| claims["exp"] = json!(seconds() - 5));
    allow(&access, &short, Verb::Send).expect("within the leeway");
    let until = access.remembered()[&short].until;
    assert!((3_000..=6_000).contains(&until.ms_since(clock::now())), "what is left of the leeway: {until:?}");
    let proved = Proved { account: "shop/api".into(), until: Timestamp(0) };
    access.remember(&short, proved, clock::now());
    allow(&access, &short, Verb::Send).unwrap();
    assert_eq!(access.remembered()[&short].until, until, "it was verified again");
    for number in 0..=MAX_REMEMBERED {
        let proved = Proved { account: "shop/api".into(), until: Timestamp::NEVER };
        access.remember(&number.to_string(), proved, clock::now());
    }
    assert!(access.remembered().len() <= MAX_REMEMBERED);
}
