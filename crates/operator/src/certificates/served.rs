//! The certificate that this replica shows.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::{Content, Observed};

/// The certificate that this replica shows; handshakes take the newest, connections that stand keep theirs.
#[derive(Debug)]
pub(crate) struct Served {
    current: watch::Sender<Option<Arc<CertifiedKey>>>,
    ready: watch::Sender<bool>,
}

impl Served {
    /// Nothing yet; `ready` turns true with the first certificate.
    pub(crate) fn new(ready: watch::Sender<bool>) -> Self {
        Self { current: watch::Sender::new(None), ready }
    }

    /// Shows what the Secret holds, for as long as it is watched.
    pub(crate) async fn follow(&self, mut secret: watch::Receiver<Observed<Secret>>) {
        loop {
            let state = secret.borrow_and_update().clone();
            self.show(&state);
            if secret.changed().await.is_err() {
                return;
            }
        }
    }

    /// What was shown before stays when the Secret is gone or damaged: it is still trusted for a while.
    fn show(&self, state: &Observed<Secret>) {
        let Observed::Present(secret) = state else { return };
        let content = Content::read(&secret.data.clone().unwrap_or_default());
        let Some(key) = content.certified_key() else {
            tracing::warn!("the Secret holds no certificate that can be served; the leader makes a new one");
            return;
        };
        if self.current.borrow().as_ref().is_none_or(|current| current.cert != key.cert) {
            tracing::info!("serving a new certificate");
            self.current.send_replace(Some(Arc::new(key)));
        }
        self.ready.send_replace(true);
    }
}

/// TLS for the webhook. HTTP/1.1 only: an API server opens few connections, and each has its own flow.
pub(crate) fn tls(served: Arc<Served>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::certificates::{Cause, Lifetimes, Policy, SecretData, Step, carry_out};

    fn present(data: SecretData) -> Observed<Secret> {
        Observed::Present(Arc::new(Secret { data: Some(data), ..Secret::default() }))
    }

    /// Replicas go on serving through what the leader has to repair.
    #[test]
    fn damaged_or_deleted_secret_leaves_the_old_certificate_served() {
        let (served, ready) =
            (Served::new(watch::Sender::new(false)), |served: &Served| *served.ready.borrow());
        let policy = Policy::for_service("ackwell-webhook", "ackwell-system", Lifetimes::default());
        let step = Step::NewAuthority(Cause::Unusable);
        let data = carry_out(step, &Content::default(), Timestamp::UNIX_EPOCH, &policy).unwrap();

        served.show(&present(SecretData::new()));
        assert!(served.current.borrow().is_none() && !ready(&served));
        served.show(&present(data));
        let shown = served.current.borrow().clone();
        assert!(shown.is_some() && ready(&served));
        for state in [present(SecretData::new()), Observed::Absent, Observed::Unknown] {
            served.show(&state);
            assert!(ready(&served));
            assert_eq!(
                served.current.borrow().as_ref().map(|it| &it.cert),
                shown.as_ref().map(|it| &it.cert)
            );
        }
    }
}
