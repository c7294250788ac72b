use std::path::Path;

use super::*;
use crate::traces::Traces;
use crate::webhook::{requested_queues, requested_socket};

fn options() -> SidecarOptions {
    SidecarOptions { image: "registry.example/ackwelld:1.2.3".to_owned(), pull_policy: None, traces: None }
}

fn pod(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/webhook/inject/pods").join(name);
    serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn injected(pod: &Value) -> Value {
    injected_with(pod, &options())
}

fn injected_with(pod: &Value, options: &SidecarOptions) -> Value {
    let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
    let queues = requested_queues(&typed, "shop").unwrap();
    let mut pod = pod.clone();
    let wants_socket = requested_socket(&typed).unwrap();
    json_patch::patch(&mut pod, &inject(&typed, "shop", &queues, wants_socket, options)).unwrap();
    pod
}

/// What pods look like with their sidecar; applying it again changes nothing.
#[test]
fn pods_with_their_sidecar() {
    for name in ["plain", "busy", "guaranteed", "pod-resources", "socket"] {
        let once = injected(&pod(&format!("{name}.yaml")));
        insta::assert_yaml_snapshot!(name, once["spec"]);
        assert_eq!(injected(&once), once, "{name}");
        let sidecar = &once["spec"]["initContainers"][0];
        assert_eq!(
            (&sidecar["name"], &sidecar["restartPolicy"]),
            (&json!(CONTAINER), &json!("Always")),
            "{name}"
        );
    }
}

/// Kubernetes calls a pod Guaranteed only if every container is: one that is not gets the small requests.
#[test]
fn pod_that_is_not_guaranteed_gets_no_limits() {
    let guaranteed = pod("guaranteed.yaml");
    let changes = [
        ("/spec/containers/0/resources/requests/cpu", json!("1")),
        ("/spec/containers/0/resources/requests/memory", json!("512Mi")),
        ("/spec/containers/0/resources/limits", json!({"cpu": "2"})),
        ("/spec/initContainers/0/resources", json!({})),
        ("/spec/initContainers/0/resources/limits/cpu", json!("0")),
    ];
    for (field, value) in changes {
        let mut pod = guaranteed.clone();
        *pod.pointer_mut(field).unwrap() = value;
        let resources = &injected(&pod)["spec"]["initContainers"][0]["resources"];
        assert_eq!(*resources, json!({"requests": {"cpu": "10m", "memory": "32Mi"}}), "{field}");
    }
}

/// Another webhook adds a container after us, and the API server calls us again.
#[test]
fn container_added_later_gets_the_address() {
    let mut pod = injected(&pod("plain.yaml"));
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "late", "image": "other"}));
    let again = injected(&pod);
    assert_eq!(again["spec"]["containers"][1]["env"][0]["value"], "127.0.0.1:7400");
    assert_eq!(again["spec"]["initContainers"], pod["spec"]["initContainers"]);
}

/// Its socket is where its own sidecar puts it.
#[test]
fn pod_that_brings_its_own_sidecar_gets_no_folder() {
    let mut pod = pod("socket.yaml");
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": CONTAINER, "image": "own"}));
    let injected = injected(&pod);
    assert_eq!(
        injected["spec"]["containers"][0]["volumeMounts"],
        pod["spec"]["containers"][0]["volumeMounts"]
    );
    assert_eq!(injected["spec"]["containers"][0]["env"][0]["value"], "127.0.0.1:7400");
}

/// Names of containers are unique in a pod: who brings the sidecar themselves keeps theirs.
#[test]
fn pod_that_brings_its_own_sidecar_keeps_it() {
    let mut pod = pod("plain.yaml");
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": CONTAINER, "image": "own"}));
    let injected = injected(&pod);
    assert_eq!(injected["spec"]["initContainers"], Value::Null);
    assert_eq!(injected["spec"]["containers"][1], json!({"name": CONTAINER, "image": "own"}));
}

/// Ports that collide are accepted, with a warning: only one of both can listen.
#[test]
fn colliding_ports_are_a_warning() {
    let mut value = pod("plain.yaml");
    let of = |value: &Value| warnings(&serde_json::from_value(injected(value)).unwrap());
    assert_eq!(of(&value), Vec::<String>::new(), "the sidecar's own port is none");
    value["spec"]["hostNetwork"] = json!(true);
    value["spec"]["containers"][0]["ports"] = json!([{"containerPort": 7410}, {"containerPort": 8080}]);
    let [host_network, port] = &of(&value)[..] else { panic!("two warnings") };
    assert!(host_network.contains("7400") && host_network.len() < 256, "{host_network}");
    assert!(port.contains("\"app\" declares port 7410"), "{port}");
}

/// Promise: a sidecar is told where traces go, and its application is not.
#[test]
fn sidecar_is_told_where_traces_go() {
    let traces = Traces { endpoint: "http://collector.observability:4317".to_owned(), ratio: 0.01 };
    let options = SidecarOptions { traces: Some(traces), ..options() };
    let (pod, told) = (injected(&pod("plain.yaml")), injected_with(&pod("plain.yaml"), &options));
    insta::assert_yaml_snapshot!("traced", told["spec"]["initContainers"][0]["env"]);
    assert_eq!(told["spec"]["containers"], pod["spec"]["containers"]);
}
