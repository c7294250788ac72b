//! Who tokens are believed to be from: the cluster's issuer and its keys, as the API server publishes them, for brokers
//! that cannot ask it. And the operator's own token, for its calls to brokers.
//!
//! Rights it needs: get on `/.well-known/openid-configuration` and `/openid/v1/jwks`, which Kubernetes gives to every
//! ServiceAccount.

use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use kube::Client;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Kubernetes has a new key published before anything is signed by it: administrators wait for longer than this.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// Between attempts while nothing is known: no broker can be configured before.
const RETRY: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between PEM-like armour and abuse: a key has about 500 bytes, a cluster a handful of them.
const MAX_KEYS_BYTES: usize = 64 << 10;

/// What proves that a token was made by this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// Who makes tokens.
    pub(crate) issuer: String,
    /// The keys it signs with: a JSON Web Key Set.
    pub(crate) keys: String,
}

/// Who the operator is.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// `namespace/name` of its ServiceAccount.
    pub(crate) account: String,
    /// Its token for brokers, which Kubernetes replaces before it runs out.
    pub(crate) token: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("ask the API server: {0}")]
    Ask(#[from] kube::Error),
    #[error("the API server does not answer")]
    Timeout,
    #[error("read the answer of the API server: {0}")]
    Read(#[from] serde_json::Error),
    #[error("the keys have {0} bytes; at most {MAX_KEYS_BYTES} are taken")]
    TooLong(usize),
    #[error("make the request: {0}")]
    Request(#[from] http::Error),
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
}

/// Keeps `published` current until `shutdown`.
pub(crate) async fn follow(
    client: Client,
    published: watch::Sender<Option<Published>>,
    shutdown: CancellationToken,
) {
    loop {
        match look(&client).await {
            Ok(now) => {
                let now = Some(now);
                published.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
            }
            Err(error) => tracing::warn!(%error, "the keys of ServiceAccount tokens"),
        }
        let pause = if published.borrow().is_some() { LOOK_EVERY } else { RETRY };
        if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn look(client: &Client) -> Result<Published, Error> {
    let configuration = get(client, "/.well-known/openid-configuration").await?;
    let Configuration { issuer } = serde_json::from_str(&configuration)?;
    let keys = get(client, "/openid/v1/jwks").await?;
    if keys.len() > MAX_KEYS_BYTES {
        return Err(Error::TooLong(keys.len()));
    }
    Ok(Published { issuer, keys })
}

async fn get(client: &Client, path: &str) -> Result<String, Error> {
    let request = Request::get(path).body(Vec::new())?;
    Ok(timeout(REQUEST_TIMEOUT, client.request_text(request)).await.map_err(|_| Error::Timeout)??)
}
