//! Whom sidecars trust: a ConfigMap in each namespace with pods that ask for a sidecar, which their pods mount, so that a
//! new authority reaches the running ones.
//!
//! It outlives the last of these pods: it is small, holds nothing secret, and the next one finds it there.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::time::{Duration, Instant};

use ackwell_api::names::{self, AUTHORITIES, AUTHORITIES_KEY, INJECT_LABEL, MANAGER};
use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::certificates::broker::Authority;
use crate::clock;

/// One that somebody deleted or changed is written again within this, ...
const WRITE_EVERY: Duration = Duration::from_mins(10);
/// ... or when the next pod comes, if it was not written this shortly before.
const FRESH: Duration = Duration::from_secs(30);
/// Between attempts where the API server refuses, and between looks at what is old.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest wait for one write.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Namespaces with sidecars, and what was written there.
struct Published {
    client: Client,
    authority: Authority,
    namespaces: HashMap<String, Option<Written>>,
}

struct Written {
    bundle: String,
    at: Instant,
}

/// Publishes the authorities in all of `namespaces` (empty: all) that need them, until `shutdown`.
pub(crate) async fn run(
    client: Client,
    namespaces: Vec<String>,
    authority: Authority,
    shutdown: CancellationToken,
) {
    let mut changes = authority.changes();
    let mut pods = pin!(select_all(pods(&client, &namespaces).into_iter().map(|api| {
        let labelled = watcher::Config::default().labels(&format!("{INJECT_LABEL}=true"));
        watcher(api, labelled).default_backoff().touched_objects().boxed()
    })));
    let mut published = Published { client, authority, namespaces: HashMap::new() };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            pod = pods.next() => match pod {
                Some(Ok(pod)) => published.need(pod.namespace()),
                Some(Err(error)) => tracing::warn!(%error, "watching pods with sidecars"),
                None => return,
            },
            told = changes.changed() => if told.is_err() { return },
            () = sleep(PAUSE) => {}
        }
        published.publish().await;
    }
}

fn pods(client: &Client, namespaces: &[String]) -> Vec<Api<PartialObjectMeta<Pod>>> {
    match namespaces {
        [] => vec![Api::all(client.clone())],
        some => some.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    }
}

impl Published {
    fn need(&mut self, namespace: Option<String>) {
        let Some(namespace) = namespace else { return };
        let written = self.namespaces.entry(namespace).or_default();
        *written = written.take().filter(|written| written.at.elapsed() < FRESH);
    }

    /// Writes where it is due; what fails is due again.
    async fn publish(&mut self) {
        let Some(bundle) = self.authority.content().bundle() else { return };
        let mut gone = Vec::new();
        for (namespace, written) in &mut self.namespaces {
            let is_current = |it: &Written| it.bundle == bundle && it.at.elapsed() < WRITE_EVERY;
            if written.as_ref().is_some_and(is_current) {
                continue;
            }
            match write(&self.client, namespace, &bundle).await {
                Ok(()) => *written = Some(Written { bundle: bundle.clone(), at: clock::monotonic() }),
                Err(kube::Error::Api(status)) if status.is_not_found() => gone.push(namespace.clone()),
                Err(error) => tracing::warn!(namespace, %error, "writing the authorities of brokers"),
            }
        }
        gone.iter().for_each(|namespace| drop(self.namespaces.remove(namespace)));
    }
}

async fn write(client: &Client, namespace: &str, bundle: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    let desired = config_map(namespace, bundle);
    let patch = Patch::Apply(&desired);
    match timeout(REQUEST_TIMEOUT, api.patch(AUTHORITIES, &parameters, &patch)).await {
        Ok(written) => written.map(drop),
        Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
    }
}

fn config_map(namespace: &str, bundle: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(AUTHORITIES.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(names::authorities_labels()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(AUTHORITIES_KEY.to_owned(), bundle.to_owned())])),
        ..ConfigMap::default()
    }
}
