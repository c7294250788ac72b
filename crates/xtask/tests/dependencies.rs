//! The dependency invariants of ARCHITECTURE.md.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate of ours may use of the others. Tests of a crate may use more.
const MAY_USE: &[(&str, &[&str])] = &[
    ("ackwell-engine", &[]),
    ("ackwell-engine-check", &["ackwell-engine"]),
    ("ackwell-proto", &[]),
    ("ackwell-api", &["ackwell-proto"]),
    ("ackwell-client", &["ackwell-proto"]),
    ("ackwelld", &["ackwell-engine", "ackwell-proto"]),
    ("ackwell-operator", &["ackwell-api", "ackwell-proto"]),
    ("ackwell", &["ackwell-api", "ackwell-client", "ackwell-engine", "ackwell-proto", "ackwelld"]),
    ("ackwell-bench", &["ackwell-engine", "ackwell-proto"]),
    ("ackwell-torture", &["ackwell-client", "ackwell-engine", "ackwell-proto"]),
    ("xtask", &["ackwell-api", "ackwell-proto"]),
    ("ackwell-tests", &["ackwell-api", "ackwell-client", "ackwell-proto"]),
];

/// What must not be reachable from a crate, directly or not.
const NEVER: &[(&str, &[&str])] = &[
    // Its store seals with ring, which has randomness of its own.
    ("ackwell-engine", &["tokio", "tonic", "prost", "kube", "rand", "futures"]),
    ("ackwell-proto", &["kube", "k8s-openapi"]),
    ("ackwell-client", &["kube", "k8s-openapi", "redb"]),
    ("ackwelld", &["kube", "k8s-openapi"]),
    ("ackwell-api", &["kube-client", "redb"]),
    ("ackwell-operator", &["redb"]),
];

/// Promise: crates depend on each other only in the directions that ARCHITECTURE.md names.
#[test]
fn crates_use_only_what_the_architecture_allows() {
    let ours: BTreeSet<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let members = tree(&["--workspace", "--depth=0"]);
    assert_eq!(members, ours, "MAY_USE lists every crate of the workspace");
    for (name, allowed) in MAY_USE {
        let used = tree(&["--package", name, "--depth=1"]);
        let wrong: Vec<_> = used
            .intersection(&ours)
            .filter(|used| used != name && !allowed.contains(&used.as_str()))
            .collect();
        assert!(wrong.is_empty(), "{name} must not use {wrong:?}");
    }
}

/// Promise: decisions cannot see clocks, sockets or chance, and only the operator and the command line can speak to Kubernetes.
#[test]
fn crates_reach_nothing_that_breaks_an_invariant() {
    for (name, banned) in NEVER {
        let reached = tree(&["--package", name]);
        assert!(reached.len() > 1, "{name} reaches something");
        for ban in *banned {
            assert!(!reached.contains(*ban), "{name} reaches {ban}; see: cargo tree -p {name} -i {ban}");
        }
    }
}

/// What decisions must not touch: its answers would differ from one replay to the next. A
/// `HashMap` iterates in another order in every process.
const NOT_IN_DECISIONS: [&str; 10] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time",
    "HashMap",
    "HashSet",
    "ring::rand",
];

/// What may have one of these all the same: a hash table behind an interface by which nobody can go through it.
const EXCEPT: [(&str, &str); 1] = [("messages/keys/table.rs", "HashMap")];

/// Promise: what the engine decides depends on its commands alone. Only its store sees a disk.
#[test]
fn decisions_of_the_engine_touch_nothing_outside() {
    let sources = decisions(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/src")));
    assert!(sources.len() > 10, "the sources are found");
    for source in sources {
        let text = std::fs::read_to_string(&source).expect("a source can be read");
        let is_excepted =
            |word: &str| EXCEPT.iter().any(|(file, may_have)| source.ends_with(file) && *may_have == word);
        let touched: Vec<_> =
            NOT_IN_DECISIONS.iter().filter(|word| text.contains(**word) && !is_excepted(word)).collect();
        assert!(touched.is_empty(), "{} uses {touched:?}", source.display());
    }
}

/// All sources of the engine but its store and its tests.
fn decisions(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    let wanted =
        paths.filter(|path| !path.ends_with("store.rs") && !path.ends_with("store") && !is_test(path));
    wanted.flat_map(|path| if path.is_dir() { decisions(&path) } else { vec![path] }).collect()
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
}

/// The names that `cargo tree` prints, without what only tests use.
fn tree(args: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--edges=normal,build",
            "--prefix=none",
            "--format={p}",
            "--manifest-path",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .args(args)
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("cargo prints text");
    lines
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
