//! `docs/operations.md` explains everything that this operator can say. Alerts and runbooks are written against it.

const DOCUMENT: &str = include_str!("../../../docs/operations.md");
const CONDITIONS: &str = include_str!("../../api/src/conditions.rs");

/// The first text in quotes of each line that has one.
fn quoted<'a>(source: &'a str, starts: &'static str) -> impl Iterator<Item = &'a str> {
    let lines = source.lines().filter(move |line| line.trim().starts_with(starts));
    lines.filter_map(|line| line.split('"').nth(1))
}

/// Rows of tables only: a name in passing explains nothing.
fn is_in_a_table(word: &str) -> bool {
    let cell = format!("`{word}`");
    DOCUMENT.lines().any(|line| line.starts_with("| `") && line.contains(&cell))
}

#[test]
fn every_condition_and_reason_is_documented() {
    let words: Vec<_> = quoted(CONDITIONS, "pub const ").collect();
    assert!(words.len() > 20, "{words:?}");
    let missing: Vec<_> = words.into_iter().filter(|word| !is_in_a_table(word)).collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:?}");
}
