//! The log: one event a line, on standard error. In JSON each says which queue and shard it is of, and of which trace, where
//! there is one; `docs/operations.md` lists the fields.

use std::fmt;
use std::sync::OnceLock;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::broker;
use crate::traces;

/// What every line of this process says, unless it says otherwise itself.
static OF_PROCESS: OnceLock<Vec<(&'static str, String)>> = OnceLock::new();

/// Starts logging for people.
pub fn for_people(filter: &str) {
    tracing_subscriber::fmt().with_env_filter(parse(filter)).with_writer(std::io::stderr).init();
}

/// Starts logging for programs.
pub fn in_json(filter: &str) {
    let logger = tracing_subscriber::fmt().with_env_filter(parse(filter)).with_writer(std::io::stderr).json();
    let inner = tracing_subscriber::fmt::format().json().flatten_event(true);
    logger.event_format(InJson { inner }).init();
}

fn parse(filter: &str) -> EnvFilter {
    EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// A broker of one queue says so in every line.
pub fn tell_broker(options: &broker::Options) {
    let [config] = &options.queues[..] else { return };
    let name = |text: &str| serde_json::Value::from(text).to_string();
    let queue = ("queue", name(&format!("{}/{}", config.namespace, config.name)));
    let shard = options.ordinal.map(|ordinal| ("shard", ordinal.to_string()));
    _ = OF_PROCESS.set([queue].into_iter().chain(shard).collect());
}

/// Adds to what each event says.
struct InJson {
    inner: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for InJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let object = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writer.write_str(object)?;
        let is_said = |name: &str| event.metadata().fields().field(name).is_some();
        let of_process = OF_PROCESS.get().into_iter().flatten();
        for (name, value) in of_process.filter(|(name, _)| !is_said(name)) {
            write!(writer, ",\"{name}\":{value}")?;
        }
        if let Some((trace, span)) = traces::ids() {
            write!(writer, ",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"")?;
        }
        writer.write_str("}\n")
    }
}
