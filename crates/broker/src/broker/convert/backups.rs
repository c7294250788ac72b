//! Messages as backups have them.

use ackwell_engine::Timestamp;
use ackwell_engine::kept::{Kept, KeptIds, Snapshot, Standing, Stretch};
use ackwell_engine::message::{Attempt, AttemptOutcome, DeadReason, MAX_HISTORY, Payload, Priority, Seq};
use ackwell_engine::moving::{MAX_PLACES, Origin, RememberedId, Source, Traveller};
use ackwell_proto::v1::kept_message::Standing as Told;
use ackwell_proto::v1::read_snapshot_response::Next;
use ackwell_proto::{Failure, v1};

use super::moves::{remembered_id, remembered_id_to};

/// Shards of a backup are no shards of the queue, and must not have the number of one.
const FIRST_SOURCE: u32 = 1 << 16;
/// More shards than a queue has.
const MAX_SOURCES: usize = 1024;
/// Of one page: more than whoever reads pages puts into one.
const MAX_MESSAGES: usize = 1000;

pub(crate) fn snapshot_to(snapshot: &Snapshot) -> v1::Snapshot {
    let Source { ordinal, salt, first, end, origins } = &snapshot.source;
    let origin = |origin: &Origin| v1::Origin {
        at: origin.at.0,
        places: origin.places,
        salt: origin.salt,
        first: origin.first.0,
    };
    v1::Snapshot {
        ordinal: *ordinal,
        salt: *salt,
        first: first.0,
        end: end.0,
        origins: origins.iter().map(origin).collect(),
        placement: snapshot.placement.generation,
        messages: snapshot.messages,
    }
}

pub(crate) fn stretch_to(stretch: Stretch) -> v1::ReadSnapshotResponse {
    let messages = stretch.messages.into_iter().map(kept_to).collect();
    v1::ReadSnapshotResponse {
        page: Some(v1::KeptPage { messages, dedup_ids: Vec::new() }),
        next: stretch.next.map(|place| Next::Place(place.0)),
    }
}

pub(crate) fn ids_to(ids: KeptIds) -> v1::ReadSnapshotResponse {
    let dedup_ids = ids.ids.into_iter().map(remembered_id_to).collect();
    v1::ReadSnapshotResponse {
        page: Some(v1::KeptPage { messages: Vec::new(), dedup_ids }),
        next: ids.next.map(Next::DedupId),
    }
}

/// The stores of a backup, as the engine is told of them.
pub(crate) fn sources(snapshots: Vec<v1::Snapshot>) -> Result<Vec<Source>, Failure> {
    if !(1..=MAX_SOURCES).contains(&snapshots.len()) {
        return Err(Failure::invalid(format!("sources: there must be 1 to {MAX_SOURCES}")));
    }
    snapshots.into_iter().zip(0..).map(|(snapshot, index)| source(snapshot, index)).collect()
}

fn source(snapshot: v1::Snapshot, index: u32) -> Result<Source, Failure> {
    let v1::Snapshot { salt, first, end, origins, .. } = snapshot;
    let is_odd = |origin: &v1::Origin| origin.at.max(origin.first).max(origin.places) > MAX_PLACES;
    if first > end || end > MAX_PLACES || origins.iter().any(is_odd) {
        return Err(Failure::invalid("places: the first must not be behind the end, and all below 2^49"));
    }
    let origin = |origin: v1::Origin| Origin {
        at: Seq(origin.at),
        places: origin.places,
        salt: origin.salt,
        first: Seq(origin.first),
    };
    let origins = origins.into_iter().map(origin).collect();
    Ok(Source { ordinal: ordinal(index), salt, first: Seq(first), end: Seq(end), origins })
}

/// What the source with this index is called by the engine.
pub(crate) fn ordinal(index: u32) -> u32 {
    FIRST_SOURCE.saturating_add(index)
}

/// What a page has for the engine.
pub(crate) fn page(page: v1::KeptPage) -> Result<(Vec<Traveller>, Vec<RememberedId>), Failure> {
    let v1::KeptPage { messages, dedup_ids } = page;
    if messages.len() > MAX_MESSAGES || dedup_ids.len() > MAX_MESSAGES {
        return Err(Failure::invalid(format!("a page has at most {MAX_MESSAGES} messages or dedup ids")));
    }
    let messages = messages.into_iter().map(|message| kept(message).map(Traveller::from));
    let dedup_ids = dedup_ids.into_iter().map(remembered_id);
    Ok((messages.collect::<Result<_, _>>()?, dedup_ids.collect::<Result<_, _>>()?))
}

fn kept_to(kept: Kept) -> v1::KeptMessage {
    let Payload { body, headers, content_type, dedup_id, ordering_key, fairness_key } = kept.payload;
    let header = |(key, value)| v1::KeptHeader { key, value };
    v1::KeptMessage {
        place: kept.place.0,
        stored_at: kept.stored_at.0,
        standing: standing_to(kept.standing),
        attempts: kept.attempts,
        deliveries: kept.deliveries,
        history: kept.history.into_iter().map(attempt_to).collect(),
        expires_at: kept.expires_at.map(|at| at.0),
        max_attempts: kept.max_attempts,
        priority: kept.priority.level().into(),
        body,
        headers: headers.into_iter().map(header).collect(),
        content_type,
        dedup_id,
        ordering_key,
        fairness_key,
    }
}

