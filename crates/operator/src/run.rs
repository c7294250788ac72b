//! The process: leader election, the controller on the leader, the webhook and HTTP on every replica.
//!
//! Rights it needs. In every namespace with Queues (a ClusterRole, or a Role in each watched namespace):
//!
//! | Group | Resources | Verbs |
//! |---|---|---|
//! | `ackwell.dev` | `queues` | get, list, watch |
//! | `ackwell.dev` | `queues/status`, `queuetasks/status` | patch |
//! | `ackwell.dev` | `queuetasks` | get, list, watch, patch, delete |
//! | `apps` | `statefulsets` | get, list, watch, create, patch, delete |
//! | core | `configmaps`, `services`, `serviceaccounts` | get, list, watch, create, patch |
//! | `networking.k8s.io` | `networkpolicies` | get, list, watch, create, patch, delete |
//! | `policy` | `poddisruptionbudgets` | get, list, watch, create, patch, delete |
//! | core | `secrets` | get, create, patch |
//! | core | `pods` | list, watch, delete |
//! | core | `persistentvolumeclaims` | list, watch, patch |
//! | core | `events` | list, watch |
//! | `events.k8s.io` | `events` | create, patch |
//!
//! In the whole cluster (a ClusterRole):
//!
//! | Group | Resources | Verbs |
//! |---|---|---|
//! | `storage.k8s.io` | `storageclasses` | list, watch |
//!
//! In its own namespace (a Role):
//!
//! | Group | Resources | Verbs |
//! |---|---|---|
//! | `coordination.k8s.io` | `leases` | create; get, update on `ackwell-operator` |
//!
//! What the webhook and its certificates need is written in [`crate::webhook`] and [`crate::certificates`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::certificates::broker::Authority;
use crate::certificates::{Lifetimes, Observed};
use crate::identity::Own;
use crate::leader::Tenure;
use crate::metrics::Metrics;
use crate::queue_controller::Reach;
use crate::traces::{Traces, ratio};
use crate::webhook::SidecarOptions;
use crate::{authorities, http, identity, leader, queue_controller, webhook};

/// Makes Queues real and inserts sidecars into pods.
#[derive(Parser, Clone, Debug)]
#[command(name = "ackwell-operator", version)]
pub struct Args {
    /// Image of the brokers.
    #[arg(long, env = "ACKWELL_BROKER_IMAGE")]
    pub broker_image: String,

    /// Image of the sidecars.
    #[arg(long, env = "ACKWELL_SIDECAR_IMAGE")]
    pub sidecar_image: String,

    /// imagePullPolicy of brokers and sidecars; absent: Kubernetes decides by the tag.
    #[arg(long, env = "ACKWELL_IMAGE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,

    /// Namespace this operator runs in.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,

    /// Name of this replica in the leader election.
    #[arg(long, env = "POD_NAME")]
    pub identity: String,

    /// Namespace to look for Queues in, repeatable; absent: all.
    #[arg(long = "watch-namespace", env = "ACKWELL_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Limit who reaches brokers for messages: a `NetworkPolicy` for each Queue.
    #[arg(long, env = "ACKWELL_NETWORK_POLICIES")]
    pub network_policies: bool,

    /// Namespace whose pods reach all brokers, repeatable; besides the operator's own, and those that a Queue names.
    #[arg(long = "reachable-from", env = "ACKWELL_REACHABLE_FROM", value_delimiter = ',')]
    pub reachable_from: Vec<String>,

    /// Collector of OpenTelemetry for brokers and sidecars, like `http://collector.observability:4317`; absent: no traces.
    #[arg(long, env = "ACKWELL_TRACES_ENDPOINT")]
    pub traces_endpoint: Option<String>,

    /// Share that is recorded of the messages whose senders have not decided.
    #[arg(long, env = "ACKWELL_TRACES_RATIO", default_value = "0.01", value_parser = ratio)]
    pub traces_ratio: f64,

    /// Address of health and metrics.
    #[arg(long, env = "ACKWELL_HTTP", default_value = "0.0.0.0:7410")]
    pub http: SocketAddr,

    /// Address of the webhook.
    #[arg(long, env = "ACKWELL_WEBHOOK_LISTEN", default_value = "0.0.0.0:9443")]
    pub webhook_listen: SocketAddr,

    /// Service by which the API server calls the webhook.
    #[arg(long, env = "ACKWELL_WEBHOOK_SERVICE", default_value = "ackwell-webhook")]
    pub webhook_service: String,

    /// MutatingWebhookConfiguration to keep the CA bundle of.
    #[arg(long, env = "ACKWELL_WEBHOOK_CONFIGURATION", default_value = "ackwell-webhook")]
    pub webhook_configuration: String,

    /// Secret to keep the webhook's certificates in; it is made when missing.
    #[arg(long, env = "ACKWELL_WEBHOOK_SECRET", default_value = "ackwell-webhook-certificates")]
    pub webhook_secret: String,

    /// ServiceAccount that this operator runs as; brokers are configured by nobody else.
    #[arg(long, env = "ACKWELL_SERVICE_ACCOUNT")]
    pub service_account: String,

    /// File with a token of it for the audience `ackwell.dev`.
    #[arg(long, env = "ACKWELL_TOKEN_FILE", default_value = "/var/run/secrets/ackwell.dev/token")]
    pub token_file: PathBuf,

