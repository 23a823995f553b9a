//! When peers are asked for work.

use super::*;

#[test]
fn a_peer_is_asked_once_a_wake_and_not_again_after_wait() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_woken(peer, Priority::Low, now);
    schedule.handle_woken(peer, Priority::Low, now);
    let (worker, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::Low });
    schedule.handle_answered(worker, Answer::Wait, now);
    assert_eq!(schedule.poll_assignment(now), None);
}

#[test]
fn a_wake_during_the_question_is_kept() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::Low, now);
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_woken(peer, Priority::High, now);
    schedule.handle_answered(worker, Answer::Wait, now);
    let (_, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::Low });
}

#[test]
fn a_peer_with_more_is_asked_again_and_one_that_panicked_is_not() {
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_woken(peer, Priority::High, now);
    let (first, _) = schedule.poll_assignment(now).unwrap();
    let answer = Answer::Fetch { fetch_info: fetch_info(1, Priority::Low), more: true };
    schedule.handle_answered(first, answer, now);
    let (second, assignment) = schedule.poll_assignment(now).unwrap();
    assert!(matches!(assignment, Assignment::Ask { .. }) && first != second);
    schedule.handle_answered(second, Answer::Gone, now);
    schedule.handle_woken(peer, Priority::High, now);
    assert_eq!(schedule.poll_assignment(now), None);
}

#[test]
fn a_prefetch_given_for_urgent_work_waits_for_an_unreserved_worker() {
    let mut schedule = new(2, 1);
    let peer = schedule.handle_registered(Priority::High);
    let now = Instant::now();
    schedule.handle_submitted(peer, fetch_info(1, Priority::Low), now);
    let (unreserved, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_woken(peer, Priority::High, now);
    let (reserved, assignment) = schedule.poll_assignment(now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::High });
    let answer = Answer::Fetch { fetch_info: fetch_info(2, Priority::Low), more: false };
    assert_eq!(schedule.handle_answered(reserved, answer, now), Admission::Waits);
    assert_eq!(schedule.poll_assignment(now), None);
    schedule.handle_submitted(peer, fetch_info(3, Priority::High), now);
    assert_eq!(schedule.poll_assignment(now), Some((reserved, run(3))));
    schedule.handle_finished(unreserved, now);
    assert_eq!(schedule.poll_assignment(now), Some((unreserved, run(2))));
}

#[test]
fn a_cancelled_peer_is_not_asked() {
    for asks in [false, true] {
        let mut schedule = new(1, 0);
        let peer = schedule.handle_registered(Priority::High);
        let now = Instant::now();
        schedule.handle_woken(peer, Priority::High, now);
        let asked = if asks { schedule.poll_assignment(now) } else { None };
        schedule.handle_peer_cancelled(peer);
        if let Some((worker, _)) = asked {
            let answer = Answer::Ended { why: Fruitless::Cancelled, more: true };
            schedule.handle_answered(worker, answer, now);
        }
        schedule.handle_woken(peer, Priority::High, now);
        assert_eq!(schedule.poll_assignment(now), None);
        assert_eq!(schedule.next_deadline(now), None);
    }
}

/// How often a peer is asked within a minute all of whose fetches end so, on a worker or before.
fn asked_in_a_minute(why: Fruitless, on_worker: bool) -> u64 {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    let (mut now, mut asked) = (start, 0);
    schedule.handle_woken(peer, Priority::Low, now);
    while now < start + Duration::from_secs(60) {
        while let Some((worker, _)) = schedule.poll_assignment(now) {
            asked += 1;
            if on_worker {
                let answer = Answer::Fetch { fetch_info: fetch_info(asked, Priority::Low), more: true };
                schedule.handle_answered(worker, answer, now);
                schedule.handle_fruitless(worker, why, now);
            } else {
                schedule.handle_answered(worker, Answer::Ended { why, more: true }, now);
            }
        }
        now = schedule.next_deadline(now).unwrap();
    }
    // A wake is heeded at once.
    schedule.handle_woken(peer, Priority::Low, now);
    assert!(schedule.poll_assignment(now).is_some());
    assert_eq!(schedule.next_deadline(now), None);
    asked
}

