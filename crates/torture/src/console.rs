//! The one place that prints.

use std::fmt;
use std::io::Write;

/// Prints one line to the standard output, at once: a parent process may read it.
pub(crate) fn say(line: impl fmt::Display) {
    // Nobody is left to tell that nobody listens.
    _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints one line for people to the standard error.
pub(crate) fn note(line: impl fmt::Display) {
    _ = writeln!(std::io::stderr().lock(), "{line}");
}
