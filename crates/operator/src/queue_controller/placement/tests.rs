use super::*;

fn view(ordinal: u32, generation: u64, done: bool) -> ShardView {
    let moving = Moving { generation, done, ..Moving::default() };
    ShardView { ordinal, moving: Some(moving), ..ShardView::default() }
}

fn placement(generation: u64, from: u32, to: u32) -> Placement {
    Placement { generation, from, to }
}

/// A Queue that wants `wanted` shards, whose shards are all done with what is noted.
fn step(wanted: u32, noted: Placement, live: u32) -> Step {
    let count = noted.from.max(noted.to);
    let shards: Vec<ShardView> = (0..count).map(|ordinal| view(ordinal, noted.generation, true)).collect();
    step_of(wanted, noted, live, &shards, None)
}

fn step_of(wanted: u32, noted: Placement, live: u32, shards: &[ShardView], forced: Option<u32>) -> Step {
    next(&Scene { noted: Some(noted), forced, ..scene(wanted, live, shards) })
}

/// Without a note.
fn scene(wanted: u32, live: u32, shards: &[ShardView]) -> Scene<'_> {
    Scene {
        wanted,
        noted: None,
        live,
        are_found: true,
        first_generation: 100,
        shards,
        forced: None,
        emptied: BTreeSet::new(),
    }
}

/// Nothing moves.
fn still(generation: u64, shards: u32) -> Step {
    Step { placement: Some(placement(generation, shards, shards)), shards, ..Step::default() }
}

#[test]
fn new_queue_begins_with_the_shards_that_it_wants() {
    assert_eq!(next(&scene(5, 0, &[])), still(100, 5));
}

/// Promise: where the note is lost, nothing is decided before all shards have said what they know; the newest counts, and only
/// then follows what the Queue wants.
#[test]
fn lost_note_is_what_the_brokers_say() {
    let told = |ordinal, generation, from, to| {
        let mut view = view(ordinal, generation, true);
        let moving = view.moving.as_mut().unwrap();
        (moving.from, moving.to) = (from, to);
        view
    };
    let shards = [told(0, 107, 3, 2), told(1, 106, 3, 3), told(2, 107, 3, 2)];
    for known in [&[][..], &shards[..2], &shards[1..]] {
        assert_eq!(next(&scene(5, 3, known)), Step { shards: 3, ..Step::default() });
    }
    assert_eq!(next(&Scene { are_found: false, ..scene(5, 3, &[]) }).shards, 5, "the set is not seen yet");
    let step = next(&scene(5, 3, &shards));
    assert_eq!((step.placement, step.shards), (Some(placement(107, 3, 2)), 3), "shard 1 does not know yet");
    let settled = [told(0, 9, 2, 2), told(1, 9, 2, 2)];
    assert_eq!(next(&scene(2, 2, &settled)), still(9, 2));
    assert_eq!(next(&scene(5, 2, &settled)).placement, Some(placement(10, 2, 5)));
    let strangers = [told(0, 0, 0, 0), told(1, 0, 0, 0)];
    assert_eq!(next(&scene(5, 2, &strangers)), still(100, 2));
}

#[test]
fn nothing_moves_without_a_wish() {
    assert_eq!(step(3, placement(7, 3, 3), 3), still(7, 3));
}

/// Up at once, and then for good when all have said that their slots have moved.
#[test]
fn growing_is_one_move_to_all_new_shards() {
    let grows = Step { placement: Some(placement(8, 1, 3)), shards: 3, ..Step::default() };
    assert_eq!(step(3, placement(7, 1, 1), 1), grows);
    let busy = [view(0, 8, false), view(1, 8, true), view(2, 8, true)];
    assert_eq!(step_of(3, placement(8, 1, 3), 3, &busy, None).placement, Some(placement(8, 1, 3)));
    assert_eq!(step(3, placement(8, 1, 3), 3).placement, Some(placement(9, 3, 3)));
}

/// Down one by one: the last shard goes only when it is proved empty, and when all others know.
#[test]
fn shrinking_drains_the_last_shard_and_then_the_next() {
    let first = step(1, placement(9, 3, 3), 3);
    assert_eq!((first.placement, first.shards), (Some(placement(10, 3, 2)), 3));
    assert_eq!(first.drain.unwrap(), Drain { ordinal: 2, messages: None, blocked: None });

    let proved = step(1, placement(10, 3, 2), 3);
    assert_eq!((proved.placement, proved.shards, proved.drain), (Some(placement(11, 2, 2)), 3, None));
    assert_eq!(proved.emptied, [2].into());
    let half_known = [view(0, 11, true), view(1, 10, true)];
    let waits = step_of(1, placement(11, 2, 2), 3, &half_known, None);
    assert_eq!((waits.placement, waits.shards), (Some(placement(11, 2, 2)), 3));
    assert_eq!(step_of(2, placement(11, 2, 2), 3, &[view(0, 11, true), view(1, 11, true)], None).shards, 2);

    let next = step(1, placement(11, 2, 2), 3);
    assert_eq!((next.placement, next.shards), (Some(placement(12, 2, 1)), 2), "the pod of shard 2 goes now");
}

