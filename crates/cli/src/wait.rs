//! Waiting until the cluster has done what it was told.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;

use crate::clock::Stopwatch;
use crate::duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks until there is nothing left to wait for, or fails with what there was at the end of `limit`.
pub(crate) async fn until(
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    while let Some(left) = look().await? {
        if watch.left(limit).is_zero() {
            bail!("not done within {}: {left}", duration::show(limit));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// `status` of a condition, if the operator said it of the newest spec.
pub(crate) fn condition<'a>(queue: &'a Value, kind: &str) -> Option<&'a str> {
    let status = &queue["status"];
    if status["observedGeneration"] != queue["metadata"]["generation"] {
        return None;
    }
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What was true of the spec before says nothing.
    #[test]
    fn conditions_of_an_older_spec_do_not_count() {
        let queue = |observed: u32| {
            let conditions = [json!({"type": "Ready", "status": "True"})];
            json!({
                "metadata": {"generation": 2},
                "status": {"observedGeneration": observed, "conditions": conditions},
            })
        };
        assert_eq!(condition(&queue(2), "Ready"), Some("True"));
        assert_eq!((condition(&queue(1), "Ready"), condition(&queue(2), "Stalled")), (None, None));
    }
}
