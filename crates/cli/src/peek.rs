//! `ackwell peek`: look at messages without holding them.

use ackwell_client::{Message, PeekRequest};
use clap::Args;

use crate::args::{Output, Target};
use crate::filter::{Filter, StateName};
use crate::output::tame;
use crate::shown::{Bodies, Shown, state, time};
use crate::{Outcome, output};

/// Messages of one call; the API allows 1000, and an answer ends at 3 MiB.
const PAGE_MESSAGES: u32 = 1000;
/// The most of a body that the API shows.
const BODY_BYTES: u32 = 1 << 20;

/// Show messages, oldest first, without taking or changing them.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell peek orders
  ackwell peek orders --state dead --body
  ackwell peek orders --state dead --limit 0 --output json > dead.jsonl")]
pub(crate) struct Peek {
    #[command(flatten)]
    target: Target,

    /// Only messages in this state; can be repeated.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<StateName>,

    /// At most so many; 0: all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u64,

    /// Show bodies too, up to 1 MiB of each.
    #[arg(long)]
    body: bool,

    #[command(flatten)]
    filter: Filter,
}

impl Peek {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let client = self.target.connect().await?;
        let bodies = if self.body { Bodies::Shown } else { Bodies::Hidden };
        let mut left = if self.limit == 0 { u64::MAX } else { self.limit };
        let mut request = self.first_request();
        let mut head = (output == Output::Text).then(table_head);
        while left > 0 {
            request.limit = PAGE_MESSAGES.min(u32::try_from(left).unwrap_or(PAGE_MESSAGES));
            let page = client.peek(request.clone()).await?;
            head.take().map_or(Ok(()), |head| output::line(&head))?;
            left = left.saturating_sub(page.messages.len() as u64);
            page.messages.iter().try_for_each(|message| show(message, bodies, output))?;
            if page.cursor.is_empty() {
                break;
            }
            request.cursor = page.cursor;
        }
        Ok(Outcome::Done)
    }

    fn first_request(self) -> PeekRequest {
        PeekRequest {
            queue: self.target.queue,
            filter: Some(self.filter.in_states(self.states)),
            body_bytes: if self.body { BODY_BYTES } else { 0 },
            ..PeekRequest::default()
        }
    }
}

fn show(message: &Message, bodies: Bodies, output: Output) -> anyhow::Result<()> {
    match (output, bodies) {
        (Output::Json | Output::Yaml, _) => output::data(output, &Shown::new(message, bodies)),
        (Output::Text, Bodies::Hidden) => output::line(&row(message)),
        (Output::Text, Bodies::Shown) => {
            output::line(&format!("{}\n    {}", row(message), tame(&String::from_utf8_lossy(&message.body))))
        }
    }
}

/// Names of the columns of [`row`].
pub(crate) fn table_head() -> String {
    format!("{:36}  {:8}  {:24}  {:>8}  {:>10}  WHY", "ID", "STATE", "STORED", "ATTEMPTS", "BYTES")
}

/// A message in a line.
pub(crate) fn row(message: &Message) -> String {
    let state = state(message.state()).unwrap_or("-");
    let stored = message.stored_at.as_ref().and_then(time).unwrap_or_else(|| "-".to_owned());
    let (attempts, bytes) = (message.attempts, message.body_bytes);
    format!("{:36}  {state:8}  {stored:24}  {attempts:>8}  {bytes:>10}  {}", tame(&message.id), why(message))
}

/// Why it is where it is: the last failure, and what made it Dead.
fn why(message: &Message) -> String {
    let last = message.history.first();
    let parts = [
        message.dead_reason.as_str(),
        last.map_or("", |attempt| &attempt.outcome),
        last.map_or("", |attempt| &attempt.reason),
    ];
    tame(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use ackwell_client::{Attempt, State};

    use super::*;

    #[test]
    fn row_lines_up_with_the_head_and_says_why() {
        let message = Message {
            id: "0199d3a8-0000-7000-8000-000000000001".into(),
            state: State::Dead.into(),
            dead_reason: "MAX_ATTEMPTS".into(),
            attempts: 3,
            body_bytes: 12,
            history: vec![Attempt {
                outcome: "nack".into(),
                reason: "no\nstock".into(),
                ..Attempt::default()
            }],
            ..Message::default()
        };
        let (head, row) = (table_head(), row(&message));
        let why = head.find("WHY").unwrap();
        assert_eq!(&row[why..], "MAX_ATTEMPTS: nack: no\\nstock");
        assert_eq!(&row[head.find("STATE").unwrap()..][..4], "Dead");
    }
}
