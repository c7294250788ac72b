//! Where brokers and sidecars tell what becomes of messages: the standard environment variables of OpenTelemetry. The operator has
//! no traces of its own.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};

/// A collector, and how much it is told.
#[derive(Clone, Debug)]
pub struct Traces {
    /// OTLP over gRPC. May name the pod's node as `$(NODE_IP)`.
    pub endpoint: String,
    /// Of those traces that no application has decided about, between 0 and 1.
    pub ratio: f64,
}

/// A ratio of the command line.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "a number between 0 and 1 is needed, such as 0.01".to_owned())
}

impl Traces {
    /// Of a container in a pod of this namespace. Kubernetes fills in what others name by `$(...)`, if it stands before them.
    pub(crate) fn environment(&self, namespace: &str) -> Vec<EnvVar> {
        let resource = format!("k8s.namespace.name={namespace},k8s.pod.name=$(POD_NAME)");
        vec![
            from_field("POD_NAME", "metadata.name"),
            from_field("NODE_IP", "status.hostIP"),
            value("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.clone()),
            value("OTEL_RESOURCE_ATTRIBUTES", resource),
            value("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
            value("OTEL_TRACES_SAMPLER_ARG", self.ratio.to_string()),
        ]
    }
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() }
}

/// A variable with what Kubernetes knows of the pod.
pub(crate) fn from_field(name: &str, field_path: &str) -> EnvVar {
    let field_path = field_path.to_owned();
    let field_ref = Some(ObjectFieldSelector { field_path, ..ObjectFieldSelector::default() });
    let value_from = Some(EnvVarSource { field_ref, ..EnvVarSource::default() });
    EnvVar { name: name.to_owned(), value_from, ..EnvVar::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_a_share() {
        assert_eq!((ratio("0"), ratio("0.01"), ratio("1")), (Ok(0.0), Ok(0.01), Ok(1.0)));
        for wrong in ["", "-0.1", "1.01", "NaN", "1%"] {
            ratio(wrong).unwrap_err();
        }
    }
}
