//! The software bill of materials: every crate that is compiled into the three binaries, as `CycloneDX` 1.6.
//!
//! Nothing else is in an image: the binaries are static, on an empty base.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::{Value, json};

use crate::child;
use crate::image;
use crate::workspace::{VERSION, Workspace};

/// Of crates.io, as Cargo.lock names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The document.
pub(super) fn of(workspace: &Workspace) -> anyhow::Result<String> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let args = ["metadata", "--format-version=1", "--locked", "--filter-platform", &target];
    let metadata = child::output(&mut workspace.cargo(args))?;
    let metadata: Value = serde_json::from_str(&metadata).context("read what cargo says of the crates")?;
    let lock = std::fs::read_to_string(workspace.top.join("Cargo.lock")).context("read Cargo.lock")?;
    Ok(serde_json::to_string_pretty(&document(&metadata, &checksums(&lock)))?)
}

fn document(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let compiled = compiled(metadata);
    let packages = items(&metadata["packages"]);
    let components: Vec<Value> = packages
        .iter()
        .filter(|package| compiled.contains(text(&package["id"])))
        .map(|package| component(package, checksums))
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "ackwell", "version": VERSION}},
        "components": components,
    })
}

/// The binaries, and all that they need when they run.
fn compiled(metadata: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<&str, &Value> =
        items(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let is_binary = |package: &&Value| image::BINARIES.contains(&text(&package["name"]));
    let mut waiting: Vec<&str> =
        items(&metadata["packages"]).iter().filter(is_binary).map(|package| text(&package["id"])).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if found.insert(id) {
            let needed = items(&nodes[id]["deps"]).iter().filter(|dependency| is_of_runtime(dependency));
            waiting.extend(needed.map(|dependency| text(&dependency["pkg"])));
        }
    }
    found
}

/// Neither for tests nor for build scripts.
fn is_of_runtime(dependency: &Value) -> bool {
    items(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let purl = format!("pkg:cargo/{name}@{version}");
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version,
        "licenses": [{"expression": package["license"]}],
    });
    if package["source"] == REGISTRY {
        component["purl"] = purl.into();
    }
    if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

/// By name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let entry = |package: &str| {
        Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
    };
    lock.split("[[package]]").filter_map(entry).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: what is compiled in is listed, with its hash and licence; what is for tests is not.
    #[test]
    fn components_are_what_the_binaries_need() {
        let package = |name: &str, source: Value| json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source});
        let needs = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("ackwelld", Value::Null), package("redb", REGISTRY.into()), package("insta", REGISTRY.into())],
            "resolve": {"nodes": [
                {"id": "ackwelld", "deps": [needs("redb", Value::Null), needs("insta", "dev".into())]},
                {"id": "redb", "deps": []}, {"id": "insta", "deps": []},
            ]},
        });
        let checksums = checksums("[[package]]\nname = \"redb\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n");
        let document = document(&metadata, &checksums);
        let names: Vec<_> =
            items(&document["components"]).iter().map(|component| text(&component["name"])).collect();
        assert_eq!(names, ["ackwelld", "redb"]);
        assert_eq!(document["components"][1]["hashes"][0]["content"], "ab");
        assert_eq!(document["components"][1]["purl"], "pkg:cargo/redb@1.0.0");
        assert_eq!(document["components"][0]["purl"], Value::Null);
    }
}
