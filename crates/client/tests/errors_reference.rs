//! `docs/reference/errors.md` is the list of reasons.

use ackwell_client::Reason;

const DOCUMENT: &str = include_str!("../../../docs/reference/errors.md");

/// Programs are written against this table: it must name every reason, with its code, and no other.
#[test]
fn errors_reference_lists_exactly_every_reason() {
    let documented: Vec<_> = rows().map(|cells| (cells[0].clone(), cells[1].clone())).collect();
    let defined: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str().to_owned(), screaming(&format!("{:?}", reason.code()))))
        .collect();
    assert_eq!(documented, defined);
}

#[test]
fn every_reason_says_what_it_means_and_what_to_do() {
    for cells in rows() {
        assert_eq!(cells.len(), 4, "{cells:?}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{cells:?}");
    }
}

/// The cells of every row whose first cell is a word in capitals and back quotes.
fn rows() -> impl Iterator<Item = Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    DOCUMENT.lines().filter(|line| line.starts_with("| `")).map(cells)
}

/// `InvalidArgument` as gRPC writes it: `INVALID_ARGUMENT`.
fn screaming(camel: &str) -> String {
    let mut word = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_uppercase());
    }
    word
}
