//! How far a send is, for whoever watches the terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::args::Output;
use crate::clock::Stopwatch;

/// Often enough to look alive, seldom enough to cost nothing.
pub(super) const INTERVAL: Duration = Duration::from_millis(200);
/// Carriage return, and erase to the end of the line.
const CLEAR: &str = "\r\x1b[K";

/// How far a send is. Shown only when stderr is a terminal.
pub(super) struct Progress {
    started: Stopwatch,
    shown: bool,
    messages: u64,
    bytes: u64,
}

impl Progress {
    pub(super) fn new(output: Output) -> Self {
        let shown = output == Output::Text && io::stderr().is_terminal();
        Self { started: Stopwatch::start(), shown, messages: 0, bytes: 0 }
    }

    /// One more is stored.
    pub(super) fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Draws over the line drawn before.
    pub(super) fn show(&self) {
        self.draw(format_args!("{CLEAR}{self}"));
    }

    /// Leaves an empty line for what is said next.
    pub(super) fn clear(&self) {
        self.draw(format_args!("{CLEAR}"));
    }

    fn draw(&self, text: fmt::Arguments<'_>) {
        if self.shown {
            let mut stderr = io::stderr().lock();
            // Only decoration: not worth failing for.
            drop(stderr.write_fmt(text).and_then(|()| stderr.flush()));
        }
    }
}

impl fmt::Display for Progress {
    /// `12 messages, 3.4 MB, 120/s`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let messages = crate::output::count(self.messages, "message");
        let rate = self.messages.saturating_mul(1000) / millis;
        write!(f, "{messages}, {}, {rate}/s", Bytes(self.bytes))
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |unit: u64| (self.0 / unit, self.0 % unit * 10 / unit);
        let ((whole, part), unit) = match self.0 {
            bytes @ 0..1000 => return write!(f, "{bytes} B"),
            1000..1_000_000 => (tenths(1000), "kB"),
            1_000_000..1_000_000_000 => (tenths(1_000_000), "MB"),
            _ => (tenths(1_000_000_000), "GB"),
        };
        write!(f, "{whole}.{part} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_their_largest_unit() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (3_499_999, "3.4 MB"),
            (12_000_000_000, "12.0 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