#[test]
fn a_peer_that_wakes_itself_and_has_nothing_is_asked_less_and_less_often() {
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    let mut now = start;
    schedule.handle_woken(peer, Priority::High, now);
    let mut asked = 0;
    while now < start + Duration::from_secs(60) {
        while let Some((worker, _)) = schedule.poll_assignment(now) {
            asked += 1;
            assert!(asked < 10_000, "asked without end");
            schedule.handle_woken(peer, Priority::High, now);
            schedule.handle_answered(worker, Answer::Wait, now);
        }
        now = schedule.next_deadline(now).unwrap();
    }
    assert!((1024..2000).contains(&asked), "{asked}");
    // A wake from outside cuts the pause short, and it is asked for urgent work still.
    schedule.handle_woken(peer, Priority::Low, now);
    assert!(schedule.poll_assignment(now).is_some());
}

#[test]
fn a_peer_whose_fetches_bring_nothing_is_asked_less_and_less_often() {
    for on_worker in [false, true] {
        let cancelled = asked_in_a_minute(Fruitless::Cancelled, on_worker);
        assert!((1024..2000).contains(&cancelled), "{cancelled}");
        let failed = asked_in_a_minute(Fruitless::Failed, on_worker);
        assert!((16..300).contains(&failed), "{failed}");
    }
}

#[test]
fn a_peer_whose_fetches_bring_a_few_bytes_each_is_asked_for_prefetches_a_few_times_a_second() {
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    let (mut now, mut asked) = (start, 0);
    schedule.handle_woken(peer, Priority::Low, now);
    let fetch = |asked, priority| Answer::Fetch { fetch_info: fetch_info(asked, priority), more: true };
    while now < start + Duration::from_secs(60) {
        while let Some((worker, _)) = schedule.poll_assignment(now) {
            asked += 1;
            schedule.handle_answered(worker, fetch(asked, Priority::Low), now);
            schedule.handle_fruitless(worker, Fruitless::Short, now);
            // The peer knows which bytes are next.
            schedule.handle_woken(peer, Priority::Low, now);
        }
        now = schedule.next_deadline(now).unwrap();
    }
    assert!((200..300).contains(&asked), "{asked}");
    // A reader waits for nothing of that.
    schedule.handle_woken(peer, Priority::High, now);
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_answered(worker, fetch(asked + 1, Priority::High), now);
    assert!(schedule.poll_assignment(now).is_none());
    // A full answer ends it.
    schedule.handle_finished(worker, now);
    schedule.handle_woken(peer, Priority::Low, now);
    assert!(schedule.poll_assignment(now).is_some());
}

#[test]
fn a_peer_whose_urgent_fetches_bring_hardly_a_byte_each_is_asked_a_few_times_a_second() {
    let mut schedule = new(2, 0);
    let peer = schedule.handle_registered(Priority::High);
    let start = Instant::now();
    let (mut now, mut asked) = (start, 0);
    let fetch = |asked| Answer::Fetch { fetch_info: fetch_info(asked, Priority::High), more: false };
    schedule.handle_woken(peer, Priority::High, now);
    while now < start + Duration::from_secs(60) {
        while let Some((worker, _)) = schedule.poll_assignment(now) {
            asked += 1;
            assert!(asked < 10_000, "asked without end");
            schedule.handle_answered(worker, fetch(asked), now);
            schedule.handle_fruitless(worker, Fruitless::Tiny, now);
            // The plan has more to prefetch, and then the reader, which has read the byte, waits again.
            schedule.handle_woken(peer, Priority::Low, now);
            schedule.handle_woken(peer, Priority::High, now);
        }
        now = schedule.next_deadline(now).unwrap();
    }
    assert!((250..400).contains(&asked), "{asked}");
    // An answer that brings more ends it, also if it is short.
    let (worker, _) = schedule.poll_assignment(now).unwrap();
    schedule.handle_answered(worker, fetch(asked + 1), now);
    schedule.handle_fruitless(worker, Fruitless::Short, now);
    schedule.handle_woken(peer, Priority::High, now);
    assert!(schedule.poll_assignment(now).is_some());
}
