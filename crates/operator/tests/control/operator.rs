//! An operator for one namespace, in this process. Dropping it is its death.

use ackwell_operator::run::{Args, reconcile};
use clap::Parser;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::faults::Faults;
use crate::plane::Plane;

/// Runs until it is dropped.
pub(crate) struct Operator {
    _task: AbortOnDropHandle<()>,
}

impl Operator {
    /// Starts one with `faults` in its client. When they make it die, another without any follows.
    pub(crate) fn start(namespace: &str, faults: &Faults) -> Self {
        let (namespace, faults) = (namespace.to_owned(), faults.clone());
        let task = async move {
            tokio::select! {
                () = run(&namespace, &faults) => {}
                () = faults.stopped() => {}
            }
            run(&namespace, &Faults::default()).await;
        };
        Self { _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

async fn run(namespace: &str, faults: &Faults) {
    let args = Args::parse_from([
        "ackwell-operator",
        "--broker-image=broker:1",
        "--sidecar-image=broker:1",
        "--namespace=none",
        "--identity=test",
        "--service-account=ackwell",
        concat!("--token-file=", env!("CARGO_MANIFEST_DIR"), "/src/queue_controller/shards/link/token"),
        &format!("--watch-namespace={namespace}"),
        "--network-policies",
    ]);
    reconcile(Plane::get().faulty_client(faults), args, CancellationToken::new()).await;
}
