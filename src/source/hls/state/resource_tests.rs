//! Keys and initialization sections: in whatever order they and the segments arrive, and whatever fails, playing goes on.

use std::time::Instant;

use url::Url;

use super::queued_segment::SegmentPhase;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::source::hls::demux::Output;
use crate::source::hls::playlist::Playlist;
use crate::types::{Priority, RequestId};

/// A state for a playlist of these lines.
fn state(lines: &str) -> State {
    let url = Url::parse("http://host/l").unwrap();
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{lines}#EXT-X-ENDLIST\n");
    let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), url.as_str()) else { panic!("a list") };
    let first = (0, Timeline::new(list, url.clone(), Duration::ZERO));
    State::new(HlsConfig::default(), Ladder::single(url), None, first, super::tests::fast())
}

/// All that may be fetched now.
fn plan(state: &mut State, now: Instant) -> Vec<Planned> {
    std::iter::from_fn(|| state.plan(now, Priority::Low)).collect()
}

fn resources(planned: &[Planned]) -> Vec<ResourceKey> {
    let key = |planned: &Planned| match planned {
        Planned::Resource { key, .. } => Some(key.clone()),
        _ => None,
    };
    planned.iter().filter_map(key).collect()
}

fn segments(planned: &[Planned]) -> Vec<u64> {
    let id = |planned: &Planned| match planned {
        Planned::Segment { id, .. } => Some(*id),
        _ => None,
    };
    planned.iter().filter_map(id).collect()
}

#[test]
fn a_body_stays_where_it_is_until_all_that_it_needs_has_arrived() {
    let now = Instant::now();
    let mut state =
        state("#EXT-X-KEY:METHOD=AES-128,URI=\"key\",IV=0x1\n#EXT-X-MAP:URI=\"init\"\n#EXTINF:2,\na\n");
    let planned = plan(&mut state, now);
    let needed = resources(&planned);
    let [queued] = segments(&planned)[..] else { panic!("one segment") };
    state.handle_undemuxed(queued, Undemuxed { url: needed[0].url.clone(), raw: vec![1], position: 0 });
    let (last, others) = needed.split_last().unwrap();
    for key in others {
        // The thread that takes the body would have to put it back, and the last resource may arrive in between.
        assert_eq!(state.handle_resource(key.clone(), vec![0; 16]).len(), 0, "more is missing");
    }
    assert_eq!(state.handle_resource(last.clone(), vec![0; 16]).len(), 1);
}

#[test]
fn a_key_that_fails_is_requested_again_by_the_segment_that_needs_it() {
    let mut now = Instant::now();
    let mut state = state(
        "#EXT-X-KEY:METHOD=AES-128,URI=\"k0\"\n#EXTINF:2,\na\n#EXT-X-KEY:METHOD=AES-128,URI=\"k1\"\n#EXTINF:2,\nb\n",
    );
    let planned = plan(&mut state, now);
    let (first_keys, first) = (resources(&planned), segments(&planned));
    state.handle_resource(first_keys[0].clone(), vec![0; 16]);
    let planned = plan(&mut state, now);
    let [key] = &resources(&planned)[..] else { panic!("the key of the second segment") };
    // The first segment fails, too, and is planned again.
    let failed = |why| Error::new(ErrorKind::Disconnected, why);
    state.handle_segment_failed(first[0], failed("the segment"), now);
    state.handle_resource_failed(key, &failed("the key"), now);
    now += Duration::from_secs(60);
    assert!(state.take_wake(now), "the outage is over");
    let planned = plan(&mut state, now);
    // One segment at a time, until one has arrived.
    assert_eq!((segments(&planned).len(), resources(&planned).len()), (1, 0), "{planned:?}");
    state.handle_segment_complete(segments(&planned)[0]);
    let planned = plan(&mut state, now);
    assert_eq!((segments(&planned).len(), resources(&planned).len()), (1, 1), "{planned:?}");
}

#[test]
fn what_a_fetch_brings_after_its_segment_was_planned_again_is_refused() {
    let mut now = Instant::now();
    let mut state = state("#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n#EXTINF:2,\na\n");
    let planned = plan(&mut state, now);
    let (key, [first]) = (resources(&planned), &segments(&planned)[..]) else { panic!("a segment") };
    state.handle_resource_failed(&key[0], &Error::new(ErrorKind::Disconnected, "the key"), now);
    now += Duration::from_secs(60);
    assert!(state.take_wake(now), "the outage is over");
    let planned = plan(&mut state, now);
    assert_eq!((segments(&planned).len(), resources(&planned).len()), (1, 1), "{planned:?}");
    // The key comes, and the first fetch goes on with it: its frames would be doubled by the second one.
    state.handle_resource(key[0].clone(), vec![0; 16]);
    let late = state.handle_frames(*first, &mut Output::default());
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Refusal);
}

