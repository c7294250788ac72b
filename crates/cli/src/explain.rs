//! `ackwell explain`: why a message is not being delivered.

use ackwell_client::{ExplainResponse, Obstacle};
use clap::Args;
use serde::Serialize;

use crate::args::{Output, Target};
use crate::output::tame;
use crate::shown::{state, time};
use crate::{Outcome, output};

/// Say why a message is not being delivered now: what has to go away, in order.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ackwell explain orders 0199d3a8-0000-7000-8000-000000000001")]
pub(crate) struct Explain {
    #[command(flatten)]
    target: Target,

    /// Id of the message.
    id: String,
}

#[derive(Serialize)]
struct Explained<'a> {
    id: &'a str,
    state: Option<&'static str>,
    reasons: Vec<Shown<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    blocked_by: &'a str,
}

impl Explain {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<Outcome> {
        let explained = self.target.connect().await?.explain(&self.target.queue, &self.id).await?;
        match output {
            Output::Json | Output::Yaml => output::data(output, &Explained::new(&self.id, &explained))?,
            Output::Text => output::print(text(&explained).as_bytes())?,
        }
        Ok(Outcome::Done)
    }
}

impl<'a> Explained<'a> {
    fn new(id: &'a str, explained: &'a ExplainResponse) -> Self {
        let reasons = explained.reasons.iter().map(Shown::new).collect();
        Self { id, state: state(explained.state()), reasons }
    }
}

impl<'a> Shown<'a> {
    fn new(reason: &'a Obstacle) -> Self {
        Self {
            code: &reason.code,
            detail: &reason.detail,
            until: reason.until.as_ref().and_then(time),
            blocked_by: &reason.blocked_by,
        }
    }
}

fn text(explained: &ExplainResponse) -> String {
    let state = state(explained.state()).unwrap_or("-");
    if explained.reasons.is_empty() {
        return format!("{state}: the next consumer that asks gets it\n");
    }
    let lines = explained.reasons.iter().map(line).collect::<String>();
    format!("{state}, and before it is delivered:\n{lines}")
}

fn line(reason: &Obstacle) -> String {
    let until = reason.until.as_ref().and_then(time).map(|until| format!(", until {until}"));
    let head = match reason.blocked_by.as_str() {
        "" => String::new(),
        id => format!(": {}", tame(id)),
    };
    format!("  {:<15}  {}{}{}\n", tame(&reason.code), tame(&reason.detail), head, until.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use ackwell_client::State;

    use super::*;

    fn explained(reasons: Vec<Obstacle>) -> ExplainResponse {
        ExplainResponse { state: State::Ready.into(), reasons }
    }

    #[test]
    fn nothing_in_the_way_is_said() {
        assert_eq!(text(&explained(Vec::new())), "Ready: the next consumer that asks gets it\n");
    }

    /// People read the first line first: it is what has to go away first.
    #[test]
    fn reasons_are_listed_in_order_with_their_end_and_their_cause() {
        let reason = |code: &str, until: Option<u64>, blocked_by: &str| Obstacle {
            code: code.into(),
            detail: "why".into(),
            until: until.map(ackwell_proto::timestamp),
            blocked_by: blocked_by.into(),
        };
        let reasons = vec![reason("BEHIND_KEY", None, "m1"), reason("HELD", Some(0), "")];
        let expected = "Ready, and before it is delivered:\n  BEHIND_KEY       why: m1\n  HELD             why, until \
                        1970-01-01T00:00:00.000Z\n";
        assert_eq!(text(&explained(reasons)), expected);
    }
}
