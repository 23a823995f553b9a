//! What is fetched next, in situations that are written down.

use std::ops::Range;
use std::time::Duration;

use super::alignment::BLOCK;
use super::bisection::Hint;
use super::network::{Network, STREAMING_PIECE};
use super::plan::{self, FIRST_PIECE, OPENING, Plan, Snapshot, beside_opening};
use super::reader_view::{Piece, ReaderView};
use crate::config::ReadAhead;
use crate::source::prefetch;
use crate::storage::RangeSet;
use crate::types::Priority;

const MIB: u64 = 1 << 20;

fn network(bandwidth: f64, ttfb_ms: u64) -> Network {
    Network { bandwidth: Some(bandwidth), ttfb: Some(Duration::from_millis(ttfb_ms)), ..Network::default() }
}

fn plan(readers: &[ReaderView], stored: &[Range<u64>], in_flight: &[Piece]) -> Plan {
    plan_with(readers, stored, in_flight, ReadAhead::Bytes(16 * MIB), Priority::Low)
}

fn plan_with(
    readers: &[ReaderView],
    stored: &[Range<u64>],
    in_flight: &[Piece],
    read_ahead: ReadAhead,
    admissible: Priority,
) -> Plan {
    let mut available = RangeSet::default();
    for range in stored {
        available.insert(range.clone());
    }
    Snapshot { read_ahead, admissible, ..snapshot(readers, &available, in_flight) }.plan()
}

/// A file of 100 MiB at 1 MB/s, 40 ms away, of which a reader may prefetch 16 MiB.
fn snapshot<'a>(readers: &'a [ReaderView], available: &'a RangeSet, in_flight: &'a [Piece]) -> Snapshot<'a> {
    Snapshot {
        readers,
        available,
        in_flight,
        suffix: None,
        len: Some(100 * MIB),
        network: network(1e6, 40),
        read_ahead: ReadAhead::Bytes(16 * MIB),
        upcoming: &[],
        admissible: Priority::Low,
    }
}

fn waiting(position: u64, run: u64) -> ReaderView {
    ReaderView { position, waiting: true, run, filling: true, ..ReaderView::default() }
}

fn playing(position: u64, run: u64) -> ReaderView {
    ReaderView { position, waiting: false, run, filling: true, ..ReaderView::default() }
}

fn piece(next: u64, end: u64) -> Piece {
    Piece { next, end, retrying: None }
}

#[test]
fn what_a_decoder_reads_next_is_prefetched_behind_what_is_waited_for() {
    let mut available = RangeSet::default();
    available.insert(0..MIB);
    let tail = 99 * MIB..100 * MIB;
    let snapshot =
        |readers, in_flight, upcoming| Snapshot { upcoming, ..snapshot(readers, &available, in_flight) };
    let (upcoming, near) = ([tail.clone()], [playing(0, 0)]);
    let low = |range| Plan::Fetch { range, priority: Priority::Low };
    assert_eq!(snapshot(&near, &[], &upcoming).plan(), low(tail.clone()));
    let far = [waiting(50 * MIB, 0)];
    let urgent = snapshot(&far, &[], &upcoming).plan();
    assert!(matches!(urgent, Plan::Fetch { priority: Priority::High, range } if range.start == 50 * MIB));
    // It is not in the way of what is waited for, and not fetched twice.
    let running = [piece(tail.start, tail.end)];
    assert_eq!(snapshot(&far, &running, &upcoming).poll_unwanted(), None);
    assert_eq!(snapshot(&far, &running, &[]).poll_unwanted(), Some(0));
    assert_ne!(snapshot(&near, &running, &upcoming).plan(), low(tail));
}

/// A reader that waits at the first probe of a bisection.
fn bisecting() -> ReaderView {
    let middle = 50 * MIB;
    let hint = Hint { first: middle..middle + MIB, end: 100 * MIB, look: 14_000 };
    let mut reader = ReaderView::default();
    reader.jump(middle, Some(&hint));
    ReaderView { waiting: true, ..reader }
}

