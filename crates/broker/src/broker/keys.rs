//! The keys that the store is sealed with, as their folder has them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ackwell_engine::store::seal::{Keys, key_of_store};
use anyhow::Context;
use tokio_util::task::AbortOnDropHandle;

/// Kubernetes takes a minute to bring a new key: looking this often adds little.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keys to which those are added that come into the folder.
pub(super) struct Followed {
    pub(super) keys: Keys,
    _task: AbortOnDropHandle<()>,
}

/// Reads the keys now, which must succeed. One that is taken away is used until the process ends: what runs need not stop.
pub(super) fn follow(folder: PathBuf, store: &Path) -> anyhow::Result<Followed> {
    let keys = Keys::read(&folder).with_context(|| match key_of_store(store) {
        Some(id) => format!("the store is sealed with the key {id:?}, and the keys cannot be read"),
        None => "the keys of a new store cannot be read".to_owned(),
    })?;
    let followed = keys.clone();
    let task = tokio::spawn(async move {
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let wrong = look(&folder, &followed);
            if wrong != told {
                told = wrong;
                if !told.is_empty() {
                    tracing::warn!("{told}");
                }
            }
        }
    });
    Ok(Followed { keys, _task: AbortOnDropHandle::new(task) })
}

/// What is wrong with the keys in the folder, if anything is.
fn look(folder: &Path, keys: &Keys) -> String {
    let found = match Keys::read(folder) {
        Ok(found) => keys.follow(&found),
        Err(error) => return format!("the keys stay as they are: {error}"),
    };
    if found.has_changed {
        tracing::info!(keys = ?keys.ids(), "what is new is sealed with the key {:?}", keys.newest_id());
    }
    if found.lost.is_empty() {
        return String::new();
    }
    let lost = found.lost.join(", ");
    format!(
        "keys that were used until now are not there any more, or are others ({lost}): a restart needs those that the store is still sealed with"
    )
}
