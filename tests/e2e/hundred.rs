//! A hundred Queues at once: how long until they serve, and what the operators take for them.

use std::fmt;
use std::time::Duration;

use ackwell_tests::cluster::{self, Kubectl, Namespace};
use ackwell_tests::wait::{now, until};
use serde_json::{Value, json};

use crate::manifests::ORDERS;
use crate::queue::text;

/// With a broker each. A node takes 110 pods, and the operators are two.
const QUEUES: usize = 100;
/// Starting a hundred containers takes two cores a while, whoever asks for them.
const LIMIT: Duration = Duration::from_mins(10);
/// So long nothing is changed, and what is done meanwhile is counted.
const STEADY: Duration = Duration::from_mins(2);
const OPERATORS: &str = "app.kubernetes.io/name=ackwell";
/// By which the API server counts the requests of the operators, the first that matches: those about their lease, writes,
/// and reads.
const COUNTERS: [(&str, &str, &str); 3] = [
    ("hundred-lease", "coordination.k8s.io", "*"),
    ("hundred-writes", "*", "create update patch delete deletecollection"),
    ("hundred-reads", "*", "*"),
];

/// Promise: an operator has a hundred Queues ready in the time that their brokers take to start, costs next to nothing while
/// nothing changes, and none of them is in another's way when they go.
#[test]
#[ignore = "takes minutes: cargo xtask test --only hundred"]
fn hundred_queues_come_stand_and_go() {
    let namespace = Namespace::new("hundred");
    let operators = Operators::counted();
    let before = operators.take();
    println!("before: {before}");

    let started = now();
    // A call of kubectl takes a minute at most.
    for some in (0..QUEUES).map(manifest).collect::<Vec<_>>().chunks(10) {
        namespace.apply(&some.join("---\n"));
    }
    let applied = started.elapsed();
    until("all to be Ready", LIMIT, || all_ready(&namespace));
    let ready = operators.take();
    println!(
        "applied in {applied:?}, all Ready after {:?}; since before: {}",
        started.elapsed(),
        ready.since(&before)
    );

    // The last counts, and what the brokers' first minute brings.
    settle(&operators);
    let begun = operators.take();
    pause(STEADY);
    let steady = operators.take().since(&begun);
    println!("in {STEADY:?} in which nothing changes: {steady}");
    assert_eq!(steady.writes(), 0, "nothing changes, and something is written: {steady}");

    let (going, begun) = (now(), operators.take());
    namespace.expect(&["delete", "queues.ackwell.dev", "--all", "--wait=false"]);
    namespace.wait("queues.ackwell.dev --all", "delete", LIMIT);
    let deleted = going.elapsed();
    namespace.wait("pods --all", "delete", LIMIT);
    println!(
        "deleted in {deleted:?}, all pods gone after {:?}: {}",
        going.elapsed(),
        operators.take().since(&begun)
    );
    assert_eq!(namespace.list("persistentvolumeclaims", "").unwrap().len(), QUEUES, "volumes are kept");
}

fn manifest(number: usize) -> String {
    // A node of two cores has no room for what they ask for by default.
    let resources = "spec:\n  resources: {requests: {cpu: 1m, memory: 16Mi}}\n";
    ORDERS.replace("name: orders", &format!("name: q{number:02}")).replace("spec:\n", resources)
}

fn all_ready(namespace: &Namespace) -> anyhow::Result<()> {
    let queues = namespace.list("queues.ackwell.dev", "")?;
    let ready = |queue: &&Value| {
        let conditions = queue["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let count = queues.iter().filter(ready).count();
    anyhow::ensure!(count == QUEUES, "{count} of {QUEUES}");
    Ok(())
}

/// Until they have written nothing for a while.
fn settle(operators: &Operators) {
    let mut last = operators.take();
    until("the operators to have nothing left to write", LIMIT, || {
        pause(Duration::from_secs(15));
        let writes = operators.take().since(&last).writes();
        last = operators.take();
        anyhow::ensure!(writes == 0, "{writes} writes");
        Ok(())
    });
}

/// What is measured is how little happens in a time.
fn pause(time: Duration) {
    let over = now() + time;
    until("time to pass", time * 2, || {
        anyhow::ensure!(now() >= over, "not yet");
        Ok(())
    });
}

/// The operators, whose requests the API server counts.
struct Operators(Kubectl);

/// What they took up to a moment, or between two.
struct Cost {
    /// Of all of them.
    processor: Duration,
    /// Of the largest, in that moment.
    memory: u64,
    requests: [u64; COUNTERS.len()],
}

impl Operators {
    fn counted() -> Self {
        cluster::installed();
        let kubectl = Kubectl::in_namespace("ackwell-system");
        let pods = kubectl.list("pods", OPERATORS).unwrap();
        let account = text(&pods[0]["spec"]["serviceAccountName"]);
        for (precedence, (name, groups, verbs)) in COUNTERS.into_iter().enumerate() {
            kubectl.apply(&flow_schema(name, groups, verbs, precedence + 100, account));
        }
        Self(kubectl)
    }

    fn take(&self) -> Cost {
        let pods = self.0.list("pods", OPERATORS).unwrap();
        let runs = |pod: &&Value| pod["status"]["phase"] == "Running";
        let usages = pods.iter().filter(runs).map(|pod| cluster::usage(pod, "ackwell-operator").unwrap());
        let (processor, memory): (Vec<_>, Vec<_>) =
            usages.map(|usage| (usage.processor, usage.memory)).unzip();
        let metrics = self.0.expect(&["get", "--raw", "/metrics"]);
        Cost {
            processor: processor.into_iter().sum(),
            memory: memory.into_iter().max().unwrap_or_default(),
            requests: COUNTERS.map(|(name, ..)| dispatched(&metrics, name)),
        }
    }
}

/// Has the API server count the requests of the operators that are about `groups`, by themselves.
fn flow_schema(name: &str, groups: &str, verbs: &str, precedence: usize, account: &str) -> String {
    let rule = json!({
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": account, "namespace": "ackwell-system"}}],
        "resourceRules": [{
            "apiGroups": [groups], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            "verbs": verbs.split(' ').collect::<Vec<_>>(),
        }],
    });
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": "workload-high"},
            "matchingPrecedence": precedence,
            "rules": [rule],
        },
    })
    .to_string()
        + "\n"
}

fn dispatched(metrics: &str, flow_schema: &str) -> u64 {
    let start = format!("apiserver_flowcontrol_dispatched_requests_total{{flow_schema=\"{flow_schema}\",");
    let lines = metrics.lines().filter(|line| line.starts_with(&start));
    // Written without an exponent, since they are few.
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

impl Cost {
    fn since(&self, before: &Self) -> Self {
        Self {
            processor: self.processor.saturating_sub(before.processor),
            memory: self.memory,
            requests: std::array::from_fn(|index| self.requests[index] - before.requests[index]),
        }
    }

    fn writes(&self) -> u64 {
        self.requests[1]
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lease, writes, reads] = self.requests;
        let (processor, memory) = (self.processor, self.memory >> 20);
        write!(
            f,
            "{processor:?} of a core, {memory} MiB, {writes} writes, {reads} reads, {lease} about the lease"
        )
    }
}
