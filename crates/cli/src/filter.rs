//! Which messages: shared by `peek`, `redrive` and `purge`.

use ackwell_client::Filter as Wire;
use clap::Args;

use crate::args::header;

/// Which messages. Everything given must match.
#[derive(Args)]
#[command(next_help_heading = "Which messages")]
pub(crate) struct Filter {
    /// Only messages whose last failure says this.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason_contains: String,

    /// Only messages with this ordering key.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    ordering_key: String,

    /// Only messages with this fairness key.
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    fairness_key: String,

    /// Only messages with this header; can be repeated.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// Only the message with this id; can be repeated.
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,

    /// Only messages that failed at least so often.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_attempts: u32,
}

impl From<Filter> for Wire {
    fn from(filter: Filter) -> Self {
        Self {
            reason_contains: filter.reason_contains,
            ordering_key: filter.ordering_key,
            fairness_key: filter.fairness_key,
            headers: filter.headers.into_iter().collect(),
            ids: filter.ids,
            min_attempts: filter.min_attempts,
            ..Self::default()
        }
    }
}