fn bisection_on(network: Network, reader: ReaderView, in_flight: &[Piece]) -> (Plan, Option<usize>) {
    let mut available = RangeSet::default();
    available.insert(0..MIB);
    let readers = [reader];
    let snapshot = Snapshot { network, ..snapshot(&readers, &available, in_flight) };
    (snapshot.plan(), snapshot.poll_unwanted())
}

#[test]
fn where_a_reader_that_bisects_jumps_next_is_prefetched_while_it_waits() {
    let (near, probe) = (network(2e6, 40), 50 * MIB);
    let plan = |in_flight: &[Piece]| bisection_on(near, bisecting(), in_flight);
    // What it waits for comes first, and is as small as what it looks at.
    let urgent = Plan::Fetch { range: probe..probe + 14_000, priority: Priority::High };
    assert_eq!(plan(&[]), (urgent, None));
    let mut in_flight = vec![piece(probe, probe + 14_000)];
    for candidate in [25 * MIB, 75 * MIB] {
        let (Plan::Fetch { range, priority: Priority::Low }, None) = plan(&in_flight) else {
            panic!("a candidate was due");
        };
        assert!(range.contains(&candidate) && range.end - range.start < 15_000, "{range:?}");
        in_flight.push(piece(range.start, range.end));
    }
    // Nothing else, and none of them is in the way of the urgent one.
    assert_eq!(plan(&in_flight), (Plan::Idle, None));
    let moved = ReaderView { waiting: false, ..bisecting() };
    assert_eq!(bisection_on(near, moved, &in_flight[..1]).0, Plan::Idle);
}

#[test]
fn candidates_are_not_fetched_where_they_would_hold_up_what_is_waited_for() {
    let probe = piece(50 * MIB, 50 * MIB + 14_000);
    let metered = Network { is_metered: true, ..network(2e6, 40) };
    let single = Network { single_connection: true, ..network(2e6, 40) };
    for network in [network(100e3, 40), metered, single] {
        assert_eq!(bisection_on(network, bisecting(), &[probe]).0, Plan::Idle, "{network:?}");
    }
}

#[test]
fn a_far_seek_is_one_small_awaited_fetch() {
    let far = 50 * MIB;
    assert_eq!(
        plan(&[waiting(far, 0)], &[0..MIB], &[piece(MIB, 2 * MIB)]),
        Plan::Fetch { range: far..far + FIRST_PIECE, priority: Priority::High }
    );
}

#[test]
fn a_near_seek_waits_for_the_running_piece() {
    let near = MIB + 50_000;
    let readers = [ReaderView { filling: false, ..waiting(near, 0) }];
    assert_eq!(plan(&readers, &[0..MIB], &[piece(MIB, 2 * MIB)]), Plan::Idle);
}

#[test]
fn a_reader_in_sequence_waits_for_the_piece_that_has_not_recorded_its_last_bytes() {
    let lags = [piece(MIB, 2 * MIB)];
    let stored = MIB + 64 * 1024;
    let near = Network { ttfb: Some(Duration::ZERO), ..network(1e6, 0) };
    let mut available = RangeSet::default();
    available.insert(0..stored);
    let readers = [ReaderView { filling: false, ..waiting(stored, MIB) }];
    let snapshot = Snapshot { network: near, ..snapshot(&readers, &available, &lags) };
    assert_eq!(snapshot.plan(), Plan::Idle);
}

#[test]
fn no_reader_waits_for_a_piece_that_waits_itself() {
    let stuck = Piece { retrying: Some(Priority::Low), ..piece(MIB, 2 * MIB) };
    let Plan::Fetch { range, priority: Priority::High } = plan(&[waiting(MIB, 0)], &[0..MIB], &[stuck])
    else {
        panic!("an urgent fetch was due");
    };
    assert_eq!(range.start, MIB);
}