#[test]
fn a_key_that_is_refused_is_requested_twice_until_the_playlist_was_loaded_again() {
    let now = Instant::now();
    let lines: String = (0..10).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let mut state = state(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n{lines}"));
    let (mut requests, mut lists) = (0, 0);
    loop {
        let planned = plan(&mut state, now);
        let keys = resources(&planned);
        lists += planned.iter().filter(|planned| matches!(planned, Planned::Playlist { .. })).count();
        requests += keys.len();
        let Some(key) = keys.first() else { break };
        state.handle_resource_failed(key, &Error::new(ErrorKind::Status(403), "the key"), now);
    }
    assert_eq!((requests, lists), (2, 1));
    assert!(state.queue.iter().all(|queued| queued.phase != SegmentPhase::Skipped), "{:?}", state.queue);
}

/// Lets a key be silent for three seconds. Returns the state, the time then, and the resource.
fn silent_key(lines: &str) -> (State, Instant, ResourceKey) {
    let mut now = Instant::now();
    let mut state = state(lines);
    // No rule that looks at the segments now and then.
    state.set_quality(Quality::Fixed(0), now);
    let planned = plan(&mut state, now);
    let ([key], [_]) = (&resources(&planned)[..], &segments(&planned)[..]) else { panic!("{planned:?}") };
    // The body of its segment is there.
    let id = segments(&planned)[0];
    state.handle_undemuxed(id, Undemuxed { url: key.url.clone(), raw: vec![1], position: 0 });
    assert!(plan(&mut state, now).is_empty(), "the key goes first");
    let check = state.next_check().expect("a time at which a blocked reader looks");
    assert!(check > now && check <= now + Duration::from_secs(3), "{:?}", check - now);
    now += Duration::from_secs(3);
    (state, now, key.clone())
}

#[test]
fn a_silent_key_holds_no_segment_that_does_not_need_it() {
    let key = |index: u64| format!("#EXT-X-KEY:METHOD=AES-128,URI=\"k{index}\"\n#EXTINF:2,\n{index}\n");
    let (mut state, now, _) = silent_key(&(0..4).map(key).collect::<String>());
    for index in 1..4 {
        assert!(state.take_wake(now), "segment {index}");
        let planned = plan(&mut state, now);
        let ([needed], [id]) = (&resources(&planned)[..], &segments(&planned)[..]) else {
            panic!("segment {index}: {planned:?}")
        };
        assert!(needed.url.path().ends_with(&format!("k{index}")), "{needed:?}");
        state.handle_resource(needed.clone(), vec![0; 16]);
        state.handle_segment_complete(*id);
    }
}

#[test]
fn a_segment_that_needs_the_silent_key_too_waits_for_it_without_waking_its_reader() {
    let lines = "#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n#EXTINF:2,\na\n#EXTINF:2,\nb\n";
    let (mut state, now, key) = silent_key(lines);
    // What the next segment needs shows when it is planned, and it is urgent.
    for _ in 0..2 {
        state.take_wake(now);
        assert!(plan(&mut state, now).is_empty());
    }
    assert!(!state.take_wake(now), "nothing has changed");
    assert!(state.next_check().is_none_or(|check| check > now), "nor will it");
    state.handle_resource(key, vec![0; 16]);
    assert_eq!(segments(&plan(&mut state, now)).len(), 1);
}

#[test]
fn a_key_that_arrives_slowly_is_not_silent() {
    let lines = "#EXT-X-MAP:URI=\"init\"\n#EXTINF:2,\na\n#EXT-X-MAP:URI=\"other\"\n#EXTINF:2,\nb\n";
    let (mut state, now, init) = silent_key(lines);
    state.handle_resource_bytes(&init, now);
    assert!(!state.take_wake(now) && plan(&mut state, now).is_empty(), "it goes first");
}

#[test]
fn a_reader_that_waits_for_a_key_makes_its_request_urgent() {
    let now = Instant::now();
    let clear: String = (0..7).map(|index| format!("#EXTINF:2,\n{index}\n")).collect();
    let mut state = state(&format!("{clear}#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n#EXTINF:2,\n7\n"));
    let mut running = VecDeque::from(segments(&plan(&mut state, now)));
    let mut last = Vec::new();
    for segment in 0..7 {
        let id = running.pop_front().expect("a running segment");
        state.handle_frames(id, &mut super::tests::frames(0, segment, 0..4)).unwrap();
        state.handle_segment_complete(id);
        last = plan(&mut state, now);
        running.extend(segments(&last));
        if !resources(&last).is_empty() {
            break;
        }
    }
    // The one before the encrypted segment.
    for segment in 6..7 {
        let id = running.pop_front().expect("a running segment");
        state.handle_frames(id, &mut super::tests::frames(0, segment, 0..4)).unwrap();
        state.handle_segment_complete(id);
    }
    let Some(Planned::Resource { key, priority: Priority::Low, .. }) = last.first() else {
        panic!("{last:?}")
    };
    let [key_request, request] = [1, 2].map(|number| RequestId::new(number).unwrap());
    state.handle_resource_accepted(key, key_request);
    state.handle_accepted(segments(&last)[0], request);
    let SectionResult::Section(section, _) = state.next_section() else { panic!("a section") };
    assert!(matches!(state.read(section, &mut [0; 100]), ReadResult::Bytes(28)));
    // The segment can't be read without it.
    let promoted = [0; 3].map(|_| match state.read(section, &mut [0]) {
        ReadResult::Wait(request) => request,
        other => panic!("{other:?}"),
    });
    assert_eq!(promoted, [Some(key_request), Some(request), None]);
}
