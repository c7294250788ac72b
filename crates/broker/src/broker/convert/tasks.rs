//! What the operator asks of tasks, and what it hears.

use ackwell_engine::message::{QueueId, State};
use ackwell_engine::task::{Order, Progress, Task, TaskId, TaskState, Work};
use ackwell_proto::v1::run_task_request::Work as Wanted;
use ackwell_proto::{Failure, v1};

use super::millis_at;

/// Of the uid of an object in Kubernetes, and some.
const MAX_UID_BYTES: usize = 64;

pub(crate) fn task(queue: QueueId, request: v1::RunTaskRequest) -> Result<Task, Failure> {
    let v1::RunTaskRequest {
        uid,
        created,
        cancel,
        max_messages,
        max_per_second,
        stored_before,
        work,
        begun,
        queue: _,
    } = request;
    if uid.is_empty() || uid.len() > MAX_UID_BYTES {
        return Err(Failure::invalid(format!("uid must have 1 to {MAX_UID_BYTES} bytes")));
    }
    let created = created.ok_or_else(|| Failure::invalid("created is missing"))?;
    let created = millis_at("created", &created)?;
    let stored_before = stored_before.map(|at| millis_at("stored_before", &at)).transpose()?;
    let order = Order { work: wanted(work)?, stored_before, max_messages, max_per_second };
    Ok(Task { queue, id: TaskId { created, uid }, order, has_begun: begun, cancel })
}

fn wanted(work: Option<Wanted>) -> Result<Work, Failure> {
    match work {
        Some(Wanted::Redrive(_)) => Ok(Work::Redrive),
        Some(Wanted::Purge(purge)) => Ok(Work::Purge(purgeable(&purge.states)?)),
        // A backup is made by another program; it is only asked about here.
        Some(Wanted::Backup(_)) | None => Err(Failure::invalid("work is missing: redrive or purge")),
    }
}

fn purgeable(states: &[i32]) -> Result<Vec<State>, Failure> {
    let all = [State::Ready, State::Delayed, State::Dead];
    let find = |number: &i32| all.into_iter().find(|state| i32::from(super::state(*state)) == *number);
    let found: Option<Vec<State>> = states.iter().map(find).collect();
    found.filter(|found| (1..=all.len()).contains(&found.len())).ok_or_else(|| {
        Failure::invalid("purge.states must name one to three of STATE_READY, STATE_DELAYED, STATE_DEAD")
    })
}

pub(crate) fn progress_to(progress: Progress) -> v1::RunTaskResponse {
    let Progress { state, total, processed, failed } = progress;
    let state = match state {
        TaskState::Running => v1::TaskState::Running,
        TaskState::Waiting => v1::TaskState::Waiting,
        TaskState::Over => v1::TaskState::Over,
        TaskState::Forgotten => v1::TaskState::Forgotten,
    };
    v1::RunTaskResponse { state: state.into(), total, processed, failed }
}

#[cfg(test)]
mod tests {
    use ackwell_engine::Timestamp;

    use super::*;

    fn request() -> v1::RunTaskRequest {
        v1::RunTaskRequest {
            uid: "u".to_owned(),
            created: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
            work: Some(Wanted::Redrive(v1::RedriveWork {})),
            ..v1::RunTaskRequest::default()
        }
    }

    fn purge(states: &[v1::State]) -> v1::RunTaskRequest {
        let states = states.iter().map(|state| (*state).into()).collect();
        v1::RunTaskRequest { work: Some(Wanted::Purge(v1::PurgeWork { states })), ..request() }
    }

    /// Promise: what is not sensible is refused before it is logged, with what to do instead.
    #[test]
    fn senseless_tasks_are_refused() {
        let told = |request| task(QueueId(1), request).map_err(|failure| failure.to_string());
        assert_eq!(told(request()).unwrap().id.created, Timestamp(5000));
        let all = [v1::State::Ready, v1::State::Delayed, v1::State::Dead];
        assert!(told(purge(&all)).is_ok());
        for (bad, says) in [
            (v1::RunTaskRequest { uid: String::new(), ..request() }, "uid must have"),
            (v1::RunTaskRequest { uid: "u".repeat(65), ..request() }, "uid must have"),
            (v1::RunTaskRequest { created: None, ..request() }, "created is missing"),
            (v1::RunTaskRequest { work: None, ..request() }, "work is missing"),
            (purge(&[]), "purge.states"),
            (purge(&[v1::State::InFlight]), "purge.states"),
            (purge(&[v1::State::Dead; 4]), "purge.states"),
        ] {
            let text = told(bad).unwrap_err();
            assert!(text.contains(says), "{text}");
        }
    }
}
