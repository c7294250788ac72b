//! TLS between sidecar and broker: who is refused, and that nobody notices when certificates change.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use ackwell_proto::v1::SendRequest;
use ackwell_proto::{Failure, Reason};
use ackwell_tests::caller::{Caller, ack, delivered, failure, message};
use ackwell_tests::certificates::{Authority, Shown, replace, shown_at, text};
use ackwell_tests::processes::{Broker, QUEUE, Sidecar, settings};
use ackwell_tests::wait::{until, until_async};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Request, Status};

/// A process looks at its files every 5 s.
const SOON: Duration = Duration::from_secs(40);
const HOUR: Duration = Duration::from_hours(1);
const NAME: &str = "127.0.0.1";

/// A broker that shows a certificate, and whom a sidecar trusts.
struct Scene {
    folder: TempDir,
    shown: Shown,
    broker: Broker,
}

impl Scene {
    fn start(authority: &Authority, name: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shown = Shown::in_folder(folder.path());
        authority.issue(name, HOUR, &shown);
        let mut broker = Broker::prepare(settings()).with(&shown.flags()).with(flags);
        broker.restart();
        Self { folder, shown, broker }
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A sidecar that trusts these.
    fn sidecar(&self, trusted: &[&Authority]) -> Sidecar {
        self.trust(trusted);
        Sidecar::start_with(&self.broker, &["--broker-ca", text(&self.bundle())])
    }

    /// Whether it changes anything.
    fn trust(&self, trusted: &[&Authority]) -> bool {
        let bundle: String = trusted.iter().map(|authority| authority.pem()).collect();
        let changes = std::fs::read_to_string(self.bundle()).is_ok_and(|old| old != bundle);
        replace(&self.bundle(), &bundle);
        changes
    }

    /// Shows a new certificate, and waits until new connections see it.
    async fn show(&self, authority: &Authority, life: Duration) {
        authority.issue(NAME, life, &self.shown);
        let new = self.shown.current();
        until_async("the new certificate to be shown", SOON, async || {
            let shown = shown_at(self.broker.address(), authority.pem()).await?;
            if shown == new { Ok(()) } else { Err(anyhow::anyhow!("still the old one")) }
        })
        .await;
    }
}

/// Sends and receives one message after the other until it is told to end; how many.
fn flow(caller: Caller, mut end: watch::Receiver<bool>) -> (watch::Receiver<usize>, JoinHandle<()>) {
    let (counted, count) = watch::channel(0);
    let task = tokio::spawn(async move {
        let mut ids = HashSet::new();
        while !*end.borrow_and_update() {
            let id = caller.send_body("on its way").await;
            let delivery = caller.receive_one().await;
            assert_eq!(delivered(&delivery).id, id);
            caller.settle_one(ack(&delivery)).await.unwrap();
            assert!(ids.insert(id), "each once");
            counted.send_replace(ids.len());
        }
    });
    (count, task)
}

/// Promise: leaf and authority are replaced while messages flow, and no application sees an error: not on the
/// connections that stand, and not on those that are made anew after each step.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authority_change_while_messages_flow() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut scene = Scene::start(&old, NAME, &[]);
    let sidecar = scene.sidecar(&[&old]);
    let (end, ended) = watch::channel(false);
    let (mut count, flowing) = flow(sidecar.caller().await, ended);
    let mut trusted = 0;
    let steps: [(&[&Authority], &Authority); 4] =
        [(&[&old], &old), (&[&old, &new], &old), (&[&old, &new], &new), (&[&new], &new)];
    for (trust, sign) in steps {
        trusted += usize::from(scene.trust(trust));
        wait_trusted(&sidecar, trusted);
        scene.show(sign, HOUR).await;
        scene.broker.kill();
        scene.broker.restart();
        let before = *count.borrow_and_update();
        let flows = count.wait_for(|count| *count > before + 10);
        tokio::time::timeout(SOON, flows).await.expect("messages flow").unwrap();
    }
    end.send_replace(true);
    flowing.await.expect("no error reached the application");
    assert!(
        shown_at(scene.broker.address(), old.pem()).await.is_err(),
        "the old authority signs nothing any more"
    );
}