#[test]
fn a_piece_is_urgent_for_the_readers_that_wait_for_it_and_no_others() {
    let across = piece(MIB, 2 * MIB);
    assert!(waiting(MIB + 1, 0).needs(&across) && waiting(MIB, 0).needs(&across));
    assert!(!playing(MIB + 1, 0).needs(&across) && !waiting(2 * MIB, 0).needs(&across));
    let until = |until| ReaderView { until, ..playing(MIB / 2, 0) };
    assert!(until(MIB + 1).needs(&across) && !until(MIB).needs(&across));
    assert!(!ReaderView { until: MIB + 1, ..playing(MIB + 1, 0) }.needs(&across));
    // A thread that needs the length waits for the end, wherever that is.
    assert!(waiting(u64::MAX, 0).needs(&piece(MIB, u64::MAX)));
}

#[test]
fn pieces_grow_while_reads_go_on_in_sequence() {
    let mut sizes = Vec::new();
    for run in [0, 65_536, 131_072, 262_144, 2 * MIB] {
        let Plan::Fetch { range, .. } = plan(&[waiting(10 * MIB, run)], &[], &[]) else { panic!("idle") };
        sizes.push(range.end - range.start);
    }
    assert_eq!(sizes, [65_536, 65_536, 131_072, 262_144, 2 * MIB]);
}

#[test]
fn a_streaming_reader_gets_as_much_again_as_it_has_read() {
    let size = |ahead, run| {
        let at = 31 * MIB;
        let stored = [at..at + ahead];
        let Plan::Fetch { range, .. } = plan(&[playing(at, run)], &stored, &[]) else { panic!("idle") };
        range.end - range.start
    };
    assert_eq!(
        (size(prefetch::STREAMING_AHEAD, 2 * MIB), size(prefetch::STREAMING_AHEAD, 3 * MIB)),
        (2 * MIB, 4 * MIB)
    );
    // 120 round trips of this network, less the part behind the last block.
    assert_eq!(size(prefetch::STREAMING_AHEAD, 30 * MIB), 4_800_000 / BLOCK * BLOCK);
    assert_eq!(size(prefetch::STREAMING_AHEAD + BLOCK, 30 * MIB), 7 * BLOCK);
}

#[test]
fn a_piece_is_too_far_where_no_reader_may_have_more() {
    let is_too_far =
        |piece: Piece, readers: &[ReaderView]| plan::is_too_far(&piece, readers, ReadAhead::Bytes(16 * MIB));
    let long = |next| piece(next, 60 * MIB);
    assert!(!is_too_far(long(17 * MIB - 1), &[playing(MIB, MIB)]));
    assert!(is_too_far(long(17 * MIB), &[playing(MIB, MIB)]));
    assert!(!is_too_far(long(17 * MIB), &[playing(MIB, MIB), playing(5 * MIB, MIB)]));
    let waits = ReaderView { until: 18 * MIB, ..playing(MIB, 0) };
    assert!(!is_too_far(long(17 * MIB), &[waits]) && is_too_far(long(18 * MIB), &[waits]));
    assert!(!plan::is_too_far(&long(50 * MIB), &[playing(MIB, MIB)], ReadAhead::Whole));
    // A reader past the piece does not cut it; if all readers are past it, it ends by itself.
    assert!(is_too_far(long(17 * MIB), &[playing(MIB, MIB), playing(90 * MIB, MIB)]));
    assert!(!is_too_far(long(17 * MIB), &[playing(90 * MIB, MIB)]));
}

