//! What a run says at its end.

use std::path::Path;
use std::time::Duration;

use super::excerpts::Excerpts;
use super::steps::Outcome;
use crate::console::{say, seconds};

/// All steps so far.
#[derive(Default)]
pub(super) struct Report {
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    verdict: Verdict,
    excerpts: Excerpts,
}

/// How a step ended.
pub(super) enum Verdict {
    Passed(Duration),
    Failed(String),
    Skipped { tests: usize, reason: String },
}

/// Numbers of tests.
#[derive(Default, Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    pub(super) fn add(&mut self, name: &'static str, verdict: Verdict) {
        self.steps.push(Step { name, verdict, excerpts: Excerpts::default() });
    }

    pub(super) fn add_outcome(&mut self, name: &'static str, outcome: anyhow::Result<Outcome>, log: &Path) {
        let (verdict, excerpts) = match outcome {
            Ok(outcome) if outcome.succeeded => (Verdict::Passed(outcome.took), outcome.excerpts),
            Ok(outcome) => (Verdict::Failed(format!("see {}", log.display())), outcome.excerpts),
            Err(error) => (Verdict::Failed(format!("{error:#}")), Excerpts::default()),
        };
        self.steps.push(Step { name, verdict, excerpts });
    }

    pub(super) fn failed(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.verdict, Verdict::Failed(_)))
    }

    pub(super) fn print(&self) {
        say("\n== results");
        for step in &self.steps {
            say(format_args!("{:12} {}", step.name, step.verdict));
            step.excerpts.summaries.iter().for_each(say);
            if matches!(step.verdict, Verdict::Failed(_)) {
                step.excerpts.failures.iter().flatten().for_each(|line| say(format_args!("  {line}")));
            }
        }
        let Counts { passed, failed, skipped } = self.counts();
        let steps = self.steps.iter().filter(|step| matches!(step.verdict, Verdict::Failed(_))).count();
        say(format_args!(
            "{passed} passed, {failed} failed, {skipped} skipped; {steps} of {} steps failed",
            self.steps.len()
        ));
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for step in &self.steps {
            step.excerpts.summaries.iter().for_each(|summary| counts.add(summary));
            if let Verdict::Skipped { tests, .. } = step.verdict {
                counts.skipped += tests;
            }
        }
        counts
    }
}

impl Counts {
    /// Adds `test result: ok. 5 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, summary: &str) {
        let words: Vec<&str> = summary.split([' ', ';']).collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<usize>() else { continue };
            match pair[1] {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => (),
            }
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed(took) => write!(f, "ok, {}", seconds(*took)),
            Self::Failed(why) => write!(f, "FAILED, {why}"),
            Self::Skipped { tests: 0, reason } => write!(f, "SKIPPED: {reason}"),
            Self::Skipped { tests, reason } => write!(f, "SKIPPED, {tests} tests: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that did not run may look as if it had passed.
    #[test]
    fn counts_of_all_steps_add_up() {
        let mut report = Report::default();
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s";
        let mut excerpts = Excerpts::default();
        excerpts.see(line);
        excerpts.see(line);
        let outcome = Outcome { succeeded: false, took: Duration::ZERO, excerpts };
        report.add_outcome("unit", Ok(outcome), Path::new("log"));
        report.add("e2e", Verdict::Skipped { tests: 7, reason: "no cluster".to_owned() });
        assert_eq!(report.counts(), Counts { passed: 10, failed: 4, skipped: 9 });
        assert!(report.failed());
    }
}
