//! Queue manifests from files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ackwell_api::{InvalidQueue, ValidatedQueue};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Longest file; the API server takes objects of at most 1.5 MiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What some files hold.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    /// In the order of the files.
    pub(crate) queues: Vec<ValidatedQueue>,
    /// A sentence for each document that is not a Queue.
    pub(crate) skipped: Vec<String>,
}

/// Reads every document of every file. Fails on the first Queue that is not valid, on one that appears twice, and when
/// there is none.
pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Manifests> {
    let mut manifests = Manifests::default();
    for file in files {
        let text = text(file).with_context(|| format!("cannot read {}", file.display()))?;
        manifests.add(&text).with_context(|| file.display().to_string())?;
    }
    let names = || files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    ensure!(!manifests.queues.is_empty(), "{}: no Queue of ackwell.dev/v1alpha1 in it", names());
    Ok(manifests)
}

impl Manifests {
    fn add(&mut self, text: &str) -> anyhow::Result<()> {
        for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
            let place = || format!("document {}", index + 1);
            let value = Value::deserialize(document).with_context(place)?;
            // Nothing between two separators, as Helm leaves it.
            if !value.is_null() {
                self.add_document(&value).with_context(place)?;
            }
        }
        Ok(())
    }

    fn add_document(&mut self, document: &Value) -> anyhow::Result<()> {
        let queue = match ValidatedQueue::from_manifest(document) {
            Ok(queue) => queue,
            Err(other @ InvalidQueue::OtherKind(_)) => {
                self.skipped.push(format!("skipped a document: {other}"));
                return Ok(());
            }
            Err(invalid) => return Err(invalid.into()),
        };
        if self.queues.iter().any(|known| known.name() == queue.name()) {
            bail!("queue {} is already in another document; keep one of them", queue.name());
        }
        self.queues.push(queue);
        Ok(())
    }
}

fn text(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MAX_FILE_BYTES, "it is longer than {MAX_FILE_BYTES} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: &str = "\
apiVersion: ackwell.dev/v1alpha1
kind: Queue
metadata: {name: orders, namespace: shop}
spec: {storage: {size: 1Gi}, delivery: {maxAttempts: 3}}
";

    fn read_text(text: &str) -> Result<Manifests, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue.yaml");
        std::fs::write(&file, text).unwrap();
        read(&[file]).map_err(|error| format!("{error:#}").replace(&folder.path().display().to_string(), ""))
    }

    #[test]
    fn queues_are_read_and_other_kinds_skipped() {
        let text = format!("# a comment\n---\n---\nkind: ConfigMap\napiVersion: v1\n---\n{ORDERS}");
        let manifests = read_text(&text).unwrap();
        let [queue] = &manifests.queues[..] else { panic!("{manifests:?}") };
        assert_eq!(queue.name().to_string(), "shop/orders");
        assert_eq!(queue.config(Vec::new()).settings.unwrap().max_attempts, 3);
        let expected = "skipped a document: this is ConfigMap of v1, not a Queue of ackwell.dev/v1alpha1";
        assert_eq!(manifests.skipped, [expected]);
    }

    /// Golden errors: file, document, queue, field, rule, all on one line.
    #[test]
    fn wrong_manifests_are_refused_with_their_place() {
        let wrong_field = ORDERS.replace("maxAttempts: 3", "maxAttempts: 0, tries: 3");
        let cases = [
            (
                format!("{ORDERS}---\n{wrong_field}"),
                "/queue.yaml: document 2: queue \"orders\" is not valid: spec.delivery.maxAttempts: must be at least 1; \
                 spec.delivery.tries: is not a field that Queue has",
            ),
            (
                format!("{ORDERS}---\n{ORDERS}"),
                "/queue.yaml: document 2: queue shop/orders is already in another document; keep one of them",
            ),
            ("kind: ConfigMap".to_owned(), "/queue.yaml: no Queue of ackwell.dev/v1alpha1 in it"),
            (String::new(), "/queue.yaml: no Queue of ackwell.dev/v1alpha1 in it"),
            (
                "a: [1\nb: 2".to_owned(),
                "/queue.yaml: document 1: did not find expected ',' or ']' at line 2 column 2, \
                 while parsing a flow sequence at line 1 column 4",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read_text(&text).unwrap_err(), expected);
        }
    }

    #[test]
    fn file_that_is_missing_or_huge_is_refused() {
        let missing = format!("{:#}", read(&["/nowhere/queue.yaml".into()]).unwrap_err());
        assert_eq!(missing, "cannot read /nowhere/queue.yaml: No such file or directory (os error 2)");
        let huge = read_text(&"#".repeat(5 << 20)).unwrap_err();
        assert_eq!(huge, "cannot read /queue.yaml: it is longer than 4194304 bytes");
    }
}
