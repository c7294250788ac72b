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
            match Keys::read(&folder) {
                Ok(found) if followed.add(&found) => {
                    tracing::info!(keys = ?followed.ids(), "there is a new key: what is new is sealed with the last one");
                }
                Ok(_) => told.clear(),
                Err(error) if error.to_string() != told => {
                    told = error.to_string();
                    tracing::warn!("the keys stay as they are: {told}");
                }
                Err(_) => {}
            }
        }
    });
    Ok(Followed { keys, _task: AbortOnDropHandle::new(task) })
}
