//! The chart and what it installs agree: flags, values, their schema and their documentation. Whether it renders and
//! installs is tested on a cluster.

use std::path::Path;

use ackwell_operator::run::Args;
use clap::{CommandFactory, Parser};
use serde_json::Value;

fn read(path: &str) -> String {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(top.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn values() -> Value {
    serde_yaml_ng::from_str(&read("charts/ackwell/values.yaml")).expect("values.yaml is YAML")
}

/// The chart starts the operator with flags that it has, and with all that it needs.
#[test]
fn flags_of_the_deployment_exist_and_suffice() {
    let deployment = read("charts/ackwell/templates/deployment.yaml");
    let flags: Vec<&str> = deployment.lines().filter_map(|line| line.trim().strip_prefix("- --")).collect();
    let example = |flag: &&str| {
        let Some((name, value)) = flag.split_once('=') else { return format!("--{flag}") };
        let value = match value {
            "{{ .Values.image.pullPolicy }}" => "Never",
            "{{ .Values.log.format }}" => "json",
            "{{ $.Values.tracing.sampleRatio }}" => "0.01",
            _ if name == "webhook-listen" => "0.0.0.0:9443",
            other => other,
        };
        format!("--{name}={value}")
    };
    let arguments: Vec<String> = flags.iter().map(example).collect();
    Args::try_parse_from([vec!["ackwell-operator".to_owned()], arguments].concat()).unwrap();
    let known = Args::command();
    let webhook =
        known.get_arguments().filter_map(clap::Arg::get_long).filter(|name| name.starts_with("webhook"));
    for name in webhook {
        assert!(
            flags.iter().any(|flag| flag.starts_with(&format!("{name}="))),
            "the chart leaves --{name} out"
        );
    }
}

/// A typo is refused at every level, and what the schema takes is in `values.yaml`.
#[test]
fn schema_knows_every_value_and_no_other() {
    let schema: Value = serde_json::from_str(&read("charts/ackwell/values.schema.json")).unwrap();
    check_closed("", &schema, &values());
}

fn check_closed(path: &str, schema: &Value, values: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], Value::Bool(false), "{path} takes typos");
    let Some(values) = values.as_object().filter(|values| !values.is_empty()) else { return };
    let names = properties.keys().filter(|name| *name != "global");
    assert!(names.eq(values.keys()), "{path}: {:?} and {:?}", properties.keys(), values.keys());
    for (name, value) in values {
        check_closed(&format!("{path}.{name}"), &properties[name], value);
    }
}
