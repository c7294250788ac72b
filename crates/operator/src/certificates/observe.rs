//! Watches one object by name.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What is known of an object.
#[derive(Clone, Debug, Default)]
pub(crate) enum Observed<K> {
    /// Nothing yet: the API server has not answered.
    #[default]
    Unknown,
    /// It does not exist.
    Absent,
    /// As it was last seen.
    Present(Arc<K>),
}

/// Publishes each state of the object, for ever. Failures are logged and tried again.
pub(crate) async fn observe<K>(api: Api<K>, name: &str, into: watch::Sender<Observed<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut states = watcher::watch_object(api, name).default_backoff().boxed();
    while let Some(state) = states.next().await {
        match state {
            Ok(Some(object)) => into.send_replace(Observed::Present(Arc::new(object))),
            Ok(None) => into.send_replace(Observed::Absent),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), name, %error, "watching failed; trying again");
                continue;
            }
        };
    }
}
