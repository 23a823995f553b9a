use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::client::pool::demand::{FAILED, REFUSED, SLOW_DIAL};

const AGE: Duration = Duration::from_secs(45);

fn idle() -> IdleConnections<u32> {
    IdleConnections::new(Limits { per_origin: 3, over_all: 4, max_age: AGE })
}

fn origin(host: &str) -> Origin {
    Origin::new(false, host, 80)
}

#[test]
fn the_connection_that_became_idle_last_is_taken_and_old_ones_are_removed() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    assert_eq!(idle.checkout(&a, |_| true, now), (None, vec![]));
    idle.put(&a, 1, now);
    idle.put(&a, 2, now + AGE / 2);
    assert_eq!(idle.checkout(&a, |_| true, now + AGE), (Some(2), vec![1]));
    assert_eq!(idle.checkout(&a, |_| true, now + AGE), (None, vec![]));
}

#[test]
fn limits_hold_for_each_origin_and_over_all() {
    let now = Instant::now();
    let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
    for connection in 1..=3 {
        assert_eq!(idle.put(&a, connection, now), []);
    }
    assert!(!idle.has_surplus(&a));
    // A surplus connection is closed if it is not used again for a while.
    assert_eq!(idle.put(&a, 4, now), []);
    assert!(idle.has_surplus(&a));
    assert_eq!(idle.next_deadline(now), Some(now + SURPLUS_AGE));
    assert_eq!(idle.expire(now), []);
    assert_eq!(idle.expire(now + SURPLUS_AGE), [1]);
    let now = now + SURPLUS_AGE;
    assert_eq!(idle.put(&b, 5, now), []);
    assert_eq!(idle.put(&b, 6, now), []);
    assert!(idle.has_surplus(&b));
    assert_eq!(idle.expire(now), [2]);
    assert_eq!((idle.idle(), idle.has_surplus(&b)), (4, false));
    assert_eq!(idle.next_deadline(now), Some(now - SURPLUS_AGE + AGE));
}

#[test]
fn a_connection_is_kept_for_each_open_stream_up_to_a_limit() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    let streams = MAX_HELD as u32 + 10;
    (0..streams).for_each(|_| drop(idle.keep_preconnected(&a, 1, now)));
    (0..streams).for_each(|connection| drop(idle.put(&a, connection, now)));
    assert_eq!(idle.expire(now + SURPLUS_AGE), (0..10).collect::<Vec<_>>(), "beyond the limit");
    assert_eq!((idle.idle(), idle.has_surplus(&a)), (MAX_HELD, false));
    // Streams that were dropped need none.
    (0..streams - 5).for_each(|_| idle.stop_preconnecting(&a, 1));
    assert!(idle.has_surplus(&a));
    idle.expire(now + SURPLUS_AGE);
    assert_eq!((idle.idle(), idle.has_surplus(&a)), (5, false), "one for each of five streams");
}

#[test]
fn connections_that_open_streams_need_are_kept_rather_than_others() {
    let now = Instant::now();
    let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
    (0..5).for_each(|_| drop(idle.keep_preconnected(&a, 1, now)));
    (0..5).for_each(|connection| drop(idle.put(&a, connection, now)));
    let later = now + SURPLUS_AGE / 2;
    (10..13).for_each(|connection| drop(idle.put(&b, connection, later)));
    assert!(idle.has_surplus(&b));
    assert_eq!(idle.next_deadline(later), Some(later + SURPLUS_AGE));
    assert_eq!(idle.expire(now + SURPLUS_AGE), Vec::<u32>::new());
    assert_eq!(idle.expire(later + SURPLUS_AGE), [10, 11, 12]);
    assert_eq!((idle.idle(), idle.next_deadline(now)), (5, Some(now + AGE)));
}

#[test]
fn a_stream_gets_its_connection_although_those_of_others_fill_the_limit() {
    let now = Instant::now();
    let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
    (0..5).for_each(|_| drop(idle.keep_preconnected(&a, 1, now)));
    (0..5).for_each(|connection| drop(idle.put(&a, connection, now)));
    assert_eq!(idle.poll_dial(now), None);
    drop(idle.keep_preconnected(&b, 1, now));
    let dial = idle.poll_dial(now).unwrap();
    assert_eq!((&dial.origin, idle.poll_dial(now)), (&b, None));
    drop(idle.put(&b, 5, now));
    idle.handle_dialled(&dial, true, now);
    assert_eq!((idle.idle(), idle.has_surplus(&b), idle.poll_dial(now)), (6, false, None));
}

