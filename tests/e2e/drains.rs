//! Shards that shall go and cannot, or shall stay after all, or are given up on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ackwell_tests::caller::{Caller, ack, delivered, message};
use ackwell_tests::cluster::{Namespace, PortForward};
use ackwell_tests::keyed::Load;
use ackwell_tests::wait::{until, until_async};
use serde_json::json;

use crate::capacity::{MOVED, scaled};
use crate::manifests::idle_pod;
use crate::operations::{fill, two_shards};
use crate::queue::{broker, patch, wait_condition};

/// On the shard that shall go: several pages of a move.
const LEAVING: usize = 20;

/// Promise: a drain is called off by another `kubectl scale`, under load: the shard keeps its pod, keys their order, and nothing is
/// lost or comes again.
#[tokio::test(flavor = "multi_thread")]
async fn drain_is_called_off_under_load() {
    let namespace = Namespace::new("call-off");
    namespace.queue(&two_shards().replace("maxAttempts: 2", "maxAttempts: 1000"));
    namespace.apply(&idle_pod("caller"));
    namespace.pod_ready("caller");
    let forward = PortForward::start(&namespace, "caller", 7400);
    let load = Load::start(&forward.caller("orders").await);
    let before = [0, 1].map(|ordinal| broker(&namespace, ordinal));
    scale(&namespace, 1);
    wait_condition(&namespace, "Draining", "True/Draining");
    scaled(&namespace, 2);
    assert_eq!([0, 1].map(|ordinal| broker(&namespace, ordinal)), before, "no broker stopped");
    let count = load.finish(MOVED).await;
    assert!(count > 100, "{count} messages are no load");
}

/// Promise: a shard that nobody has room for stays and says why; when there is room it goes, and all that it had is at the others under
/// the same ids, without an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn drain_waits_for_room_and_says_so() {
    let namespace = Namespace::new("no-room");
    let stuck = Stuck::new(&namespace).await;
    patch(&namespace, &json!({"storage": {"size": "512Mi"}}));
    wait_shards(&namespace, 1);
    let acked = receive_all(&[&stuck.staying], &stuck.filling.union(&stuck.stored).cloned().collect()).await;
    assert_eq!(acked.values().filter(|attempts| **attempts > 0).count(), 0, "nobody failed");
    wait_condition(&namespace, "Stalled", "False/UpToDate");
    assert!(namespace.get("persistentvolumeclaim", "data-ackwell-orders-1").is_ok(), "its volume stays");
    assert!(stuck.staying.is_empty().await, "nothing comes again");
}

/// Promise: a shard that is given up on goes without handing over; its volume keeps what it had, says so, and serves it when there
/// are as many shards again. What was acked meanwhile does not come back.
#[tokio::test(flavor = "multi_thread")]
async fn shard_that_is_given_up_on_comes_back_with_its_messages() {
    let namespace = Namespace::new("give-up");
    let stuck = Stuck::new(&namespace).await;
    annotate(&namespace, "ackwell.dev/force-drain=1");
    wait_shards(&namespace, 1);
    let kept = wait_condition(&namespace, "StorageHealthy", "False/VolumesUnserved");
    assert!(kept.contains("set spec.shards to 2"), "{kept}");
    annotate(&namespace, "ackwell.dev/force-drain-");
    let first = receive_all(&[&stuck.staying], &stuck.filling).await;
    scaled(&namespace, 2);
    wait_condition(&namespace, "StorageHealthy", "True/VolumesBound");
    let forward = PortForward::start(&namespace, "ackwell-orders-1", 7400);
    let again = forward.caller("orders").await;
    let left: HashSet<_> = stuck.stored.iter().filter(|id| !first.contains_key(*id)).cloned().collect();
    assert!(!left.is_empty(), "all of them were moved");
    // Some may have been moved before there was no room.
    let rest = receive_all(&[&again, &stuck.staying], &left).await;
    assert_eq!(rest.keys().filter(|id| first.contains_key(*id)).count(), 0, "acked before");
    assert!(again.is_empty().await && stuck.staying.is_empty().await, "nothing comes again");
}

/// A Queue of two shards that shall be one, of which the first is full.
struct Stuck {
    staying: Caller,
    /// On the shard that stays.
    filling: HashSet<String>,
    /// On the shard that shall go.
    stored: HashSet<String>,
    _forwards: [PortForward; 2],
}

impl Stuck {
    async fn new(namespace: &Namespace) -> Self {
        // Nothing comes again because somebody was slow.
        namespace.queue(&two_shards().replace("maxAttempts: 2", "ackTimeoutSeconds: 600, maxAttempts: 2"));
        let forwards =
            [0, 1].map(|ordinal| PortForward::start(namespace, &format!("ackwell-orders-{ordinal}"), 7400));
        let (staying, leaving) = (forwards[0].caller("orders").await, forwards[1].caller("orders").await);
        let filling = fill(&staying).await;
        let mut stored = HashSet::new();
        for _ in 0..LEAVING {
            stored.insert(leaving.send_one(message(vec![8; 1 << 20])).await);
        }
        scale(namespace, 1);
        let why = wait_condition(namespace, "Stalled", "True/DrainBlocked");
        for part in ["shard 1 shall go", "DISK_FULL", "spec.storage.size", "ackwell.dev/force-drain=1"] {
            assert!(why.contains(part), "{part:?} is not in {why:?}");
        }
        Self { staying, filling, stored, _forwards: forwards }
    }
}

fn scale(namespace: &Namespace, shards: u32) {
    namespace.expect(&["scale", "queues.ackwell.dev/orders", &format!("--replicas={shards}")]);
}

fn annotate(namespace: &Namespace, change: &str) {
    namespace.expect(&["annotate", "queues.ackwell.dev", "orders", change]);
}

/// Until so many pods are left.
fn wait_shards(namespace: &Namespace, shards: u64) {
    until(&format!("{shards} shards"), MOVED, || {
        let status = namespace.get("queues.ackwell.dev", "orders")?["status"].clone();
        anyhow::ensure!(status["shards"] == shards, "{status}");
        Ok(())
    });
}

/// Receives and acks until all of `ids` have come; the attempts of all that came, by id. None comes twice.
async fn receive_all(callers: &[&Caller], ids: &HashSet<String>) -> HashMap<String, u32> {
    let mut came = HashMap::new();
    until_async("all messages to come", MOVED, async || {
        for caller in callers {
            for delivery in caller.receive(10, Duration::from_secs(1)).await? {
                let message = delivered(&delivery);
                let earlier = came.insert(message.id.clone(), message.attempts);
                assert_eq!(earlier, None, "{} came twice", message.id);
                caller.settle_one(ack(&delivery)).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
            }
        }
        let missing = ids.iter().filter(|id| !came.contains_key(*id)).count();
        anyhow::ensure!(missing == 0, "{missing} are missing");
        Ok(())
    })
    .await;
    came
}
