//! Which messages: shared by `peek`, `redrive` and `purge`.

use ackwell_client::{Filter as Wire, State};
use clap::{Args, ValueEnum};

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

/// A state on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum StateName {
    Ready,
    Delayed,
    InFlight,
    Dead,
}

impl Filter {
    /// Whether it says anything.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { reason_contains, ordering_key, fairness_key, headers, ids, min_attempts } = self;
        [reason_contains, ordering_key, fairness_key].into_iter().all(String::is_empty)
            && headers.is_empty()
            && ids.is_empty()
            && *min_attempts == 0
    }

    /// With the states that are wanted; none: any.
    pub(crate) fn in_states(self, states: Vec<StateName>) -> Wire {
        let states = states.into_iter().map(|state| State::from(state).into()).collect();
        Wire { states, ..self.into() }
    }
}

impl From<StateName> for State {
    fn from(state: StateName) -> Self {
        match state {
            StateName::Ready => Self::Ready,
            StateName::Delayed => Self::Delayed,
            StateName::InFlight => Self::InFlight,
            StateName::Dead => Self::Dead,
        }
    }
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
