//! `docs/reference/values.md`: what `charts/ackwell/values.yaml` says of each value, with its type out of the schema.
//!
//! It reads the file line by line, since comments are not part of YAML: one key a line, two spaces a level.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use super::Generated;

const VALUES: &str = "charts/ackwell/values.yaml";
const SCHEMA: &str = "charts/ackwell/values.schema.json";
const OUT: &str = "docs/reference/values.md";

const HEAD: &str = "\
# Values of the chart

Made by `cargo xtask gen` from [values.yaml](../../charts/ackwell/values.yaml) and its schema. Unknown values, and values of another
type, are refused: a typo is an error, not a default. [install.md](../install.md) tells how to install.

| Value | Type | Default | What it does |
|---|---|---|---|
";

/// A key, with what the comment above it says.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: Vec<String>,
    /// Absent: it has values below it.
    default: Option<String>,
    comment: String,
}

pub(super) fn generate(top: &Path) -> anyhow::Result<Vec<Generated>> {
    let read = |path: &str| std::fs::read_to_string(top.join(path)).with_context(|| format!("read {path}"));
    let schema: Value = serde_json::from_str(&read(SCHEMA)?).context("parse the schema")?;
    let rows: Vec<String> = entries(&read(VALUES)?)?.iter().filter_map(|entry| row(entry, &schema)).collect();
    Ok(vec![Generated { path: PathBuf::from(OUT), content: format!("{HEAD}{}", rows.concat()).into_bytes() }])
}

fn entries(text: &str) -> anyhow::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut path, mut comments) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() {
            comments.clear();
        } else if let Some(comment) = trimmed.strip_prefix('#') {
            comments.push(comment.trim());
        } else {
            let (key, default) =
                trimmed.split_once(':').with_context(|| format!("{VALUES}: {line:?} has no key"))?;
            path.truncate((line.len() - trimmed.len()) / 2);
            path.push(key.to_owned());
            let default = Some(default.trim().to_owned()).filter(|default| !default.is_empty());
            entries.push(Entry { path: path.clone(), default, comment: comments.join(" ") });
            comments.clear();
        }
    }
    every_value_is_explained(&entries)?;
    Ok(entries)
}

/// By a comment of its own, or of what it is part of.
fn every_value_is_explained(entries: &[Entry]) -> anyhow::Result<()> {
    for entry in entries.iter().filter(|entry| entry.default.is_some()) {
        let explains = |other: &Entry| entry.path.starts_with(&other.path) && !other.comment.is_empty();
        if !entries.iter().any(explains) {
            bail!("{VALUES}: no comment says what {} does", entry.path.join("."));
        }
    }
    Ok(())
}

/// Groups that say nothing need no row.
fn row(entry: &Entry, schema: &Value) -> Option<String> {
    let Entry { path, default, comment } = entry;
    if default.is_none() && comment.is_empty() {
        return None;
    }
    let default = default.as_ref().map_or(String::new(), |default| format!("`{default}`"));
    let kind = if default.is_empty() { String::new() } else { kind(path, schema) };
    Some(format!("| `{}` | {kind} | {default} | {} |\n", path.join("."), comment.replace('|', "\\|")))
}

/// What the schema says of it.
fn kind(path: &[String], schema: &Value) -> String {
    let mut at = schema;
    for key in path {
        at = resolve(at, schema);
        at = if at["properties"][key].is_null() {
            &at["additionalProperties"]
        } else {
            &at["properties"][key]
        };
    }
    let at = resolve(at, schema);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (at["enum"].as_array(), &at["type"]) {
        (Some(words), _) => {
            words.iter().map(|value| format!("`{}`", word(value))).collect::<Vec<_>>().join(", ")
        }
        (None, Value::Array(kinds)) => kinds.iter().map(word).collect::<Vec<_>>().join(" or "),
        (None, kind) => word(kind),
    }
}

fn resolve<'a>(at: &'a Value, schema: &'a Value) -> &'a Value {
    let name = at["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/definitions/"));
    name.map_or(at, |name| &schema["definitions"][name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rows_with_their_comments() {
        let text = "# Head.\n\n# Images.\nimage:\n  # The\n  # tag.\n  tag: \"\"\n  policy: Always\n\nplain:\n  # Has | one.\n  n: 2\n";
        let schema = serde_json::json!({
            "definitions": {"tag": {"type": ["string", "integer"]}},
            "properties": {
                "image": {"properties": {"tag": {"$ref": "#/definitions/tag"}, "policy": {"enum": ["Always", "Never"]}}},
                "plain": {"properties": {"n": {"type": "integer"}}},
            },
        });
        let rows: Vec<String> =
            entries(text).unwrap().iter().filter_map(|entry| row(entry, &schema)).collect();
        let expected = [
            "| `image` |  |  | Images. |\n",
            "| `image.tag` | string or integer | `\"\"` | The tag. |\n",
            "| `image.policy` | `Always`, `Never` | `Always` |  |\n",
            "| `plain.n` | integer | `2` | Has \\| one. |\n",
        ];
        assert_eq!(rows, expected);
    }

    /// Promise: nobody adds a value without saying what it does.
    #[test]
    fn value_without_a_comment_is_refused() {
        let error = entries("a:\n  b: 1\n").unwrap_err().to_string();
        assert!(error.contains("a.b"), "{error}");
    }
}