#[test]
fn a_reader_that_refills_a_small_read_ahead_does_not_stream() {
    let size = |read_ahead: u64, ahead| {
        let at = 30 * MIB;
        let readers = [playing(at, 20 * MIB)];
        let stored = [at..at + ahead];
        match plan_with(&readers, &stored, &[], ReadAhead::Bytes(read_ahead), Priority::Low) {
            Plan::Fetch { range, .. } => range.end - range.start,
            _ => 0,
        }
    };
    assert!(size(2 * MIB, MIB) <= MIB && size(512 * 1024, 200 * 1024) <= MIB);
    assert!(size(2 * MIB, MIB / 2) > 3 * MIB);
}

#[test]
fn a_first_read_costs_a_piece_and_playing_goes_to_the_prefetch_target() {
    let stored = [0..MIB];
    assert_eq!(plan(&[playing(2048, 2048)], &stored, &[]), Plan::Idle);
    assert_eq!(
        plan(&[playing(MIB / 2, MIB / 2)], &stored, &[]),
        Plan::Fetch { range: MIB..2 * MIB, priority: Priority::Low }
    );
}

#[test]
fn the_next_piece_is_requested_shortly_before_the_last_one_ends() {
    let readers = [playing(MIB / 2, MIB / 2)];
    assert_eq!(plan(&readers, &[0..MIB], &[piece(MIB, 2 * MIB)]), Plan::Idle);
    assert_eq!(
        plan(&readers, &[0..2 * MIB - 1000], &[piece(2 * MIB - 1000, 2 * MIB)]),
        Plan::Fetch { range: 2 * MIB..4 * MIB, priority: Priority::Low }
    );
}

#[test]
fn a_reader_that_waits_for_the_suffix_request_leaves_the_opening_alone() {
    let (len, opening) = (100 * MIB, [piece(14_350, OPENING)]);
    let available = RangeSet::default();
    let unwanted = |suffix| {
        let readers = [waiting(len - 160, 0)];
        let admissible = Priority::High;
        Snapshot { suffix, admissible, ..snapshot(&readers, &available, &opening) }.poll_unwanted()
    };
    assert_eq!(unwanted(Some(len - 13_824..len)), None);
    assert_eq!(unwanted(None), Some(0));
}

#[test]
fn a_long_piece_waits_for_the_connection_of_the_one_before_it() {
    let at = 31 * MIB;
    let next = |reader: ReaderView, left: u64| {
        plan(&[reader], &[at..at + MIB - left], &[piece(at + MIB - left, at + MIB)])
    };
    let streaming = playing(at, 30 * MIB);
    assert_eq!(next(streaming, 1000), Plan::Idle);
    // All its bytes are there, and it has not ended.
    assert_eq!(next(streaming, 0), Plan::Idle);
    let waits = ReaderView { position: at + MIB, waiting: true, ..streaming };
    assert_eq!(next(waits, 0), Plan::Idle);
    // Where pieces are short, the next one is requested beside the last bytes of this one.
    let begins = playing(at, MIB);
    assert!(matches!(next(begins, 1000), Plan::Fetch { range, .. } if range.start == at + MIB));
}

#[test]
fn a_reader_that_streams_from_the_start_gets_the_rest_over_the_connection_of_the_opening() {
    let at = |position| waiting(position, position);
    // While the opening is on its way its connection is waited for, although a player would prefetch by now.
    assert_eq!(plan(&[at(200_000)], &[0..200_000], &[piece(200_000, OPENING)]), Plan::Idle);
    let rest = |readers: &[ReaderView]| match plan(readers, &[0..OPENING], &[]) {
        Plan::Fetch { range, .. } => range.end - range.start,
        other => panic!("{other:?}"),
    };
    assert_eq!(rest(&[at(OPENING)]), STREAMING_PIECE);
    assert!(rest(&[playing(200_000, 200_000)]) > STREAMING_PIECE - MIB);
    // A player, and one that has jumped.
    assert!(rest(&[playing(100_000, 100_000)]) < MIB);
    assert!(rest(&[ReaderView { run: 100_000, ..at(OPENING) }]) < MIB);
}

