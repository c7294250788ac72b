//! The admission webhook that inserts sidecars into pods, and the certificates it is called with.
//!
//! Every replica serves it; the leader keeps the certificates. Only pods with the label `ackwell.dev/inject: "true"` are
//! sent here, so that no other pod waits for us.
//!
//! - [`requested_queues`], [`requested_socket`], [`inject`], [`warnings`]: what happens to a pod, without any cluster.
//! - [`run`]: HTTPS on `POST /inject`.
//!
//! Rights it needs: get on `queues` where labelled pods are.
//!
//! It validates no Queues (the schema does) and looks into no namespace: an unknown Queue is only a warning.

mod inject;
mod queues;
mod review;
mod server;
mod sidecar;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub(crate) use inject::tell_address;
pub use inject::{inject, warnings};
pub(crate) use queues::named_queues;
pub use queues::{Refusal, requested_queues};
pub use sidecar::SidecarOptions;
pub(crate) use sidecar::{Place, container as sidecar_container, volume as sidecar_volume};
pub use socket::requested_socket;

use crate::certificates::{self, Keeper, Lifetimes, Observed, Policy, Served, Store};
use crate::clock;
use review::Reviewer;

/// How the webhook is reached and what it inserts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Namespace of this operator, its Service and its Secret.
    pub namespace: String,
    /// Name of the Service by which API servers call.
    pub service: String,
    /// Name of the `MutatingWebhookConfiguration`, which the chart makes.
    pub configuration: String,
    /// Name of the Secret with the certificates, which the leader makes.
    pub secret: String,
    /// Where the Secret is shown to the rest of the operator: its authority signs the brokers' certificates, too.
    pub(crate) authority: watch::Sender<Observed<Secret>>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// What is inserted.
    pub sidecar: SidecarOptions,
    /// Turns true when this replica has a certificate to show.
    pub ready: watch::Sender<bool>,
}

/// Why the webhook ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("listen for the webhook on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS for the webhook")]
    Tls(#[from] rustls::Error),
}

/// Serves until `shutdown`; keeps the certificates while `leader` is true.
pub async fn run(
    client: Client,
    options: Options,
    leader: watch::Receiver<bool>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let address = options.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let served = Arc::new(Served::new(options.ready.clone()));
    let acceptor = TlsAcceptor::from(Arc::new(certificates::tls(Arc::clone(&served))?));
    let router = server::router(Reviewer::new(client.clone(), options.sidecar.clone()));
    tokio::select! {
        () = server::serve(listener, acceptor, router, shutdown) => {}
        () = keep_certificates(client, &options, leader, &served) => {}
    }
    Ok(())
}

async fn keep_certificates(
    client: Client,
    options: &Options,
    leader: watch::Receiver<bool>,
    served: &Served,
) {
    let store = Store::new(client, &options.namespace, &options.secret);
    let (secret_sender, secret) = (options.authority.clone(), options.authority.subscribe());
    let (configuration_sender, configuration) = watch::channel(Observed::Unknown);
    let keeper = Keeper {
        store: store.clone(),
        policy: Policy::for_service(&options.service, &options.namespace, options.lifetimes),
        secret: secret.clone(),
        configuration,
        leader,
        now: || clock::now().0,
    };
    tokio::select! {
        () = certificates::observe(store.secrets, &options.secret, secret_sender) => {}
        () = certificates::observe(store.configurations, &options.configuration, configuration_sender) => {}
        () = served.follow(secret) => {}
        () = keeper.run() => {}
    }
}
