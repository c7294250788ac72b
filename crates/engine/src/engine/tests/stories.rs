//! The stories: a file a topic, a rule a story.

use super::story::play;

macro_rules! topics {
    ($($topic:ident)*) => {
        const TOPICS: &[&str] = &[$(stringify!($topic)),*];
        $(#[test]
        fn $topic() {
            play(include_str!(concat!("stories/", stringify!($topic), ".txt")));
        })*
    };
}

topics! { commit dead explain handover keys priorities queues receive restart select send settle tasks time turns }

/// Promise: no file of stories lies there unplayed.
#[test]
fn every_file_is_played() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine/tests/stories");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    assert_eq!(found, TOPICS);
}
