//! Repeats calls while the broker is unavailable.

use std::time::Duration;

use ackwell_proto::{Failure, Reason};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::Error;
use crate::pauses::Pauses;

/// How much later than the other side we give up, so that its answer, which knows more, comes first.
const MARGIN: Duration = Duration::from_millis(100);

/// Makes `request` until there is an answer other than "not now", for at most `limit`. The call must have no second effect
/// when it is repeated. The other side is told how much time is left.
pub(crate) async fn retry<Q, T, F>(
    limit: Duration,
    request: Q,
    call: impl Fn(Request<Q>) -> F,
) -> Result<T, Error>
where
    Q: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut last = None;
    let until = Instant::now() + limit;
    let call = || {
        let mut request = Request::new(request.clone());
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        call(request)
    };
    match tokio::time::timeout(limit + MARGIN, attempts(&mut last, until, call)).await {
        Ok(answer) => answer,
        Err(_) => Err(last.unwrap_or(Error::TimedOut { limit })),
    }
}

/// `last` is what to report when time runs out.
async fn attempts<T, F>(last: &mut Option<Error>, until: Instant, call: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut pauses = Pauses::new();
    loop {
        let status = match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let worth_repeating = is_temporary(&status);
        let is_late = Failure::from_status(&status).is_none() && Instant::now() >= until;
        let error = Error::from(status);
        if is_late {
            // Why the attempts before failed tells more than that time is over.
            return Err(last.take().unwrap_or(error));
        }
        if !worth_repeating {
            return Err(error);
        }
        let pause = error.retry_after().unwrap_or_default().max(pauses.next());
        if Instant::now() + pause >= until {
            return Err(error);
        }
        *last = Some(error);
        tokio::time::sleep(pause).await;
    }
}

fn is_temporary(status: &Status) -> bool {
    match (Failure::from_status(status), status.code()) {
        (Some(failure), code) => code == Code::Unavailable || failure.reason == Reason::Busy,
        (None, Code::Unavailable) => true,
        // A status with a source was made on this side, by a connection that broke under the call.
        (None, Code::Unknown | Code::Internal | Code::Cancelled) => {
            std::error::Error::source(status).is_some()
        }
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn calls(
        limit: Duration,
        answer: impl Fn(u32) -> Result<u32, Status>,
    ) -> (Result<u32, Error>, u32) {
        let count = Cell::new(0);
        let call = |_| {
            count.set(count.get() + 1);
            std::future::ready(answer(count.get()).map(Response::new))
        };
        let result = retry(limit, (), call).await;
        (result, count.get())
    }

    /// A restarting broker is a pause, not an error.
    #[tokio::test(start_paused = true)]
    async fn unavailable_then_answer_is_the_answer() {
        let answer = |count| if count < 4 { Err(Status::unavailable("restarting")) } else { Ok(count) };
        let (result, count) = calls(LIMIT, answer).await;
        assert_eq!((result.unwrap(), count), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn busy_broker_is_asked_again_after_its_hint() {
        let busy = || Failure::new(Reason::Busy, "busy").retry_after(Duration::from_secs(7));
        let start = tokio::time::Instant::now();
        let (result, _) = calls(LIMIT, |count| if count == 1 { Err(busy().into()) } else { Ok(count) }).await;
        assert_eq!(result.unwrap(), 2);
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_is_not_repeated() {
        for status in
            [Status::from(Failure::invalid("bad")), Status::internal("their fault"), Status::not_found("")]
        {
            let (result, count) = calls(LIMIT, |_| Err(status.clone())).await;
            assert!(result.is_err());
            assert_eq!(count, 1, "{status:?}");
        }
    }

    /// When time runs out the caller learns why, not only that it did.
    #[tokio::test(start_paused = true)]
    async fn limit_ends_the_attempts_with_the_last_error() {
        let start = tokio::time::Instant::now();
        let (result, count) = calls(LIMIT, |_| Err(Status::unavailable("gone"))).await;
        assert!(result.unwrap_err().to_string().contains("gone"));
        assert!((28..=30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert!((15..60).contains(&count), "{count}");
    }
}
