//! Tokens of ServiceAccounts: JWTs, verified with the keys that the cluster publishes, without asking anybody.

mod ring;

use std::collections::HashMap;

use ackwell_engine::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::Proved;

/// Whom a token must be for; tokens for the API server, which pods often have too, are not for us.
pub(super) const AUDIENCE: &str = "ackwell.dev";
/// How far the clocks of nodes may differ.
const LEEWAY_SECONDS: u64 = 10;
/// Before namespace and name of a ServiceAccount.
const SUBJECT: &str = "system:serviceaccount:";
/// What API servers sign with. Never what the token says it is signed with, beyond these.
const ALGORITHMS: [(AlgorithmFamily, Algorithm); 2] =
    [(AlgorithmFamily::Rsa, Algorithm::RS256), (AlgorithmFamily::Ec, Algorithm::ES256)];

/// Keys by their id, and who signs with them.
#[derive(Debug)]
pub(super) struct Keys {
    issuer: String,
    by_id: HashMap<String, (Algorithm, DecodingKey)>,
}

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the token cannot be read")]
    Malformed,
    #[error("the token is signed by a key that the cluster does not publish, or has not for long")]
    UnknownKey,
    #[error("the token is not good: {0}")]
    Refused(#[from] jsonwebtoken::errors::Error),
    #[error("the token is not one of a ServiceAccount")]
    NoServiceAccount,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

impl Keys {
    /// Reads a JSON Web Key Set. Keys of other kinds than ours are left out: the cluster may use them for something else.
    pub(super) fn parse(issuer: String, set: &str) -> Result<Self, String> {
        ring::install();
        let set: Value = serde_json::from_str(set).map_err(|error| error.to_string())?;
        let keys = set["keys"].as_array().ok_or("it is no JSON Web Key Set")?;
        let by_id: HashMap<_, _> = keys.iter().filter_map(usable).collect();
        if by_id.is_empty() {
            return Err("it has no key for RS256 or ES256 with a kid".to_owned());
        }
        Ok(Self { issuer, by_id })
    }

    /// Whose token it is.
    pub(super) fn verify(&self, token: &str) -> Result<Proved, Error> {
        let header = decode_header(token).map_err(|_| Error::Malformed)?;
        let key = header.kid.and_then(|id| self.by_id.get(&id));
        let (algorithm, key) = key.ok_or(Error::UnknownKey)?;
        let claims = decode::<Claims>(token, key, &self.validation(*algorithm))?.claims;
        let account = claims.sub.strip_prefix(SUBJECT).and_then(|rest| rest.split_once(':'));
        let (namespace, name) = account.ok_or(Error::NoServiceAccount)?;
        Ok(Proved { account: format!("{namespace}/{name}").into(), until: until(claims.exp) })
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation
    }
}

/// The first millisecond in which it would not be verified again: the leeway counts, and whole seconds are compared.
fn until(expiry_seconds: u64) -> Timestamp {
    Timestamp(expiry_seconds.saturating_add(LEEWAY_SECONDS + 1).saturating_mul(1000))
}

fn usable(key: &Value) -> Option<(String, (Algorithm, DecodingKey))> {
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let (_, algorithm) = ALGORITHMS.into_iter().find(|(family, _)| *family == key.family())?;
    Some((jwk.common.key_id?, (algorithm, key)))
}
