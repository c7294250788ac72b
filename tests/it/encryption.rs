//! Brokers whose stores are sealed, as processes.

use std::fs;
use std::path::Path;

use ackwell_tests::caller::{Caller, ack, delivered};
use ackwell_tests::processes::{Broker, QUEUE, settings};

const FIRST: (&str, &str) = ("k1", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
const SECOND: (&str, &str) = ("k2", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
/// Ends so that the operator can tell.
const KEY_MISSING: i32 = 66;

fn give(folder: &Path, (id, key): (&str, &str)) {
    fs::write(folder.join(id), key).unwrap();
}

fn in_clear(folder: &Path, marker: &str) -> bool {
    let has =
        |path: &Path| fs::read(path).unwrap().windows(marker.len()).any(|part| part == marker.as_bytes());
    fs::read_dir(folder).unwrap().any(|entry| has(&entry.unwrap().path()))
}

/// Promise: a broker seals what it stores. Without its key it ends with a code of its own and names the key; with it, and a newer
/// one, everything is there; and no key is in its log.
#[tokio::test]
async fn sealed_broker_needs_its_key_and_says_which() {
    let keys = tempfile::tempdir().unwrap();
    give(keys.path(), FIRST);
    let flag = ["--encryption-keys", keys.path().to_str().unwrap()];
    let mut broker = Broker::prepare(settings()).with(&flag);
    broker.restart();
    let caller = Caller::connect(broker.address(), QUEUE).await;
    caller.send_body("SECRET-body").await;
    broker.kill();
    assert!(!in_clear(&broker.data(), "SECRET-body"));

    fs::remove_file(keys.path().join("k1")).unwrap();
    let refused = |broker: &Broker| {
        let process = broker.spawn();
        let log = process.log();
        assert_eq!(process.wait().code(), Some(KEY_MISSING));
        fs::read_to_string(log).unwrap()
    };
    let none = refused(&broker);
    assert!(none.contains(r#"sealed with the key \"k1\""#), "{none}");
    give(keys.path(), SECOND);
    let other = refused(&broker);
    assert!(other.contains(r#"\"k1\", which is not among those given (k2)"#), "{other}");

    give(keys.path(), FIRST);
    broker.restart();
    let caller = Caller::connect(broker.address(), QUEUE).await;
    let delivery = caller.receive_one().await;
    assert_eq!(delivered(&delivery).body, "SECRET-body");
    caller.settle_one(ack(&delivery)).await.unwrap();
    let log = broker.log();
    assert!(!log.contains(FIRST.1) && !log.contains(SECOND.1), "{log}");
}
