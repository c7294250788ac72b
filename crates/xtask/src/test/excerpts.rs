//! What a report repeats of a step's output, which is thousands of lines long.

/// Why a test failed is in its first lines.
const LINES: usize = 12;
/// A line that holds whole objects is cut.
const CHARACTERS: usize = 1000;

/// What was picked out so far.
#[derive(Default)]
pub(super) struct Excerpts {
    /// The runners' own last words: `test result: ...`.
    pub(super) summaries: Vec<String>,
    /// What panicked where, and why.
    pub(super) failures: Vec<Vec<String>>,
    /// The lines to come are of the last failure.
    failing: bool,
}

impl Excerpts {
    /// Looks at the next line.
    pub(super) fn see(&mut self, line: &str) {
        if line.starts_with("test result: ") {
            self.summaries.push(line.to_owned());
        } else if line.starts_with("thread '") && line.contains(" panicked at ") {
            self.failures.push(vec![line.to_owned()]);
            self.failing = true;
        } else if let Some(failure) = self.failures.last_mut().filter(|_| self.failing) {
            self.failing = !line.starts_with("note: ") && line != "stack backtrace:" && failure.len() < LINES;
            if self.failing {
                failure.push(line.chars().take(CHARACTERS).collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_failures_are_picked_without_their_backtraces() {
        let mut excerpts = Excerpts::default();
        let output = "running 2 tests\nthread 'a' (7) panicked at a.rs:1:2:\nassertion failed: x\n  left: 1\n\
             stack backtrace:\n   0: main\ntest result: FAILED. 1 passed; 1 failed";
        output.lines().for_each(|line| excerpts.see(line));
        assert_eq!(
            excerpts.failures,
            [["thread 'a' (7) panicked at a.rs:1:2:", "assertion failed: x", "  left: 1"]]
        );
        assert_eq!(excerpts.summaries, ["test result: FAILED. 1 passed; 1 failed"]);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let mut excerpts = Excerpts::default();
        excerpts.see("thread 'a' (7) panicked at a.rs:1:2:");
        (0..100).for_each(|_| excerpts.see(&"x".repeat(5000)));
        assert_eq!(excerpts.failures[0].len(), LINES);
        assert_eq!(excerpts.failures[0][1].len(), CHARACTERS);
    }
}
