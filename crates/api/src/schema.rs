//! Checks a manifest against the CRD's own schema, as the API server does, for manifests that it never sees.
//!
//! It knows the keywords that the schema of `Queue` uses. CEL rules are in `rules`, patterns in `parse_bytes`.

use std::fmt;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::Queue;

/// What the API server handles apart from the schema.
const OUTSIDE_SCHEMA: [&str; 3] = ["apiVersion", "kind", "metadata"];

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(Queue::crd()).expect("the CRD is generated from types that serialize");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
});

/// One thing that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where, like `spec.delivery.maxAttempts`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl Violation {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Everything in `manifest` that the schema of `Queue` refuses.
pub(crate) fn violations(manifest: &Value) -> Vec<Violation> {
    let mut body = manifest.clone();
    if let Some(fields) = body.as_object_mut() {
        OUTSIDE_SCHEMA.iter().for_each(|field| drop(fields.remove(*field)));
    }
    let mut found = Vec::new();
    check("", &SCHEMA, &body, &mut found);
    found
}

fn check(path: &str, schema: &Value, value: &Value, found: &mut Vec<Violation>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if !has_type(schema, value) {
        found.push(Violation::new(path, format!("must be of type {}", type_name(schema))));
        return;
    }
    check_enum(path, schema, value, found);
    match value {
        Value::Object(fields) => check_object(path, schema, fields, found),
        Value::Array(items) => {
            check_count(path, schema, ["minItems", "maxItems"], items.len(), found);
            let item_path = |index| format!("{path}[{index}]");
            items
                .iter()
                .enumerate()
                .for_each(|(at, item)| check(&item_path(at), &schema["items"], item, found));
        }
        Value::String(text) => {
            check_count(path, schema, ["minLength", "maxLength"], text.chars().count(), found);
        }
        Value::Number(number) => check_range(path, schema, number.as_f64().unwrap_or(f64::NAN), found),
        Value::Bool(_) | Value::Null => {}
    }
}

fn check_object(path: &str, schema: &Value, fields: &Map<String, Value>, found: &mut Vec<Violation>) {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing = required.filter(|name| !fields.contains_key(*name));
    found.extend(missing.map(|name| Violation::new(child(name), "is required")));
    check_count(path, schema, ["minProperties", "maxProperties"], fields.len(), found);
    for (name, value) in fields {
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(property), _) | (None, Some(property)) => check(&child(name), property, value, found),
            (None, None) if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            (None, None) => found.push(Violation::new(child(name), "is not a field that Queue has")),
        }
    }
}

fn check_enum(path: &str, schema: &Value, value: &Value, found: &mut Vec<Violation>) {
    let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) else { return };
    let words: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
    found.push(Violation::new(path, format!("must be one of {}", words.join(", "))));
}

fn check_count(path: &str, schema: &Value, [min, max]: [&str; 2], count: usize, found: &mut Vec<Violation>) {
    let bound = |name: &str| schema[name].as_u64().and_then(|bound| usize::try_from(bound).ok());
    if let Some(bound) = bound(min).filter(|bound| count < *bound) {
        found.push(Violation::new(path, format!("must have at least {bound} entries or characters")));
    }
    if let Some(bound) = bound(max).filter(|bound| count > *bound) {
        found.push(Violation::new(path, format!("must have at most {bound} entries or characters")));
    }
}

fn check_range(path: &str, schema: &Value, number: f64, found: &mut Vec<Violation>) {
    if let Some(bound) = schema["minimum"].as_f64().filter(|bound| number < *bound) {
        found.push(Violation::new(path, format!("must be at least {bound}")));
    }
    if let Some(bound) = schema["maximum"].as_f64().filter(|bound| number > *bound) {
        found.push(Violation::new(path, format!("must be at most {bound}")));
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    let integer = value.is_i64() || value.is_u64();
    if schema["x-kubernetes-int-or-string"] == true {
        return integer || value.is_string();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => integer,
        Some("number") => value.is_number(),
        _ => true,
    }
}

fn type_name(schema: &Value) -> &str {
    schema["type"].as_str().unwrap_or("integer or string")
}