    /// Form of the log; RUST_LOG chooses what is logged.
    #[arg(long, env = "ACKWELL_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica reconciles from now on.
    #[error(transparent)]
    Leader(#[from] leader::Error),
    /// Pods cannot get sidecars from this replica.
    #[error("serve the webhook")]
    Webhook(#[from] webhook::Error),
    /// Health and metrics cannot be asked for.
    #[error(transparent)]
    Http(#[from] http::Error),
}

/// What every part of the process works with.
struct Replica {
    client: Client,
    args: Args,
    metrics: Arc<Metrics>,
    authority: watch::Sender<Observed<Secret>>,
    shutdown: CancellationToken,
}

/// Runs until `shutdown`, or until something essential fails. The lease is given back last, when nothing writes any more.
pub async fn run(client: Client, args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let (authority, _) = watch::channel(Observed::Unknown);
    let replica = Replica { client, args, metrics: Arc::new(Metrics::new()), authority, shutdown };
    let (leader, leads) = watch::channel(false);
    let (ready, is_ready) = watch::channel(false);
    tokio::try_join!(
        replica.serve_http(is_ready),
        replica.serve_webhook(ready, leads.clone()),
        replica.reconcile(leader, leads),
    )?;
    Ok(())
}

impl Args {
    fn traces(&self) -> Option<Traces> {
        let endpoint = self.traces_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
        endpoint.map(|endpoint| Traces { endpoint, ratio: self.traces_ratio })
    }
}

impl Replica {
    async fn serve_http(&self, ready: watch::Receiver<bool>) -> Result<(), Error> {
        let _end_all = self.shutdown.clone().drop_guard();
        let metrics = Arc::clone(&self.metrics);
        Ok(http::serve(self.args.http, metrics, ready, self.shutdown.clone()).await?)
    }

    async fn serve_webhook(
        &self,
        ready: watch::Sender<bool>,
        leads: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let _end_all = self.shutdown.clone().drop_guard();
        let args = self.args.clone();
        let traces = args.traces();
        let options = webhook::Options {
            listen: args.webhook_listen,
            namespace: args.namespace,
            service: args.webhook_service,
            configuration: args.webhook_configuration,
            secret: args.webhook_secret,
            authority: self.authority.clone(),
            lifetimes: Lifetimes::default(),
            sidecar: SidecarOptions {
                image: args.sidecar_image,
                pull_policy: args.image_pull_policy,
                traces,
            },
            ready,
        };
        Ok(webhook::run(self.client.clone(), options, leads, self.shutdown.clone()).await?)
    }

    /// Takes part in the election, and visits Queues while this replica leads. Losing the lease is an error that drops
    /// the controller at once.
    async fn reconcile(
        &self,
        leader: watch::Sender<bool>,
        leads: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let _end_all = self.shutdown.clone().drop_guard();
        let (client, identity) = (self.client.clone(), self.args.identity.clone());
        let (give_back, tenure) = (CancellationToken::new(), Tenure::default());
        let leader = (leader, tenure.clone());
        let election = leader::run(client, &self.args.namespace, identity, leader, give_back.clone());
        let control = async {
            let _give_back = give_back.drop_guard();
            self.lead(leads, &tenure).await;
            Ok(())
        };
        tokio::try_join!(election, control)?;
        Ok(())
    }

    /// Waits for leadership, then visits Queues until the end.
    async fn lead(&self, mut leads: watch::Receiver<bool>, tenure: &Tenure) {
        tokio::select! {
            _ = leads.wait_for(|leads| *leads) => {}
            () = self.shutdown.cancelled() => return,
        }
        self.metrics.leading(true);
        let authority = Authority::new(self.authority.subscribe());
        let client = tenure.fence(self.client.clone());
        let (args, metrics) = (self.args.clone(), Arc::clone(&self.metrics));
        // On the heap: it is most of what this process does.
        Box::pin(visit(client, args, metrics, authority, self.shutdown.clone())).await;
    }
}

/// Visits Queues until `shutdown`, without an election: nothing keeps two of these apart. Its authority is its own, and
/// kept nowhere. For tests; [`run`] is the process.
pub async fn reconcile(client: Client, args: Args, shutdown: CancellationToken) {
    visit(client, args, Arc::new(Metrics::new()), Authority::unkept(), shutdown).await;
}

async fn visit(
    client: Client,
    args: Args,
    metrics: Arc<Metrics>,
    authority: Authority,
    shutdown: CancellationToken,
) {
    let traces = args.traces();
    let broker = queue_controller::BrokerImage {
        image: args.broker_image,
        pull_policy: args.image_pull_policy,
        traces,
    };
    let everywhere = args.reachable_from.into_iter().chain([args.namespace.clone()]);
    let reach = if args.network_policies { Reach::Namespaces(everywhere.collect()) } else { Reach::Anybody };
    let (published, _) = watch::channel(None);
    let options = queue_controller::Options {
        client,
        namespaces: args.watch_namespaces,
        broker,
        reach,
        identity: args.identity,
        metrics,
        published: published.subscribe(),
        own: Own { account: format!("{}/{}", args.namespace, args.service_account), token: args.token_file },
        authority,
    };
    let (client, namespaces) = (options.client.clone(), options.namespaces.clone());
    let keys = identity::follow(client.clone(), published, shutdown.clone());
    let authorities = authorities::run(client, namespaces, options.authority.clone(), shutdown.clone());
    tokio::join!(queue_controller::run(options, shutdown), authorities, keys);
}
