//! Keys and initialization sections: in whatever order they and the segments arrive, and whatever fails, playing goes on.

use std::time::Instant;

use url::Url;

use super::queued_segment::SegmentPhase;
use super::*;
use crate::error::{Error, ErrorKind};
use crate::source::hls::demux::Output;
use crate::source::hls::playlist::Playlist;
use crate::types::Priority;

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
    assert_eq!((segments(&planned).len(), resources(&planned).len()), (2, 1), "{planned:?}");
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