/// A shard that was not heard proves nothing.
#[test]
fn silent_shard_keeps_everything_as_it_is() {
    for noted in [placement(7, 3, 3), placement(7, 3, 2), placement(7, 2, 3)] {
        for silent in 0..3 {
            let heard: Vec<_> =
                (0..3).filter(|ordinal| *ordinal != silent).map(|ordinal| view(ordinal, 7, true)).collect();
            let step = step_of(1, noted, 3, &heard, None);
            assert_eq!((step.placement, step.shards), (Some(noted), 3), "{silent} is silent");
            let stale: Vec<_> =
                (0..3).map(|ordinal| view(ordinal, if ordinal == silent { 6 } else { 7 }, true)).collect();
            assert_eq!(step_of(1, noted, 3, &stale, None).placement, Some(noted), "{silent} is behind");
        }
    }
}

/// Raising the number again lets the move end, and takes the slots back with the next.
#[test]
fn cancelled_drain_ends_and_is_undone_without_losing_the_pod() {
    let busy = [view(0, 10, true), view(1, 10, true), view(2, 10, false)];
    assert_eq!(step_of(3, placement(10, 3, 2), 3, &busy, None).placement, Some(placement(10, 3, 2)));
    let settled = step(3, placement(10, 3, 2), 3);
    assert_eq!((settled.placement, settled.shards), (Some(placement(11, 2, 2)), 3));
    let again = step_of(3, placement(11, 2, 2), 3, &[view(0, 11, true), view(1, 11, true)], None);
    assert_eq!((again.placement, again.shards), (Some(placement(12, 2, 3)), 3));
}

/// A person may give up what the last shard cannot hand over, but not what the others have to do.
#[test]
fn forced_drain_does_not_wait_for_the_last_shard() {
    let others = [view(0, 10, true), view(1, 10, true)];
    assert_eq!(step_of(2, placement(10, 3, 2), 3, &others, Some(2)).placement, Some(placement(11, 2, 2)));
    assert_eq!(
        step_of(2, placement(10, 3, 2), 3, &others[..1], Some(2)).placement,
        Some(placement(10, 3, 2))
    );
}

#[test]
fn blocked_drain_says_why() {
    let mut draining = view(2, 10, false);
    let moving = draining.moving.as_mut().unwrap();
    (moving.messages, moving.blocked) = (40, "shard 0: the volume is nearly full".to_owned());
    let shards = [view(0, 10, true), view(1, 10, true), draining];
    let drain = step_of(2, placement(10, 3, 2), 3, &shards, None).drain.unwrap();
    assert_eq!((drain.ordinal, drain.messages), (2, Some(40)));
    assert_eq!(drain.blocked.unwrap(), "shard 2 cannot hand over: shard 0: the volume is nearly full");
}

#[test]
fn note_is_read_as_written() {
    let noted = placement(1 << 60, 3, 2);
    assert_eq!(parse(&note(&noted)), Some(noted));
    for wrong in ["", "1/2", "1/2/3/4", "a/1/1", "1/0/1", "1/1/0"] {
        assert_eq!(parse(wrong), None, "{wrong:?}");
    }
}

/// Volumes of shards that were proved empty hold nothing; a shard that was given up on has proved nothing, and one that serves
/// again has messages again.
#[test]
fn emptied_shards_are_noted_until_they_serve_again() {
    let others = [view(0, 10, true), view(1, 10, true)];
    let given_up = step_of(2, placement(10, 3, 2), 3, &others, Some(2));
    assert_eq!((given_up.placement, given_up.emptied), (Some(placement(11, 2, 2)), BTreeSet::new()));
    let shards = [view(0, 11, true), view(1, 11, true)];
    let emptied = BTreeSet::from([2, 3]);
    let noted = Some(placement(11, 2, 2));
    let scene = Scene { noted, emptied, ..scene(3, 2, &shards) };
    assert_eq!(next(&scene).emptied, [3].into());
}
