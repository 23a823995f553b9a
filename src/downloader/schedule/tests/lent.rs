//! Urgent work that finds no worker goes to threads that blocked readers of its peer lend.

use super::*;

/// A schedule whose only worker runs something urgent, and a peer that lends a thread.
fn saturated(now: Instant) -> (Schedule, PeerKey) {
    let mut schedule = new(1, 0);
    let [busy, peer] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
    schedule.handle_submitted(busy, fetch_info(1, Priority::High), now);
    assert!(schedule.poll_assignment(now).is_some());
    schedule.set_lent(peer, true);
    (schedule, peer)
}

#[test]
fn urgent_work_goes_to_a_lent_thread_only_while_no_worker_is_idle() {
    let now = Instant::now();
    let mut schedule = new(1, 0);
    let peer = schedule.handle_registered(Priority::High);
    schedule.set_lent(peer, true);
    for number in [1, 2] {
        schedule.handle_submitted(peer, fetch_info(number, Priority::High), now);
    }
    assert_eq!(schedule.next_lent(), None);
    assert_eq!(schedule.poll_assignment(now), Some((0, run(1))));
    assert_eq!(schedule.next_lent(), Some(peer));
    assert_eq!(schedule.assign_lent(peer, now), Some((1, run(2))));
    assert_eq!(schedule.next_lent(), None);
    assert_eq!((schedule.counts().running, schedule.counts().idle), (1, 0));
}

#[test]
fn prefetches_and_the_work_of_others_stay_with_the_pool() {
    let now = Instant::now();
    let (mut schedule, peer) = saturated(now);
    let other = schedule.handle_registered(Priority::High);
    schedule.handle_submitted(peer, fetch_info(2, Priority::Low), now);
    schedule.handle_submitted(other, fetch_info(3, Priority::High), now);
    assert_eq!(schedule.next_lent(), None);
    // Once a reader waits for it, it is urgent.
    schedule.promote(request(2), Priority::High, now);
    assert_eq!(schedule.next_lent(), Some(peer));
}

#[test]
fn a_peer_is_asked_for_urgent_work_alone_and_a_prefetch_that_it_gives_is_queued() {
    let now = Instant::now();
    let (mut schedule, peer) = saturated(now);
    schedule.handle_woken(peer, Priority::High, now);
    let (worker, assignment) = schedule.assign_lent(peer, now).unwrap();
    assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::High });
    let answer = Answer::Fetch { fetch_info: fetch_info(2, Priority::Low), more: false };
    assert_eq!(schedule.handle_answered(worker, answer, now), Admission::Waits);
    assert_eq!(schedule.counts().queued, [0, 1, 0, 0]);
}

#[test]
fn what_a_lent_thread_leaves_is_a_prefetch_and_frees_no_worker() {
    let now = Instant::now();
    let (mut schedule, peer) = saturated(now);
    schedule.handle_submitted(peer, fetch_info(2, Priority::High), now);
    let (worker, _) = schedule.assign_lent(peer, now).unwrap();
    schedule.promote(request(2), Priority::Low, now);
    let how = Preemption { has_body: false, had_share: false };
    assert_eq!(schedule.handle_preempted(worker, how, now), Requeued::Kept);
    assert_eq!(schedule.poll_assignment(now), None);
    assert_eq!(schedule.counts().queued, [0, 1, 0, 0]);
    // The index is free again.
    schedule.promote(request(2), Priority::High, now);
    assert_eq!(schedule.assign_lent(peer, now), Some((worker, run(2))));
    schedule.handle_finished(worker, now);
    assert_eq!(schedule.counts().idle, 0);
    schedule.handle_finished(0, now);
    assert_eq!(schedule.counts().idle, 1);
}

#[test]
fn a_question_that_is_given_back_again_and_again_is_not_paused() {
    let now = Instant::now();
    let (mut schedule, peer) = saturated(now);
    schedule.handle_woken(peer, Priority::High, now);
    for _ in 0..2000 {
        let (worker, assignment) = schedule.assign_lent(peer, now).unwrap();
        assert_eq!(assignment, Assignment::Ask { peer, admissible: Priority::High });
        schedule.handle_not_asked(worker, now);
        assert_eq!(schedule.next_lent(), Some(peer));
    }
}

#[test]
fn a_lent_thread_is_not_aborted_for_urgent_work_of_others() {
    let now = Instant::now();
    let mut schedule = new(1, 0);
    let [other, peer] = [(); 2].map(|()| schedule.handle_registered(Priority::High));
    schedule.handle_submitted(other, fetch_info(1, Priority::Low), now);
    assert_eq!(schedule.poll_assignment(now), Some((0, run(1))));
    schedule.set_lent(peer, true);
    schedule.handle_submitted(peer, fetch_info(2, Priority::High), now);
    let (lent, _) = schedule.assign_lent(peer, now).unwrap();
    schedule.promote(request(2), Priority::Low, now);
    schedule.handle_submitted(other, fetch_info(3, Priority::High), now);
    assert_eq!(schedule.poll_preemptions(now), 1);
    let late = now + PREEMPTION_LIMIT;
    // The lent thread has been silent longest.
    let progressed = |worker| if worker == lent { 0 } else { 1 };
    assert_eq!(schedule.poll_abort(late, 0, progressed), Some(0));
    assert_eq!(schedule.poll_abort(late, 0, progressed), None);
}