#[test]
fn a_connection_that_a_stream_has_closed_in_a_body_is_replaced_once() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    (0..3).for_each(|_| drop(idle.keep_preconnected(&a, 1, now)));
    idle.put(&a, 1, now);
    assert_eq!(idle.poll_dial(now), None, "one is ready");
    idle.handle_cut(&a);
    let dial = idle.poll_dial(now).expect("one for the stream that has lost its own");
    assert_eq!(idle.poll_dial(now), None, "once");
    idle.handle_dialled(&dial, true, now);
    (2..4).for_each(|connection| drop(idle.put(&a, connection, now)));
    idle.handle_cut(&a);
    assert_eq!(idle.poll_dial(now), None, "there is one for each stream");
    // It counts no longer than its stream is open.
    (0..3).for_each(|_| idle.stop_preconnecting(&a, 1));
    idle.clear(None);
    assert_eq!(idle.poll_dial(now), None);
}

#[test]
fn a_limit_of_zero_keeps_nothing() {
    for (per_origin, over_all) in [(0, 4), (4, 0)] {
        let mut idle = IdleConnections::new(Limits { per_origin, over_all, max_age: AGE });
        let now = Instant::now();
        assert_eq!(idle.put(&origin("a"), 1, now), [1]);
        // A connection that is closed as soon as it is open would be missing again.
        drop(idle.keep_preconnected(&origin("a"), 1, now));
        assert_eq!(idle.poll_dial(now), None);
    }
}

#[test]
fn missing_connections_are_dialled_once_and_again_after_a_checkout() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    assert_eq!(idle.poll_dial(now), None);
    idle.want(&a, 2, now);
    let dials: Vec<Dial> = std::iter::from_fn(|| idle.poll_dial(now)).collect();
    assert!(dials.iter().all(|dial| dial.origin == a) && dials.len() == 2, "{dials:?}");
    for (connection, dial) in [1, 2].into_iter().zip(&dials) {
        idle.handle_dialled(dial, true, now);
        idle.put(&a, connection, now);
    }
    assert_eq!(idle.poll_dial(now), None);
    assert_eq!(idle.checkout(&a, |_| true, now), (Some(2), vec![]));
    assert_eq!(idle.poll_dial(now).map(|dial| dial.origin), Some(a));
}

/// The first connection of an origin that is to be kept preconnected could not be opened just now.
fn after_a_failed_dial() -> (IdleConnections<u32>, Origin, Instant) {
    let (mut idle, a, now) = (idle(), origin("a"), Instant::now());
    idle.keep_preconnected(&a, 1, now);
    let first = idle.poll_dial(now).unwrap();
    idle.handle_dialled(&first, false, now);
    (idle, a, now)
}

#[test]
fn nothing_is_dialled_for_an_origin_that_fails_or_is_unused() {
    let (mut idle, a, now) = after_a_failed_dial();
    assert_eq!(idle.poll_dial(now), None);
    idle.checkout(&a, |_| true, now + AGE / 2);
    assert_eq!(idle.poll_dial(now + AGE / 2), None, "the request dials");
    idle.handle_failed(&a, now, now);
    assert!(idle.handle_answered(&a, now), "the host is back");
    assert!(!idle.handle_answered(&a, now), "it was");
    assert_eq!(idle.poll_dial(now + 2 * AGE), None);
    let second = idle.poll_dial(now + AGE).unwrap();
    idle.handle_dialled(&second, true, now);
    idle.stop_preconnecting(&a, 1);
    assert_eq!(idle.poll_dial(now + AGE), None);
}

#[test]
fn a_failure_shows_nothing_of_the_time_after_a_later_answer_or_another_network() {
    let (before, now) = (Instant::now(), Instant::now() + SLOW_DIAL);
    let (mut idle, a) = (idle(), origin("a"));
    idle.keep_preconnected(&a, 1, before);
    let late = idle.poll_dial(before).unwrap();
    assert!(!idle.handle_answered(&a, now));
    idle.handle_dialled(&late, false, now);
    idle.handle_failed(&a, before, now);
    let next = idle.poll_dial(now).expect("both began before the answer");
    idle.handle_dialled(&next, true, now);
    idle.handle_failed(&a, now, now);
    assert_eq!(idle.poll_dial(now), None);
    let changed = now + SLOW_DIAL;
    assert_eq!(idle.change_network(changed), []);
    idle.handle_failed(&a, now, changed);
    assert!(idle.poll_dial(changed).is_some(), "the request was sent on the old network");
}

