//! Leader election on a `coordination.k8s.io` Lease: at most one replica reconciles.
//!
//! A holder that could not renew for [`RENEW_DEADLINE`] gives up before its lease runs out for others. Another replica
//! takes over when it has itself seen no renewal for [`LEASE_DURATION`]; clocks of different machines are never compared.
//!
//! A holder that was paused may go on after its lease ran out: [`Tenure`] keeps its writes back. The old and the new leader may
//! still overlap for a moment of a request in flight, so every write to children must be safe to repeat.

mod election;
mod tenure;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::election::{Election, Move};
pub(crate) use self::tenure::Tenure;
use crate::clock;

/// How long others wait without a renewal before they take over.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long the holder tries to renew; the difference to [`LEASE_DURATION`] is its time to stop.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often to try.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Longest wait for one request, so that a hanging API server is noticed within the deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Name of the Lease.
const LEASE: &str = "ackwell-operator";

/// Why this replica must stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others may take over at any moment.
    #[error("lost the lease: no renewal succeeded for {} s", RENEW_DEADLINE.as_secs())]
    Expired,
    /// Others already have.
    #[error("lost the lease to {0}")]
    Taken(String),
}

/// Takes part in the election until `shutdown`, which gives the lease back, or until a lease once held is lost, which
/// is an error: the caller must end the process, so that nothing of the reconciler survives.
pub(crate) async fn run(
    client: Client,
    namespace: &str,
    identity: String,
    leader: (watch::Sender<bool>, Tenure),
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let (leader, tenure) = leader;
    let leases = Api::namespaced(client, namespace);
    let mut election = Election::new(identity);
    let result = tokio::select! {
        result = campaign(&leases, &mut election, &leader, &tenure) => result,
        () = shutdown.cancelled() => Ok(()),
    };
    leader.send_replace(false);
    tenure.set(None);
    if result.is_ok() {
        release(&leases, &election).await;
    }
    result
}

async fn campaign(
    leases: &Api<Lease>,
    election: &mut Election,
    leader: &watch::Sender<bool>,
    tenure: &Tenure,
) -> Result<(), Error> {
    loop {
        let patience = election.time_left(clock::monotonic())?.min(REQUEST_TIMEOUT);
        match timeout(patience, round(leases, election)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "lease request failed"),
            Err(_) => tracing::warn!("lease request timed out"),
        }
        election.time_left(clock::monotonic())?;
        tenure.set(election.holds_until());
        if leader.send_if_modified(|now| std::mem::replace(now, election.leads()) != election.leads()) {
            tracing::info!(leads = election.leads(), "election decided");
        }
        sleep(RETRY_PERIOD).await;
    }
}

/// One look at the lease and, if it is ours to write, one write.
async fn round(leases: &Api<Lease>, election: &mut Election) -> Result<(), kube::Error> {
    let live = leases.get_opt(LEASE).await?;
    let asked_at = clock::monotonic();
    let written = match election.decide(live.as_ref(), asked_at, clock::now_micro()) {
        Move::Wait => return Ok(()),
        Move::Create(spec) => {
            let mut lease = Lease { spec: Some(*spec), ..Lease::default() };
            lease.metadata.name = Some(LEASE.to_owned());
            leases.create(&PostParams::default(), &lease).await
        }
        Move::Replace(lease) => leases.replace(&lease.name_any(), &PostParams::default(), &lease).await,
    };
    match written {
        Ok(_) => election.renewed(asked_at),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// So that the next replica need not wait. Best effort: without it, it waits.
async fn release(leases: &Api<Lease>, election: &Election) {
    let give_back = async {
        let live = leases.get_opt(LEASE).await?;
        if let Some(lease) = live.and_then(|lease| election.released(lease)) {
            leases.replace(LEASE, &PostParams::default(), &lease).await?;
        }
        Ok::<_, kube::Error>(())
    };
    if !matches!(timeout(REQUEST_TIMEOUT, give_back).await, Ok(Ok(()))) {
        tracing::warn!("could not give the lease back; the next leader waits until it runs out");
    }
}
