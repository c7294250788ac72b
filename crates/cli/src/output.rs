//! What is printed: data on stdout, everything else on stderr.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::args::Output;

/// Nobody reads stdout any more.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(crate) struct Closed;

/// Says something to the person at the terminal, on a line of its own.
pub(crate) fn note(message: fmt::Arguments<'_>) {
    // When stderr is closed there is nobody to tell.
    drop(writeln!(io::stderr().lock(), "{message}"));
}

/// Prints bytes, all of them or an error.
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Closed.into(),
        _ => anyhow::Error::new(error).context("cannot write to stdout"),
    })
}

/// Prints a line.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    print(format!("{text}\n").as_bytes())
}

/// Prints a value for programs: as one line of JSON, or as a document of YAML.
pub(crate) fn data(output: Output, value: &impl Serialize) -> anyhow::Result<()> {
    print(encoded(output, value)?.as_bytes())
}

/// What [`data`] prints.
pub(crate) fn encoded(output: Output, value: &impl Serialize) -> anyhow::Result<String> {
    Ok(match output {
        Output::Yaml => format!("---\n{}", serde_yaml_ng::to_string(value)?),
        Output::Json | Output::Text => format!("{}\n", serde_json::to_string(value)?),
    })
}

/// `1 message`, `2 messages`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// `text` without what would move the cursor or colour the terminal: control characters are escaped.
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasons and bodies come from applications; they must not be able to write escape codes to a terminal.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(tame("a\u{1b}[2Jb\n\u{9b}ü"), "a\\u{1b}[2Jb\\n\\u{9b}ü");
    }

    /// Programs read values one after the other.
    #[test]
    fn values_are_lines_of_json_or_documents_of_yaml() {
        let value = serde_json::json!({"ready": 1, "name": "a: b"});
        assert_eq!(encoded(Output::Json, &value).unwrap(), "{\"name\":\"a: b\",\"ready\":1}\n");
        assert_eq!(encoded(Output::Yaml, &value).unwrap(), "---\nname: 'a: b'\nready: 1\n");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(1, "message"), "1 message");
        assert_eq!(count(0, "message"), "0 messages");
    }
}
