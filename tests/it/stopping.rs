//! SIGTERM: finish what was begun, lose nothing, be gone within seconds.

use std::time::Duration;

use ackwell_tests::caller::{ack, delivered};
use ackwell_tests::processes::{Broker, Sidecar, drain, settings};
use ackwell_tests::wait::{now, until_async};

const SOON: Duration = Duration::from_secs(20);
/// Less than a pod's default grace period, with room for a busy machine.
const GRACE: Duration = Duration::from_secs(10);

/// Promise: a broker that is told to stop does, although a consumer waits; what was stored and held stays so.
#[tokio::test(flavor = "multi_thread")]
async fn terminated_broker_ends_soon_and_keeps_everything() {
    let mut broker = Broker::start(settings());
    let caller = broker.caller().await;
    caller.send_body("held").await;
    let held = caller.receive_one().await;
    let waiting = tokio::spawn({
        let caller = caller.clone();
        async move { caller.receive(1, Duration::from_mins(1)).await }
    });
    let waits = async || match caller.stats().await.consumers {
        1 => Ok(()),
        other => anyhow::bail!("{other} consumers"),
    };
    until_async("the call to wait", SOON, waits).await;

    let (process, told) = (broker.take(), now());
    process.terminate();
    assert!(process.wait().success());
    assert!(told.elapsed() < GRACE, "{:?}", told.elapsed());
    waiting.await.unwrap().map_or_else(
        |status| assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
        |deliveries| assert!(deliveries.is_empty()),
    );

    broker.restart();
    let caller = broker.caller().await;
    assert_eq!(caller.stats().await.in_flight, 1);
    caller.settle_one(ack(&held)).await.expect("its receipt is still good");
}

/// Promise: a sidecar that is told to stop ends, and what its application held is not lost.
#[tokio::test]
async fn terminated_sidecar_ends_soon() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let id = caller.send_body("order").await;
    let held = caller.receive_one().await;
    assert_eq!(delivered(&held).id, id);
    let (process, told) = (sidecar.into_process(), now());
    process.terminate();
    drop(caller);
    assert!(process.wait().success());
    assert!(told.elapsed() < GRACE, "{:?}", told.elapsed());
    assert_eq!(broker.caller().await.peek(&[]).await.len(), 1);
}

/// Promise: the preStop hook is done at once, and from then on nothing is delivered while sends go on; a hook that finds no
/// sidecar fails with what it tried.
#[tokio::test]
async fn pre_stop_hook_drains_the_sidecar() {
    let broker = Broker::start(settings());
    let sidecar = Sidecar::start(&broker);
    let caller = sidecar.caller().await;
    let told = now();
    drain(sidecar.address()).unwrap();
    assert!(told.elapsed() < GRACE, "{:?}", told.elapsed());
    let id = caller.send_body("sent while draining").await;
    assert!(caller.receive(1, Duration::from_millis(300)).await.unwrap().is_empty());
    assert_eq!(delivered(&broker.caller().await.receive_one().await).id, id);

    let address = sidecar.address();
    let process = sidecar.into_process();
    process.terminate();
    drop(caller);
    assert!(process.wait().success());
    let refused = drain(address).unwrap_err().to_string();
    assert!(refused.contains(&address.to_string()), "{refused}");
}
