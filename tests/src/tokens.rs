//! Tokens as a cluster makes them for its ServiceAccounts, and the keys that it publishes.

use std::time::SystemTime;

use ackwell_proto::v1::{Access, Grant, Verb};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Who configures brokers.
pub const OPERATOR: &str = "ackwell-system/ackwell";

/// A key by which a cluster signs tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    id: String,
}

impl Signer {
    /// A new one of this id.
    pub fn new(id: &str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a machine has randomness");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).expect("it was just made");
        Self { key, id: id.to_owned() }
    }

    /// A good token for an hour; `account` is `namespace/name`.
    pub fn token(&self, account: &str) -> String {
        self.edited(account, |_| {})
    }

    /// The same with other claims.
    pub fn edited(&self, account: &str, edit: impl FnOnce(&mut Value)) -> String {
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let mut claims = json!({
            "iss": ISSUER,
            "sub": format!("system:serviceaccount:{}", account.replace('/', ":")),
            "aud": ["ackwell.dev"],
            "nbf": seconds() - 60,
            "exp": seconds() + 3600,
        });
        edit(&mut claims);
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("the key is sound");
        format!("{message}.{}", encoded(signature))
    }

    fn published(&self) -> Value {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": encoded(x), "y": encoded(y)})
    }
}

/// What a broker is told of a cluster that publishes the keys of `signers`.
pub fn access(signers: &[&Signer], grants: &[Grant]) -> Access {
    let keys: Vec<_> = signers.iter().map(|signer| signer.published()).collect();
    Access {
        issuer: ISSUER.to_owned(),
        keys: json!({ "keys": keys }).to_string(),
        operator: OPERATOR.to_owned(),
        grants: grants.to_vec(),
    }
}

/// Of `namespace/name`, or of all of `namespace`.
pub fn grant(account: &str, verbs: &[Verb]) -> Grant {
    let (namespace, name) = account.split_once('/').unwrap_or((account, ""));
    Grant {
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
        verbs: verbs.iter().map(|verb| i32::from(*verb)).collect(),
    }
}

/// Since 1970.
#[expect(clippy::disallowed_methods, reason = "tokens are valid from a time of the real clock")]
pub fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is after 1970").as_secs()
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