#[test]
fn a_download_gets_the_rest_over_the_connection_of_the_opening() {
    let download = |stored, in_flight: &[Piece]| {
        plan_with(&[playing(0, 0)], &[0..stored], in_flight, ReadAhead::Whole, Priority::Low)
    };
    assert_eq!(download(200_000, &[piece(200_000, OPENING)]), Plan::Idle);
    let range = OPENING..OPENING + STREAMING_PIECE;
    assert_eq!(download(OPENING, &[]), Plan::Fetch { range, priority: Priority::Low });
}

#[test]
fn a_long_piece_of_a_download_does_not_share_the_network_with_a_seek() {
    let mut available = RangeSet::default();
    available.insert(0..MIB);
    let unwanted = |in_flight: &[Piece]| {
        let (read_ahead, admissible) = (ReadAhead::Whole, Priority::High);
        let readers = [waiting(10 * MIB, 0)];
        Snapshot { read_ahead, admissible, ..snapshot(&readers, &available, in_flight) }.poll_unwanted()
    };
    assert_eq!(unwanted(&[piece(30 * MIB, 80 * MIB)]), Some(0));
    assert_eq!(unwanted(&[piece(30 * MIB, 33 * MIB)]), None);
}

#[test]
fn one_connection_at_a_time_is_waited_for() {
    let single_connection = |reader: ReaderView, stored: Range<u64>, in_flight: &[Piece]| {
        let mut available = RangeSet::default();
        available.insert(stored);
        let network = Network { single_connection: true, ..network(1e6, 40) };
        Snapshot { network, ..snapshot(&[reader], &available, in_flight) }.plan()
    };
    let ended = piece(2 * MIB, 2 * MIB);
    assert_eq!(single_connection(playing(MIB / 2, MIB / 2), 0..2 * MIB, &[ended]), Plan::Idle);
    assert_eq!(single_connection(waiting(2 * MIB, 2 * MIB), 0..2 * MIB, &[ended]), Plan::Idle);
    assert!(matches!(single_connection(waiting(2 * MIB, 2 * MIB), 0..2 * MIB, &[]), Plan::Fetch { .. }));
    // What is far from all that is on its way is requested anyway.
    let running = piece(2 * MIB, 3 * MIB);
    assert!(matches!(single_connection(waiting(50 * MIB, 0), 0..2 * MIB, &[running]), Plan::Fetch { .. }));
}

#[test]
fn what_no_reader_wants_is_cancelled_when_it_is_in_the_way() {
    let unwanted = |readers: &[ReaderView], in_flight: &[Piece]| {
        let mut available = RangeSet::default();
        available.insert(0..MIB);
        Snapshot { admissible: Priority::High, ..snapshot(readers, &available, in_flight) }.poll_unwanted()
    };
    let left_behind = piece(MIB, 2 * MIB);
    // Its reader has jumped away and waits; another one that plays on towards it wants it.
    assert_eq!(unwanted(&[waiting(9 * MIB, 0)], &[left_behind]), Some(0));
    assert_eq!(unwanted(&[waiting(9 * MIB, 0), playing(MIB / 2, MIB / 2)], &[left_behind]), None);
    // In the way of no reader.
    assert_eq!(unwanted(&[playing(9 * MIB, 0)], &[left_behind]), None);
    // What is waited for, and what follows it.
    let wanted = [piece(9 * MIB, 9 * MIB + 65_536), piece(9 * MIB + 65_536, 10 * MIB)];
    assert_eq!(unwanted(&[waiting(9 * MIB, 0)], &wanted), None);
    // About to end: its connection is worth more.
    assert_eq!(unwanted(&[waiting(9 * MIB, 0)], &[piece(2 * MIB - 1000, 2 * MIB)]), None);
}

