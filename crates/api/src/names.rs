//! Names, labels and addresses of what a Queue is made of.

use std::collections::BTreeMap;

/// Port of the gRPC API of a broker.
pub const GRPC_PORT: u16 = 7400;
/// Port of health and metrics of every process.
pub const HTTP_PORT: u16 = 7410;
/// The same, of a sidecar that has a broker beside it.
pub const SIDECAR_HTTP_PORT: u16 = 7411;
/// `app.kubernetes.io/managed-by` of everything the operator makes.
pub const MANAGER: &str = "ackwell-operator";
/// Label that names the Queue an object belongs to.
pub const QUEUE_LABEL: &str = "ackwell.dev/queue";
/// Label by which pods ask for a sidecar.
pub const INJECT_LABEL: &str = "ackwell.dev/inject";
/// Annotation that names the queues a pod uses.
pub const QUEUES_ANNOTATION: &str = "ackwell.dev/queues";
/// Annotation by which a pod asks for a UNIX socket: `true` or `false`.
pub const SOCKET_ANNOTATION: &str = "ackwell.dev/unix-socket";
/// Annotation of a Queue: while it is there, whatever its value, the operator changes nothing.
pub const PAUSED_ANNOTATION: &str = "ackwell.dev/paused";
/// Annotation of a Queue, and of the pods of its brokers: when somebody last asked for new pods. Another value, whatever it
/// is, replaces them.
pub const RESTARTED_ANNOTATION: &str = "ackwell.dev/restarted-at";
/// Annotation of a StatefulSet: the shards there are, whether or not their brokers run.
pub const SHARDS_ANNOTATION: &str = "ackwell.dev/shards";
/// Annotation of a StatefulSet: generation, number of shards before and after of the newest placement.
pub const PLACEMENT_ANNOTATION: &str = "ackwell.dev/placement";
/// Annotation of a StatefulSet: ordinals of shards that have proved to be empty and are gone; their volumes stay.
pub const EMPTIED_ANNOTATION: &str = "ackwell.dev/emptied";
/// Annotation of a Queue: the ordinal of a draining shard whose messages are given up on; its volume stays.
pub const FORCE_DRAIN_ANNOTATION: &str = "ackwell.dev/force-drain";
/// Annotation of a StatefulSet: which template it has, as the operator built it.
pub const TEMPLATE_ANNOTATION: &str = "ackwell.dev/template";
/// Name of the container that is a broker.
pub const BROKER_CONTAINER: &str = "broker";
/// Name of the volume claim template.
pub const DATA_VOLUME: &str = "data";
/// Audience of the tokens by which brokers know who calls.
pub const AUDIENCE: &str = "ackwell.dev";
/// ConfigMap with the authorities of brokers, in each namespace with sidecars.
pub const AUTHORITIES: &str = "ackwell-ca";
/// Key of the authorities in it.
pub const AUTHORITIES_KEY: &str = "ca.crt";
/// Key of the cold-start configuration in the ConfigMap.
pub const CONFIG_KEY: &str = "queue.json";

const NAME_LABEL: (&str, &str) = ("app.kubernetes.io/name", "ackwell");
const COMPONENT_LABEL: (&str, &str) = ("app.kubernetes.io/component", "broker");

/// `ackwell-orders`: ServiceAccount, ConfigMap, Service of the ready shards, StatefulSet.
pub fn child(queue: &str) -> String {
    format!("ackwell-{queue}")
}

/// `ackwell-orders-shards`: the headless Service.
pub fn shards_service(queue: &str) -> String {
    format!("ackwell-{queue}-shards")
}

/// `ackwell-orders-0`: a broker pod.
pub fn pod(queue: &str, ordinal: u32) -> String {
    format!("ackwell-{queue}-{ordinal}")
}

/// `ackwell-orders-tls`: the Secret with the certificate of the brokers.
pub fn certificate(queue: &str) -> String {
    format!("ackwell-{queue}-tls")
}

/// `ackwell-nightly-backup`: the pod that makes the backup of that task, and the Secret with its certificate.
pub fn backup(task: &str) -> String {
    format!("ackwell-{task}-backup")
}

/// `ackwell-orders-restore`: the pod that restores a backup into that Queue, and the Secret with its certificate.
pub fn restore(queue: &str) -> String {
    format!("ackwell-{queue}-restore")
}

/// The name in the certificate of such a pod, `program` being `backup` or `restore`: brokers know it by that.
pub fn program_name(namespace: &str, queue: &str, program: &str) -> String {
    format!("{program}.{}.{namespace}.svc", child(queue))
}

