//! Sends one message after the other, each until it is stored.

use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::{Message, SendRequest};
use ackwell_tests::caller::Caller;
use ackwell_tests::dice::Dice;
use ackwell_tests::ledger::{Event, Ledger};
use ackwell_tests::numbered;
use ackwell_tests::processes::QUEUE;
use tonic::{Code, Request, Status};

/// Of one try: long enough for a process that is stopped for a while.
const TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// Of a sender; the numbers of others begin behind.
const MAX_MESSAGES: u64 = 1_000_000;

/// `index` is of the sender, among all of a run.
pub(crate) async fn send(caller: Caller, ledger: Arc<Ledger>, index: u64, mut dice: Dice) {
    for number in index * MAX_MESSAGES.. {
        let message = Message {
            body: numbered::body(number).into(),
            ordering_key: if dice.one_in(3) { format!("k{}", dice.below(50)) } else { String::new() },
            ..Message::default()
        };
        match store(&caller, number, message).await {
            Ok(id) => ledger.note(&Event::Stored { number, id }),
            Err(status) => ledger.note(&Event::Broken { what: format!("send {number}: {status:?}") }),
        }
        if dice.one_in(4) {
            tokio::time::sleep(dice.millis(1, 30)).await;
        }
    }
}

/// Under the same `request_id` until it is answered.
async fn store(caller: &Caller, number: u64, message: Message) -> Result<String, Status> {
    loop {
        let mut request = Request::new(SendRequest {
            queue: QUEUE.to_owned(),
            messages: vec![message.clone()],
            request_id: format!("chaos-{number}"),
            atomic: false,
        });
        request.set_timeout(TIMEOUT);
        match caller.queues.clone().send(request).await {
            Ok(answer) => return Ok(answer.into_inner().results.swap_remove(0).id),
            Err(status) if is_temporary(&status) => tokio::time::sleep(PAUSE).await,
            Err(status) => return Err(status),
        }
    }
}

/// A status with a source, or of no known kind, was made on this side, by a connection that broke.
pub(crate) fn is_temporary(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Cancelled
            | Code::Unknown
    ) || std::error::Error::source(status).is_some()
}
