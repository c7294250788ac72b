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
    next(&Scene {
        wanted,
        noted: Some(noted),
        live: Some(live),
        first_generation: 100,
        shards,
        forced,
        emptied: BTreeSet::new(),
    })
}

#[test]
fn queue_without_a_note_begins_with_the_shards_that_it_has() {
    let scene = Scene {
        wanted: 5,
        noted: None,
        live: Some(3),
        first_generation: 100,
        shards: &[],
        forced: None,
        emptied: BTreeSet::new(),
    };
    assert_eq!(
        next(&scene),
        Step { placement: placement(100, 3, 3), shards: 3, drain: None, emptied: BTreeSet::new() }
    );
    let made = Scene { live: None, ..scene };
    assert_eq!(
        next(&made),
        Step { placement: placement(100, 5, 5), shards: 5, drain: None, emptied: BTreeSet::new() }
    );
}

/// Brokers never see a generation twice that means something else.
#[test]
fn lost_note_is_followed_by_a_newer_placement() {
    let shards = [view(0, 107, true)];
    let scene = Scene {
        wanted: 1,
        noted: None,
        live: Some(1),
        first_generation: 100,
        shards: &shards,
        forced: None,
        emptied: BTreeSet::new(),
    };
    assert_eq!(next(&scene).placement, placement(108, 1, 1));
}

#[test]
fn nothing_moves_without_a_wish() {
    assert_eq!(
        step(3, placement(7, 3, 3), 3),
        Step { placement: placement(7, 3, 3), shards: 3, drain: None, emptied: BTreeSet::new() }
    );
}

/// Up at once, and then for good when all have said that their slots have moved.
#[test]
fn growing_is_one_move_to_all_new_shards() {
    assert_eq!(
        step(3, placement(7, 1, 1), 1),
        Step { placement: placement(8, 1, 3), shards: 3, drain: None, emptied: BTreeSet::new() }
    );
    let busy = [view(0, 8, false), view(1, 8, true), view(2, 8, true)];
    assert_eq!(step_of(3, placement(8, 1, 3), 3, &busy, None).placement, placement(8, 1, 3));
    assert_eq!(step(3, placement(8, 1, 3), 3).placement, placement(9, 3, 3));
}

/// Down one by one: the last shard goes only when it is proved empty, and when all others know.
#[test]
fn shrinking_drains_the_last_shard_and_then_the_next() {
    let first = step(1, placement(9, 3, 3), 3);
    assert_eq!((first.placement, first.shards), (placement(10, 3, 2), 3));
    assert_eq!(first.drain.unwrap(), Drain { ordinal: 2, messages: None, blocked: None });

    let proved = step(1, placement(10, 3, 2), 3);
    assert_eq!((proved.placement, proved.shards, proved.drain), (placement(11, 2, 2), 3, None));
    assert_eq!(proved.emptied, [2].into());
    let half_known = [view(0, 11, true), view(1, 10, true)];
    let waits = step_of(1, placement(11, 2, 2), 3, &half_known, None);
    assert_eq!((waits.placement, waits.shards), (placement(11, 2, 2), 3));
    assert_eq!(step_of(2, placement(11, 2, 2), 3, &[view(0, 11, true), view(1, 11, true)], None).shards, 2);

    let next = step(1, placement(11, 2, 2), 3);
    assert_eq!(next.placement, placement(12, 2, 1));
}

/// A shard that was not heard proves nothing.
#[test]
fn silent_shard_keeps_everything_as_it_is() {
    for noted in [placement(7, 3, 3), placement(7, 3, 2), placement(7, 2, 3)] {
        for silent in 0..3 {
            let heard: Vec<_> =
                (0..3).filter(|ordinal| *ordinal != silent).map(|ordinal| view(ordinal, 7, true)).collect();
            let step = step_of(1, noted, 3, &heard, None);
            assert_eq!((step.placement, step.shards), (noted, 3), "{silent} is silent");
            let stale: Vec<_> =
                (0..3).map(|ordinal| view(ordinal, if ordinal == silent { 6 } else { 7 }, true)).collect();
            assert_eq!(step_of(1, noted, 3, &stale, None).placement, noted, "{silent} is behind");
        }
    }
}

/// Raising the number again lets the move end, and takes the slots back with the next.
#[test]
fn cancelled_drain_ends_and_is_undone_without_losing_the_pod() {
    let busy = [view(0, 10, true), view(1, 10, true), view(2, 10, false)];
    assert_eq!(step_of(3, placement(10, 3, 2), 3, &busy, None).placement, placement(10, 3, 2));
    let settled = step(3, placement(10, 3, 2), 3);
    assert_eq!((settled.placement, settled.shards), (placement(11, 2, 2), 3));
    let again = step_of(3, placement(11, 2, 2), 3, &[view(0, 11, true), view(1, 11, true)], None);
    assert_eq!((again.placement, again.shards), (placement(12, 2, 3), 3));
}

/// A person may give up what the last shard cannot hand over, but not what the others have to do.
#[test]
fn forced_drain_does_not_wait_for_the_last_shard() {
    let others = [view(0, 10, true), view(1, 10, true)];
    assert_eq!(step_of(2, placement(10, 3, 2), 3, &others, Some(2)).placement, placement(11, 2, 2));
    assert_eq!(step_of(2, placement(10, 3, 2), 3, &others[..1], Some(2)).placement, placement(10, 3, 2));
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
    for wrong in ["", "1/2", "1/2/3/4", "a/1/1"] {
        assert_eq!(parse(wrong), None, "{wrong:?}");
    }
}

/// Volumes of shards that were proved empty hold nothing; a shard that was given up on has proved nothing, and one that serves
/// again has messages again.
#[test]
fn emptied_shards_are_noted_until_they_serve_again() {
    let others = [view(0, 10, true), view(1, 10, true)];
    let given_up = step_of(2, placement(10, 3, 2), 3, &others, Some(2));
    assert_eq!((given_up.placement, given_up.emptied), (placement(11, 2, 2), BTreeSet::new()));
    let shards = [view(0, 11, true), view(1, 11, true)];
    let emptied = BTreeSet::from([2, 3]);
    let noted = Some(placement(11, 2, 2));
    let scene = Scene {
        wanted: 3,
        noted,
        live: Some(2),
        first_generation: 1,
        shards: &shards,
        forced: None,
        emptied,
    };
    assert_eq!(next(&scene).emptied, [3].into());
}