fn kept(message: v1::KeptMessage) -> Result<Kept, Failure> {
    let standing = standing(message.standing)?;
    let priority = Priority::new(message.priority).ok_or_else(|| odd("priority"))?;
    if message.history.len() > MAX_HISTORY {
        return Err(odd("history"));
    }
    Ok(Kept {
        place: Seq(message.place),
        stored_at: Timestamp(message.stored_at),
        standing,
        attempts: message.attempts,
        deliveries: message.deliveries,
        history: message.history.into_iter().map(attempt).collect::<Result<_, _>>()?,
        expires_at: message.expires_at.map(Timestamp),
        max_attempts: message.max_attempts,
        priority,
        payload: Payload {
            body: message.body,
            headers: message.headers.into_iter().map(|header| (header.key, header.value)).collect(),
            content_type: message.content_type,
            dedup_id: message.dedup_id,
            ordering_key: message.ordering_key,
            fairness_key: message.fairness_key,
        },
    })
}

fn standing_to(standing: Standing) -> Option<Told> {
    match standing {
        Standing::Ready => None,
        Standing::Delayed { until } => Some(Told::DelayedUntil(until.0)),
        Standing::Dead { reason, since, until } => Some(Told::Dead(v1::KeptDeath {
            reason: reason.as_str().to_owned(),
            since: since.0,
            until: until.0,
        })),
    }
}

fn standing(told: Option<Told>) -> Result<Standing, Failure> {
    Ok(match told {
        None => Standing::Ready,
        Some(Told::DelayedUntil(until)) => Standing::Delayed { until: Timestamp(until) },
        Some(Told::Dead(v1::KeptDeath { reason, since, until })) => {
            use DeadReason::{Corrupt, Expired, MaxAttempts, Rejected};
            let known = [MaxAttempts, Rejected, Expired, Corrupt];
            let reason = known.into_iter().find(|known| known.as_str() == reason);
            let reason = reason.ok_or_else(|| odd("dead.reason"))?;
            Standing::Dead { reason, since: Timestamp(since), until: Timestamp(until) }
        }
    })
}

fn attempt_to(attempt: Attempt) -> v1::KeptAttempt {
    let Attempt { started, ended, outcome, reason, consumer } = attempt;
    let outcome = outcome.as_str().to_owned();
    v1::KeptAttempt { started: started.0, ended: ended.0, outcome, reason, consumer }
}

fn attempt(attempt: v1::KeptAttempt) -> Result<Attempt, Failure> {
    use AttemptOutcome::{AckTimeout, ConsumerLost, Nack, Reject};
    let v1::KeptAttempt { started, ended, outcome, reason, consumer } = attempt;
    let known = [Nack, AckTimeout, ConsumerLost, Reject];
    let outcome = known.into_iter().find(|known| known.as_str() == outcome);
    let outcome = outcome.ok_or_else(|| odd("history.outcome"))?;
    Ok(Attempt { started: Timestamp(started), ended: Timestamp(ended), outcome, reason, consumer })
}

fn odd(field: &str) -> Failure {
    Failure::invalid(format!(
        "a message of the backup has a {field} that this version does not know: restore it with the version that made it, \
         or a newer one"
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message() -> Kept {
        use AttemptOutcome::{AckTimeout, ConsumerLost, Nack, Reject};
        let attempt = |outcome| Attempt {
            started: Timestamp(3),
            ended: Timestamp(4),
            outcome,
            reason: "no".to_owned(),
            consumer: "c".to_owned(),
        };
        Kept {
            place: Seq(7),
            stored_at: Timestamp(2),
            standing: Standing::Ready,
            attempts: 4,
            deliveries: 5,
            history: [Nack, AckTimeout, ConsumerLost, Reject].map(attempt).to_vec(),
            expires_at: Some(Timestamp(0)),
            max_attempts: Some(0),
            priority: Priority::new(9).unwrap(),
            payload: Payload {
                body: Bytes::from_static(b"body"),
                headers: vec![("a".to_owned(), "b".to_owned())],
                content_type: "text/plain".to_owned(),
                dedup_id: "d".to_owned(),
                ordering_key: "o".to_owned(),
                fairness_key: "f".to_owned(),
            },
        }
    }

    /// Promise: nothing of a message is lost on its way through a backup, whatever it is.
    #[test]
    fn message_through_a_backup_is_unchanged() {
        use DeadReason::{Corrupt, Expired, MaxAttempts, Rejected};
        let dead = |reason| Standing::Dead { reason, since: Timestamp(8), until: Timestamp(9) };
        let mut all = vec![Standing::Ready, Standing::Delayed { until: Timestamp(6) }];
        all.extend([MaxAttempts, Rejected, Expired, Corrupt].map(dead));
        for standing in all {
            let message = Kept { standing, ..message() };
            assert_eq!(kept(kept_to(message.clone())).unwrap(), message);
            assert_eq!(Kept::from(Traveller::from(message.clone())), message);
        }
    }

    /// Promise: what another version wrote is refused, not guessed.
    #[test]
    fn unknown_words_and_numbers_are_refused() {
        let whole = kept_to(message());
        let dead = v1::KeptDeath { reason: "BORED".to_owned(), ..v1::KeptDeath::default() };
        let mut outcome = whole.clone();
        outcome.history[0].outcome = "shrug".to_owned();
        let history = vec![whole.history[0].clone(); MAX_HISTORY + 1];
        for (odd, says) in [
            (v1::KeptMessage { standing: Some(Told::Dead(dead)), ..whole.clone() }, "dead.reason"),
            (outcome, "history.outcome"),
            (v1::KeptMessage { history, ..whole.clone() }, "history"),
            (v1::KeptMessage { priority: 10, ..whole }, "priority"),
        ] {
            let refused = kept(odd).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
