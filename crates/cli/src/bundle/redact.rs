//! Objects without what must not be told.

use serde_json::Value;

/// Stands where a value was.
const LEFT_OUT: &str = "(left out)";
/// Long and telling nothing; or a copy of the object, with all that is left out of it here.
const DROPPED: [&str; 2] = ["managedFields", "kubectl.kubernetes.io/last-applied-configuration"];

pub(super) fn yaml(mut object: Value) -> anyhow::Result<String> {
    redact(&mut object);
    Ok(serde_yaml_ng::to_string(&object)?)
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            DROPPED.iter().for_each(|dropped| _ = fields.remove(*dropped));
            if let Some(Value::Array(variables)) = fields.get_mut("env") {
                variables.iter_mut().for_each(hide);
            }
            fields.values_mut().for_each(redact);
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Whatever its name is: nobody knows all the names that people give to passwords.
fn hide(variable: &mut Value) {
    if let Some(value) = variable.get_mut("value") {
        *value = LEFT_OUT.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: what somebody put into an environment variable does not leave the cluster with the bundle.
    #[test]
    fn values_of_the_environment_are_left_out() {
        let env = serde_json::json!([
            {"name": "DB", "value": "hunter2"},
            {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}},
        ]);
        let pods = serde_json::json!([{
            "metadata": {
                "managedFields": [{"manager": "hunter2"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2", "kept": "yes"},
            },
            "spec": {"initContainers": [{"env": env}], "containers": [{"env": env, "args": ["broker"]}]},
        }]);
        let text = yaml(pods).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        for kept in ["DB", LEFT_OUT, "database", "broker", "kept"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }
}