#[test]
fn what_is_stored_or_in_flight_is_not_requested_again() {
    let readers = [playing(0, MIB)];
    let Plan::Fetch { range, .. } = plan(&readers, &[0..MIB, 2 * MIB..3 * MIB], &[]) else { panic!("idle") };
    assert_eq!(range, MIB..2 * MIB);
    let Plan::Fetch { range, .. } = plan(&[waiting(MIB, MIB)], &[0..MIB], &[piece(MIB + 30_000, 2 * MIB)])
    else {
        panic!("idle");
    };
    assert_eq!(range, MIB..MIB + 30_000);
}

#[test]
fn only_urgent_work_is_requested_when_nothing_else_is_admissible() {
    let readers = [playing(MIB / 2, MIB / 2)];
    let idle = plan_with(&readers, &[0..MIB], &[], ReadAhead::Whole, Priority::High);
    assert_eq!(idle, Plan::Idle);
}

#[test]
fn a_download_fetches_what_seeks_left_out_last() {
    let readers = [ReaderView { filling: false, ..playing(99 * MIB, MIB) }];
    let stored = [0..MIB, 98 * MIB..100 * MIB];
    assert_eq!(
        plan_with(&readers, &stored, &[], ReadAhead::Whole, Priority::Low),
        Plan::Fetch { range: MIB..4 * MIB, priority: Priority::Low }
    );
}

#[test]
fn read_ahead_fills_to_the_prefetch_target_and_is_used_down_to_half() {
    let fills = |was: bool, ahead: u64| {
        let mut available = RangeSet::default();
        available.insert(0..MIB + ahead);
        let mut reader = ReaderView { filling: was, ..playing(MIB, MIB) };
        reader.refill(&available, &[], ReadAhead::Bytes(16 * MIB));
        reader.filling
    };
    assert!(fills(true, 15 * MIB));
    assert!(!fills(true, 16 * MIB));
    assert!(!fills(false, 9 * MIB));
    assert!(fills(false, 8 * MIB - 1));
}

#[test]
fn a_wait_for_many_bytes_gets_all_of_them_and_no_more() {
    let mut waiter = ReaderView { position: MIB, until: 40 * MIB, ..ReaderView::default() };
    let mut stored = vec![0..MIB];
    let mut asked = 0;
    loop {
        let available = stored.iter().cloned().fold(RangeSet::default(), |mut available, range| {
            available.insert(range);
            available
        });
        waiter.refill(&available, &[], ReadAhead::Bytes(16 * MIB));
        let Plan::Fetch { range, priority } = plan(&[waiter], &stored, &[]) else { break };
        assert_eq!((priority, range.start), (Priority::High, MIB + asked));
        let first = piece(range.start, range.end);
        assert!(waiter.needs(&first));
        // The next one is requested while this one comes.
        let almost = Piece { next: range.end - 1, ..first };
        if let Plan::Fetch { range: next, priority: Priority::Low } = plan(&[waiter], &stored, &[almost]) {
            assert_eq!(next.start, range.end);
        }
        asked += range.end - range.start;
        stored.push(range);
    }
    assert_eq!(asked, 39 * MIB);
}

#[test]
fn beside_the_opening_only_what_is_waited_for_elsewhere_is_requested() {
    let far = 50 * MIB;
    assert_eq!(beside_opening(&[waiting(0, 0), waiting(far, 0)]), Some(far..far + FIRST_PIECE));
    assert_eq!(beside_opening(&[waiting(0, 0), waiting(OPENING - 1, 0), playing(far, 0)]), None);
    // A thread that needs the length.
    assert_eq!(beside_opening(&[waiting(u64::MAX, 0)]), None);
}

#[test]
fn nothing_is_fetched_beyond_the_end() {
    let end = 100 * MIB;
    assert_eq!(plan(&[waiting(end, 0)], &[], &[]), Plan::Idle);
    let Plan::Fetch { range, .. } = plan(&[waiting(end - 10, 0)], &[], &[]) else { panic!("idle") };
    assert_eq!(range, end - 10..end);
}
