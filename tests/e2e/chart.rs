//! What the chart makes of values, put to the API server.

use ackwell_tests::cluster::{Kubectl, Namespace, rendered};

const VALUES: [&str; 3] = ["everything", "least", "watched"];
/// Of the Prometheus operator, which the cluster of the tests does not have.
const MONITORING: [(&str, &str); 2] = [("PodMonitor", "podmonitors"), ("PrometheusRule", "prometheusrules")];

/// Promise: whatever the values, the API server takes all that the chart makes of them; typos in manifests are refused.
#[test]
fn api_server_takes_what_the_chart_makes_of_any_values() {
    let (own, watched) = (Namespace::new("chart"), Namespace::new("chart-watched"));
    make_monitoring_kinds(&own);
    let watch = format!("watchNamespaces={{{}}}", watched.namespace());
    for values in VALUES {
        let set = if values == "watched" { Some(watch.as_str()) } else { None };
        let manifests = rendered(own.namespace(), Some(values), set).unwrap();
        let taken = Kubectl::dry_run_of_all(&manifests);
        taken.unwrap_or_else(|error| panic!("{values}: {error:#}"));
    }
    let manifests = rendered(own.namespace(), None, None).unwrap();
    Kubectl::dry_run_of_all(&manifests).unwrap();
    let broken = manifests.replace("revisionHistoryLimit", "revisionHistroyLimit");
    let refused = format!("{:#}", Kubectl::dry_run_of_all(&broken).expect_err("a typo is no field"));
    assert!(refused.contains("revisionHistroyLimit"), "{refused}");
}

/// As far as the API server has to know them.
fn make_monitoring_kinds(kubectl: &Kubectl) {
    for (kind, plural) in MONITORING {
        kubectl.apply(&format!(
            "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition,\
             metadata: {{name: {plural}.monitoring.coreos.com}},\
             spec: {{group: monitoring.coreos.com, scope: Namespaced, names: {{kind: {kind}, plural: {plural}}},\
             versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{\
             type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}"
        ));
        let name = format!("customresourcedefinition/{plural}.monitoring.coreos.com");
        kubectl.wait(&name, "condition=Established", std::time::Duration::from_secs(30));
    }
}