/// Until the sidecar has said so many times that it took new authorities.
fn wait_trusted(sidecar: &Sidecar, times: usize) {
    until("the sidecar to trust the new authorities", SOON, || {
        let seen = sidecar.log().matches("authorities replaced").count();
        if seen >= times { Ok(()) } else { Err(anyhow::anyhow!("{seen} of {times}")) }
    });
}

/// Promise: what a connection was made with may run out; the connection stands, and the next one sees the certificate
/// that was put there meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_that_runs_out_is_replaced_in_time() {
    let authority = Authority::new("authority");
    let mut scene = Scene::start(&authority, NAME, &[]);
    let sidecar = scene.sidecar(&[&authority]);
    scene.show(&authority, Duration::from_secs(30)).await;
    let short = scene.shown.current();
    let caller = sidecar.caller().await;
    caller.send_body("before").await;
    until_async("the certificate to run out", Duration::from_mins(2), async || {
        let shown = shown_at(scene.broker.address(), authority.pem()).await;
        if shown.is_err() { Ok(()) } else { Err(anyhow::anyhow!("{short:?} is still valid")) }
    })
    .await;
    caller.send_body("on the connection that stands").await;
    scene.show(&authority, HOUR).await;
    scene.broker.kill();
    scene.broker.restart();
    caller.send_body("on a new connection").await;
    assert_eq!(caller.stats().await.ready, 3);
}

/// Promise: a broker with a certificate answers nobody who speaks plainly, from its own machine neither unless it was
/// told to.
#[tokio::test]
async fn plaintext_is_refused() {
    let authority = Authority::new("authority");
    let scene = Scene::start(&authority, NAME, &[]);
    let status = send(&Caller::connect_lazy(scene.broker.address(), QUEUE)).await.unwrap_err();
    assert!(Failure::from_status(&status).is_none(), "no broker answered: {status:?}");
    let sidecar = Sidecar::start(&scene.broker);
    assert_eq!(failure(&send(&sidecar.caller().await).await.unwrap_err()).reason, Reason::BrokerUnavailable);
    send(&scene.sidecar(&[&authority]).caller().await).await.unwrap();
}

/// Promise: `kubectl port-forward` arrives from the pod's loopback and needs no certificate, where that is allowed; who
/// speaks TLS is served there all the same.
#[tokio::test]
async fn loopback_may_be_plain_where_it_is_allowed() {
    let authority = Authority::new("authority");
    let scene = Scene::start(&authority, NAME, &["--plain-loopback"]);
    send(&Caller::connect_lazy(scene.broker.address(), QUEUE)).await.unwrap();
    send(&scene.sidecar(&[&authority]).caller().await).await.unwrap();
}

/// Promise: a sidecar speaks to nobody who cannot prove to be the broker that it dialled, and says what is wrong.
#[tokio::test]
async fn wrong_authority_and_wrong_name_are_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (signs, name, says) in
        [(&theirs, NAME, "UnknownIssuer"), (&ours, "ackwell-logs.shop.svc", "not valid for name")]
    {
        let scene = Scene::start(signs, name, &[]);
        let refused = failure(&send(&scene.sidecar(&[&ours]).caller().await).await.unwrap_err());
        assert_eq!(refused.reason, Reason::BrokerUnavailable);
        assert!(refused.message.contains("certificate") && refused.message.contains(says), "{refused}");
    }
}

/// Sends one message, and waits no longer than a test should.
async fn send(caller: &Caller) -> Result<(), Status> {
    let mut request = Request::new(SendRequest {
        queue: QUEUE.to_owned(),
        messages: vec![message("x")],
        ..SendRequest::default()
    });
    request.set_timeout(Duration::from_secs(5));
    caller.queues.clone().send(request).await.map(drop)
}
