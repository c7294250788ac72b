//! The leader's loop over the Secret and the trust in it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::watch;

use super::{Content, Observed, Policy, Step, Store, carry_out, next_step};

/// Timers count while machines sleep and clocks jump: look at the clock at least this often.
const MAX_REST: Duration = Duration::from_hours(1);
/// A failed write is tried again after this long, then twice as long, ...
const MIN_RETRY: Duration = Duration::from_secs(1);
/// ... but no longer than this: renewal begins weeks before it is needed, and people fix permissions in minutes.
const MAX_RETRY: Duration = Duration::from_mins(1);

/// Makes and renews certificates while this replica leads.
pub(crate) struct Keeper {
    pub(crate) store: Store,
    pub(crate) policy: Policy,
    pub(crate) secret: watch::Receiver<Observed<Secret>>,
    pub(crate) configuration: watch::Receiver<Observed<MutatingWebhookConfiguration>>,
    pub(crate) leader: watch::Receiver<bool>,
    pub(crate) now: fn() -> Timestamp,
}

/// Why a pass did not finish.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("make a certificate")]
    Issue(#[from] rcgen::Error),
    #[error("write the Secret of the webhook's certificates")]
    WriteSecret(#[source] kube::Error),
    #[error("set caBundle of the MutatingWebhookConfiguration")]
    Trust(#[source] kube::Error),
}

impl Keeper {
    /// Runs until nothing is watched any more, or nobody can become leader.
    pub(crate) async fn run(mut self) {
        let mut retry = MIN_RETRY;
        loop {
            let rest = match self.pass_if_leader().await {
                Ok(rest) => {
                    retry = MIN_RETRY;
                    rest.min(MAX_REST)
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        ?retry,
                        "certificates of the webhook"
                    );
                    let rest = retry;
                    retry = (retry * 2).min(MAX_RETRY);
                    rest
                }
            };
            if self.wake(rest).await.is_err() {
                return;
            }
        }
    }

    async fn wake(&mut self, rest: Duration) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.secret.changed() => changed,
            changed = self.configuration.changed() => changed,
            changed = self.leader.changed() => changed,
            () = tokio::time::sleep(rest) => Ok(()),
        }
    }

    async fn pass_if_leader(&mut self) -> Result<Duration, Error> {
        let leads = *self.leader.borrow_and_update();
        let secret = self.secret.borrow_and_update().clone();
        let configuration = self.configuration.borrow_and_update().clone();
        let secret = match (leads, &secret, &configuration) {
            (false, _, _) | (_, Observed::Unknown, _) | (_, _, Observed::Unknown) => return Ok(MAX_REST),
            (true, Observed::Absent, _) => None,
            (true, Observed::Present(secret), _) => Some(&**secret),
        };
        self.pass(secret, &configuration).await
    }

    /// Trust first: whatever is decided next relies on it.
    async fn pass(
        &self,
        secret: Option<&Secret>,
        configuration: &Observed<MutatingWebhookConfiguration>,
    ) -> Result<Duration, Error> {
        let content = secret.and_then(|secret| secret.data.as_ref()).map(Content::read).unwrap_or_default();
        if let (Observed::Present(configuration), Some(bundle)) = (configuration, content.bundle())
            && !trusts(configuration, &bundle)
        {
            self.store.trust(configuration, &bundle).await.map_err(Error::Trust)?;
            tracing::info!("API servers trust the webhook's authority from now on");
            return Ok(self.policy.lifetimes.settle);
        }
        self.next(secret, &content).await
    }

    async fn next(&self, secret: Option<&Secret>, content: &Content) -> Result<Duration, Error> {
        let now = (self.now)();
        let step = next_step(content, now, &self.policy);
        if let Step::Rest { until } = step {
            return Ok(until.duration_since(now).unsigned_abs());
        }
        let data = carry_out(step, content, now, &self.policy)?;
        self.store.write_secret(secret, data).await.map_err(Error::WriteSecret)?;
        tracing::info!(?step, "wrote the Secret of the webhook's certificates");
        Ok(MAX_REST)
    }
}

fn trusts(configuration: &MutatingWebhookConfiguration, bundle: &str) -> bool {
    configuration.webhooks.iter().flatten().all(|webhook| {
        webhook.client_config.ca_bundle.as_ref().is_some_and(|trusted| trusted.0 == bundle.as_bytes())
    })
}

#[cfg(test)]
mod tests;