#[test]
fn a_failure_ends_preconnects_for_as_long_as_attempts_fail_and_a_while_longer() {
    let (mut idle, a, now) = after_a_failed_dial();
    let mut at = now;
    for _ in 0..20 {
        at += FAILED * 2 / 3;
        assert_eq!(idle.checkout(&a, |_| true, at).0, None);
        assert_eq!(idle.poll_dial(at), None, "a second dial beside the request");
        idle.handle_failed(&a, at, at);
    }
    // No request has needed a new connection since: all went over kept ones.
    idle.checkout(&a, |_| true, at + FAILED);
    assert!(idle.poll_dial(at + FAILED).is_some());
}

#[test]
fn the_holder_that_needs_most_connections_decides() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    let dials = |idle: &mut IdleConnections<u32>| {
        let dials: Vec<Dial> = std::iter::from_fn(|| idle.poll_dial(now)).collect();
        dials.iter().for_each(|dial| idle.handle_dialled(dial, true, now));
        dials.len()
    };
    idle.keep_preconnected(&a, 1, now);
    idle.keep_preconnected(&a, 2, now);
    assert_eq!(dials(&mut idle), 2);
    idle.put(&a, 1, now);
    assert_eq!(dials(&mut idle), 1);
    idle.stop_preconnecting(&a, 2);
    assert_eq!(dials(&mut idle), 0);
    idle.checkout(&a, |_| true, now);
    assert_eq!(dials(&mut idle), 1);
    idle.stop_preconnecting(&a, 1);
    assert_eq!(dials(&mut idle), 0);
    // No more than may be idle: the others would be closed again.
    idle.keep_preconnected(&a, 100, now);
    assert_eq!(idle.origins[&a].demand.wanted(), 3);
}

#[test]
fn nothing_is_dialled_for_an_origin_that_serves_one_connection_at_a_time() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    let single_connection = idle.keep_preconnected(&a, 1, now);
    assert!(!idle.handle_unanswered(&a));
    idle.handle_answered(&a, now);
    assert!(!idle.handle_unanswered(&a));
    let first = idle.poll_dial(now).unwrap();
    idle.handle_dialled(&first, true, now);
    assert!(idle.handle_unanswered(&a) && single_connection.load(Ordering::Relaxed));
    assert_eq!(idle.poll_dial(now), None);
    // An answer on a new connection proves nothing: no other connection was open then.
    idle.handle_answered(&a, now);
    assert!(idle.keep_preconnected(&a, 1, now).load(Ordering::Relaxed));
}

#[test]
fn a_checkout_skips_connections_that_do_not_match() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    drop(idle.put(&a, 1, now));
    drop(idle.put(&a, 2, now));
    assert!(idle.has(&a, |connection| *connection == 1) && !idle.has(&a, |connection| *connection == 3));
    assert_eq!(idle.checkout(&a, |connection| *connection == 1, now).0, Some(1));
    assert_eq!(idle.checkout(&a, |connection| *connection == 1, now).0, None);
}

#[test]
fn a_cleared_pool_returns_all_connections_and_is_filled_again() {
    let now = Instant::now();
    let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
    idle.want(&a, 1, now);
    idle.put(&a, 1, now);
    idle.put(&b, 2, now);
    assert_eq!(idle.clear(Some(&b)), [2]);
    assert_eq!(idle.clear(None), [1]);
    assert_eq!(idle.poll_dial(now).map(|dial| dial.origin), Some(a));
}

#[test]
fn slow_dials_delay_no_other_origin_and_are_limited() {
    let now = Instant::now();
    let limits = Limits { per_origin: 3, over_all: 100, max_age: AGE };
    let mut idle = IdleConnections::<u32>::new(limits);
    (0..20).for_each(|host| drop(idle.keep_preconnected(&origin(&host.to_string()), 1, now)));
    let mut dialled = std::collections::HashSet::new();
    for step in 0..4 {
        let now = now + step * SLOW_DIAL;
        for _ in 0..MAX_PROMPT_DIALS {
            assert!(dialled.insert(idle.poll_dial(now).unwrap().origin), "one origin has two");
        }
        assert_eq!(idle.poll_dial(now), None);
        let next = (step < 3).then_some(now + SLOW_DIAL);
        assert_eq!(idle.next_deadline(now), next);
    }
    assert_eq!(idle.poll_dial(now + 10 * SLOW_DIAL), None);
    assert_eq!(dialled.len(), MAX_DIALS);
}