/// Labels of such a pod: none by which it would be taken for a broker.
pub fn program_labels(queue: &str, program: &str) -> BTreeMap<String, String> {
    let mut labels = labels(queue);
    labels.insert(COMPONENT_LABEL.0.to_owned(), program.to_owned());
    labels
}

/// The DNS names by which the brokers of a Queue are called: all shards, and any ready one.
pub fn server_names(namespace: &str, queue: &str) -> Vec<String> {
    let services = [format!("*.{}", shards_service(queue)), child(queue)];
    let full =
        |service: &String| ["svc", "svc.cluster.local"].map(|end| format!("{service}.{namespace}.{end}"));
    services.iter().flat_map(full).collect()
}

/// The name in the certificate of one shard.
pub fn server_name(namespace: &str, queue: &str, ordinal: u32) -> String {
    format!("{}.{}.{namespace}.svc", pod(queue, ordinal), shards_service(queue))
}

/// `data-ackwell-orders-0`: the volume claim of a broker pod.
pub fn volume_claim(queue: &str, ordinal: u32) -> String {
    format!("{DATA_VOLUME}-{}", pod(queue, ordinal))
}

/// `ackwell-orders.shop.svc:7400`: any ready shard.
pub fn endpoint(namespace: &str, queue: &str) -> String {
    format!("{}.{namespace}.svc:{GRPC_PORT}", child(queue))
}

/// `ackwell-orders-0.ackwell-orders-shards.shop.svc:7400`: one shard, ready or not.
pub fn shard_address(namespace: &str, queue: &str, ordinal: u32) -> String {
    format!("{}:{GRPC_PORT}", server_name(namespace, queue, ordinal))
}

/// The shard a pod of this name is, if it is one of `queue`.
pub fn ordinal(queue: &str, pod_name: &str) -> Option<u32> {
    let text = pod_name.strip_prefix(&child(queue))?.strip_prefix('-')?;
    text.parse().ok().filter(|ordinal: &u32| ordinal.to_string() == text)
}

/// The Queue that an object named like [`child`] belongs to.
pub fn queue_of_child(name: &str) -> Option<&str> {
    name.strip_prefix("ackwell-")
}

/// The Queue that a volume claim named like [`volume_claim`] belongs to.
pub fn queue_of_claim(name: &str) -> Option<&str> {
    let pod = name.strip_prefix(DATA_VOLUME)?.strip_prefix('-')?;
    Some(queue_of_child(pod)?.rsplit_once('-')?.0)
}

/// Labels that select the broker pods of a Queue. They can never change.
pub fn selector_labels(queue: &str) -> BTreeMap<String, String> {
    owned([NAME_LABEL, COMPONENT_LABEL, ("app.kubernetes.io/instance", queue), (QUEUE_LABEL, queue)])
}

/// Labels of every object of a Queue.
pub fn labels(queue: &str) -> BTreeMap<String, String> {
    let mut labels = selector_labels(queue);
    labels.extend(owned([("app.kubernetes.io/managed-by", MANAGER)]));
    labels
}

/// Labels of the ConfigMap [`AUTHORITIES`], which belongs to no Queue.
pub fn authorities_labels() -> BTreeMap<String, String> {
    owned([NAME_LABEL, ("app.kubernetes.io/component", "ca"), ("app.kubernetes.io/managed-by", MANAGER)])
}

/// The selector as text, as `kubectl get pods -l` takes it.
pub fn selector(queue: &str) -> String {
    let pairs: Vec<_> = selector_labels(queue).iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCHITECTURE.md promises these names; sidecars and people dial them.
    #[test]
    fn names_are_those_of_the_architecture() {
        assert_eq!(child("orders"), "ackwell-orders");
        assert_eq!(volume_claim("orders", 0), "data-ackwell-orders-0");
        assert_eq!(endpoint("shop", "orders"), "ackwell-orders.shop.svc:7400");
        assert_eq!(
            shard_address("shop", "orders", 0),
            "ackwell-orders-0.ackwell-orders-shards.shop.svc:7400"
        );
    }

    #[test]
    fn queue_is_read_back_from_names() {
        assert_eq!(queue_of_child(&child("orders-eu")), Some("orders-eu"));
        assert_eq!(queue_of_claim(&volume_claim("orders-eu", 12)), Some("orders-eu"));
        assert_eq!((queue_of_child("redis"), queue_of_claim("data-redis-0")), (None, None));
    }

    #[test]
    fn ordinal_of_a_foreign_pod_is_none() {
        assert_eq!(ordinal("orders", "ackwell-orders-12"), Some(12));
        for name in [
            "ackwell-orders",
            "ackwell-orders-",
            "ackwell-orders-x",
            "ackwell-orders-01",
            "ackwell-orders-eu-0",
        ] {
            assert_eq!(ordinal("orders", name), None, "{name}");
        }
    }
}
