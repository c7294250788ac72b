//! The one place that prints.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// Prints one line to the standard output, at once: a parent process may read it.
pub fn say(line: impl fmt::Display) {
    // Nobody is left to tell that nobody listens.
    _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints one line for people who wait to the standard error.
pub fn note(line: impl fmt::Display) {
    _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What a program ends with; what kept it from its work is noted.
pub fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The case that a person named.
pub fn case<C>(cases: &'static [C], name_of: fn(&C) -> &str, name: &str) -> Result<&'static C, String> {
    let names = || cases.iter().map(name_of).collect::<Vec<_>>().join(", ");
    cases
        .iter()
        .find(|case| name_of(case) == name)
        .ok_or_else(|| format!("there is no such case; there are {}", names()))
}