#[test]
fn an_origin_whose_dial_is_slow_gets_no_second_one() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    idle.want(&a, 1, now);
    let first = idle.poll_dial(now).unwrap();
    idle.want(&a, 2, now);
    assert_eq!(idle.poll_dial(now + SLOW_DIAL), None);
    idle.handle_dialled(&first, true, now);
    assert!(idle.poll_dial(now + SLOW_DIAL).is_some());
}

#[test]
fn a_changed_network_forgets_what_failed_and_what_is_being_dialled() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    idle.want(&a, 1, now);
    let failed = idle.poll_dial(now).unwrap();
    idle.handle_dialled(&failed, false, now);
    assert_eq!(idle.change_network(now), []);
    let hanging = idle.poll_dial(now).unwrap();
    assert_eq!(idle.change_network(now), []);
    let good = idle.poll_dial(now).unwrap();
    // The dial began on the old network.
    idle.handle_dialled(&hanging, false, now);
    idle.handle_dialled(&good, true, now);
    idle.put(&a, 1, now);
    assert_eq!(idle.checkout(&a, |_| true, now).0, Some(1));
    assert!(idle.poll_dial(now).is_some());
    idle.put(&a, 2, now);
    drop(idle.handle_refused(&a, now));
    drop(idle.change_network(now));
    assert!(idle.poll_dial(now).is_some());
}

#[test]
fn an_origin_that_refuses_loses_its_idle_connections_and_is_not_preconnected_for_a_while() {
    let now = Instant::now();
    let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
    idle.keep_preconnected(&a, 1, now);
    idle.put(&a, 1, now);
    idle.put(&b, 2, now);
    assert_eq!(idle.handle_refused(&a, now), [1]);
    idle.checkout(&a, |_| true, now + REFUSED / 2);
    assert_eq!(idle.poll_dial(now + REFUSED / 2), None);
    idle.checkout(&a, |_| true, now + REFUSED);
    assert!(idle.poll_dial(now + REFUSED).is_some());
}

#[test]
fn connections_that_became_idle_before_a_time_are_removed() {
    let now = Instant::now();
    let (mut idle, a) = (idle(), origin("a"));
    idle.put(&a, 1, now);
    idle.put(&a, 2, now + AGE / 4);
    assert_eq!(idle.clear_older(&a, now + AGE / 4), [1]);
    assert_eq!(idle.clear_older(&origin("b"), now), []);
    assert_eq!(idle.idle(), 1);
}

#[test]
fn the_next_deadline_is_that_of_the_oldest() {
    let now = Instant::now();
    let (mut idle, a, b) = (idle(), origin("a"), origin("b"));
    assert_eq!(idle.next_deadline(now), None);
    idle.put(&a, 1, now);
    idle.put(&b, 2, now + AGE / 2);
    assert_eq!(idle.next_deadline(now), Some(now + AGE));
    assert_eq!(idle.expire(now + AGE), [1]);
    assert_eq!(idle.next_deadline(now + AGE), Some(now + AGE / 2 + AGE));
}

proptest! {
    #[test]
    fn what_is_due_is_done_and_no_stream_loses_its_connection_to_others(
        steps in proptest::collection::vec((0..5_u32, 0..3_usize, 0..3000_u64), 1..200),
    ) {
        let origins = [origin("a"), origin("b"), origin("c")];
        let (mut idle, mut now) = (idle(), Instant::now());
        let mut held = [0_usize; 3];
        for (number, (step, at, millis)) in (0..).zip(steps) {
            match step {
                0 | 1 => drop(idle.put(&origins[at], number, now)),
                2 => drop(idle.checkout(&origins[at], |_| true, now)),
                3 => {
                    drop(idle.keep_preconnected(&origins[at], 1, now));
                    held[at] += 1;
                }
                _ if held[at] > 0 => {
                    idle.stop_preconnecting(&origins[at], 1);
                    held[at] -= 1;
                }
                _ => {}
            }
            now += Duration::from_millis(millis);
            let ready = |idle: &IdleConnections<u32>| {
                origins.each_ref().map(|origin| idle.origins.get(origin).map_or(0, |pool| pool.ready.len()))
            };
            let before = ready(&idle);
            // Nothing is too old.
            let is_young = |pool: &OriginPool<u32>| pool.ready.iter().all(|(_, since)| *since + AGE > now);
            let are_young = idle.origins.values().all(is_young);
            idle.expire(now);
            prop_assert!(idle.next_deadline(now).is_none_or(|due| due > now), "the deadline thread would spin");
            let after = ready(&idle);
            for at in 0..3 {
                prop_assert!(!are_young || after[at] == before[at] || after[at] >= held[at], "{before:?} {after:?} {held:?}");
            }
        }
    }
}
