//! Low-latency HLS: parts, preload hints, rendition reports, and the distance from live.
#![cfg(feature = "hls")]

#[path = "support/presentation.rs"]
mod presentation;

use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, Instant};

use presentation::{Site, open, play};
use support::low_latency::{Edit, LowLatency};
use support::{Answer, Content, Origin};
use windway::hls::{Discontinuity, HlsKind, Hook, Quality, RequestHook, RequestKind};

#[test]
fn a_low_latency_stream_is_played_by_parts_near_its_edge() {
    let live = LowLatency::new(26, 60, 10);
    let origin = Origin::start(move |request| live.answer(request));
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let handle = hls.handle();
    assert_eq!(handle.kind(), HlsKind::LowLatency);
    // PART-HOLD-BACK, and up to the length of a part.
    let limit = Duration::from_secs_f64(4.0 * live.part() + 0.01);
    assert!(handle.latency().unwrap() <= limit, "{:?}", handle.latency());
    let sections = play(&mut hls);
    let first = sections[0].1[0];
    assert_eq!(sections, [(Discontinuity::Start, (first..600).collect())]);
    let requests = origin.log().requests;
    let lists: Vec<&str> =
        requests.iter().map(|request| request.path.as_str()).filter(|path| path.contains("m3u8")).collect();
    let reloads =
        lists.iter().filter(|path| path.contains("_HLS_msn=") && path.contains("_HLS_skip=YES")).count();
    assert!(reloads + 3 >= lists.len() && lists.len() <= 40, "one request for each part: {lists:?}");
    assert!(
        requests.iter().filter(|request| request.path.starts_with("/p")).count() >= 20,
        "parts are fetched"
    );
}

#[test]
fn s6_3_8_a_hinted_part_is_requested_before_it_is_listed_and_once_only() {
    let live = LowLatency { has_hints: true, ..LowLatency::new(26, 60, 10) };
    let origin = Origin::start(move |request| live.answer(request));
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let sections = play(&mut hls);
    let first = sections[0].1[0];
    assert_eq!(sections, [(Discontinuity::Start, (first..600).collect())]);
    let mut times: HashMap<u64, usize> = HashMap::new();
    let mut listed = 26;
    let mut early = 0;
    for request in origin.log().requests {
        if let Some(part) = request.path.strip_prefix("/p").and_then(|part| part.parse::<u64>().ok()) {
            *times.entry(part).or_default() += 1;
            early += usize::from(part >= listed);
        } else if let Some((_, query)) = request.path.split_once("_HLS_msn=") {
            let number = |text: &str| text.split('&').next().unwrap().parse::<u64>().unwrap();
            let part = query.split_once("_HLS_part=").map_or(0, |(_, part)| number(part));
            // While this request waits, the playlist before it is the newest.
            listed = number(query) * 4 + part;
        }
    }
    assert!(times.values().all(|count| *count == 1), "{times:?}");
    assert!(early >= 25, "parts are requested before the playlist lists them: {early} of {}", times.len());
}

#[test]
fn s6_3_8_hints_that_fail_or_change_cost_no_sample() {
    for lie in 0..2 {
        let live = LowLatency { has_hints: true, ..LowLatency::new(26, 50, 10) };
        let origin = Origin::start(move |request| {
            let answer = live.answer(request);
            match request.path.strip_prefix("/p").and_then(|part| part.parse::<u64>().ok()) {
                Some(part) if lie == 0 && part % 3 == 0 && request.again == 0 => Answer::status(404),
                Some(_) if lie == 1 && request.again == 0 => answer.close_after(700),
                _ => answer,
            }
        });
        let mut hls = open(&origin, "/live.m3u8", |_| ());
        let sections = play(&mut hls);
        let first = sections[0].1[0];
        assert!(sections == [(Discontinuity::Start, (first..500).collect())], "a frame is missing");
    }
}

#[test]
fn s6_3_8_a_rendition_report_is_used_for_a_change_of_level() {
    for has_hints in [false, true] {
        let live = LowLatency { has_hints, ..LowLatency::new(26, 70, 10) };
        let origin = Origin::start(move |request| {
            match request.path.as_str() {
            "/master.m3u8" => Answer::whole(&Content::bytes(
                b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlive.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nother.m3u8\n"
                    .to_vec(),
            )),
            _ => live.answer(request),
        }
        });
        let mut hls = open(&origin, "/master.m3u8", |config| config.quality = Quality::Fixed(0));
        let handle = hls.handle();
        let mut section = hls.next_section().unwrap().unwrap();
        let mut bytes = vec![0; 3000];
        section.read_exact(&mut bytes).unwrap();
        handle.set_quality(Quality::Fixed(1));
        section.read_to_end(&mut bytes).unwrap();
        let frames = presentation::numbers(&bytes);
        assert!(
            frames == (frames[0]..700).collect::<Vec<_>>(),
            "hints {has_hints}: a frame is lost or repeated: {frames:?}"
        );
        let requests = origin.log().requests;
        let other = requests.iter().find(|request| request.path.starts_with("/other.m3u8")).unwrap();
        assert!(other.path.contains("_HLS_msn=") && other.path.contains("_HLS_part="), "{}", other.path);
    }
}

/// Seconds that an output holds.
const OUTPUT: f64 = 0.1;

/// Plays in real time, so it takes twelve seconds, and the machine must be idle.
#[test]
#[ignore = "measures real time"]
fn the_distance_from_live_is_the_hold_back_and_half_a_second() {
    for has_hints in [false, true] {
        let latency = Duration::from_millis(50);
        // 47 frames: 1.003 s.
        let live = LowLatency { has_hints, latency, ..LowLatency::new(26, 40, 47) };
        let origin = Origin::start(move |request| live.answer(request));
        let mut hls = open(&origin, "/live.m3u8", |_| ());
        let mut section = hls.next_section().unwrap().unwrap();
        let info = section.info().clone();
        let sought = (info.start + info.skip).as_secs_f64();
        let (mut buf, mut offset) = ([0; 64], 0_u64);
        let mut heard = None;
        let (mut worst, mut stalled) = (0.0_f64, 0.0_f64);
        loop {
            let got = section.read(&mut buf).unwrap();
            if got == 0 {
                break;
            }
            // Presentation time 0 is the first part that was produced.
            let time = section.time_of(offset).unwrap().as_secs_f64();
            offset += got as u64;
            if time < sought {
                continue;
            }
            // The listener hears a frame a tenth of a second after it was read, and no earlier than after all before it.
            let (start, first, produced) =
                *heard.get_or_insert((Instant::now(), time, live.produced() + OUTPUT));
            let due = time - first + stalled;
            let passed = start.elapsed().as_secs_f64() - OUTPUT;
            stalled += (passed - due).max(0.0);
            worst = worst.max(produced + time - first + stalled - time);
            std::thread::sleep(Duration::from_secs_f64((due - passed - OUTPUT).max(0.0)));
        }
        let hold_back = 3.0 * live.part();
        println!(
            "hints {has_hints}: at most {worst:.3} s behind live, hold-back {hold_back:.3} s, stalled {stalled:.3} s"
        );
        assert!(worst <= hold_back + 0.5, "{worst}");
    }
}

#[test]
fn appendix_c_a_playlist_from_a_cache_is_replaced_by_the_current_one_before_playing_starts() {
    let live = LowLatency::new(40, 60, 10);
    let cached = LowLatency { first: 28, ..live };
    let origin = Origin::start(move |request| match request.path.as_str() {
        // Twelve parts of 0.21 s are missing.
        "/live.m3u8" => cached.answer(request).header("Age", "3"),
        _ => live.answer(request),
    });
    let mut hls = open(&origin, "/live.m3u8", |_| ());
    let first = play(&mut hls)[0].1[0];
    assert!(first >= 350, "playing starts with frame {first}");
    let requests = origin.log().requests;
    let lists: Vec<&str> =
        requests.iter().map(|request| request.path.as_str()).filter(|path| path.contains("m3u8")).collect();
    // Which part it is depends on how many were produced meanwhile.
    assert!(lists[1].starts_with("/live.m3u8?_HLS_msn="), "{lists:?}");
}

/// The numbers of all frames that are played.
fn frames(origin: &Origin) -> Vec<u64> {
    play(&mut open(origin, "/live.m3u8", |_| ())).into_iter().flat_map(|section| section.1).collect()
}

/// The number behind `name` in a playlist.
fn number(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}

/// A playlist whose delta update skips so many segments more or fewer than it leaves out.
fn skip_other(text: String, by: i64) -> String {
    match number(&text, "SKIPPED-SEGMENTS=") {
        Some(skipped) => {
            let other = skipped.saturating_add_signed(by);
            text.replace(&format!("SKIPPED-SEGMENTS={skipped}"), &format!("SKIPPED-SEGMENTS={other}"))
        }
        None => text,
    }
}

#[test]
fn s6_3_7_wrong_delta_updates_cost_no_frame() {
    let edits: [(&str, Edit); 6] = [
        ("more than there are", |text, _| skip_other(text, 50)),
        ("more than it leaves out", |text, count| if count % 5 == 0 { skip_other(text, 1) } else { text }),
        ("fewer than it leaves out", |text, count| if count % 5 == 0 { skip_other(text, -1) } else { text }),
        (
            "none any more",
            |text, count| if count > 36 { text.replace("CAN-SKIP-UNTIL", "X-SKIP") } else { text },
        ),
        ("date ranges too", |text, _| {
            let skip =
                number(&text, "SKIPPED-SEGMENTS=").map(|skipped| format!("SKIPPED-SEGMENTS={skipped}"));
            let removed = |skip: &String| format!("{skip},RECENTLY-REMOVED-DATERANGES=\"a\tb\"");
            skip.as_ref().map_or(text.clone(), |skip| text.replace(skip, &removed(skip)))
        }),
        ("interstitials", |text, _| {
            let range = "#EXT-X-DATERANGE:ID=\"ad\",CLASS=\"com.apple.hls.interstitial\",START-DATE=\"2024-01-01T00:00:00Z\",\
                DURATION=15,X-ASSET-URI=\"file:///ad.m3u8\",X-RESUME-OFFSET=0,X-RESTRICT=\"SKIP,JUMP\"\n";
            text.replacen("#EXT-X-MEDIA-SEQUENCE", &format!("{range}#EXT-X-MEDIA-SEQUENCE"), 1)
        }),
    ];
    std::thread::scope(|scope| {
        for (what, edit) in edits {
            scope.spawn(move || {
                let live = LowLatency { edit, ..LowLatency::new(26, 48, 10) };
                let origin = Origin::start(move |request| live.answer(request));
                let frames = frames(&origin);
                assert!(frames.iter().copied().eq(frames[0]..480), "{what}: {frames:?}");
            });
        }
    });
}

#[test]
fn s6_2_5_2_a_blocking_reload_that_is_refused_costs_no_frame() {
    std::thread::scope(|scope| {
        for refusal in [503, 400, 404] {
            scope.spawn(move || {
                let live = LowLatency { has_hints: true, ..LowLatency::new(26, 48, 10) };
                let origin = Origin::start(move |request| {
                    let is_held = request.path.contains("_HLS_msn");
                    match request.number % 3 {
                        0 if is_held => Answer::status(refusal).header("Retry-After", "1"),
                        _ => live.answer(request),
                    }
                });
                let frames = frames(&origin);
                assert!(frames.iter().copied().eq(frames[0]..480), "{refusal}: {frames:?}");
            });
        }
    });
}

#[test]
fn s6_3_8_hinted_parts_that_never_come_are_fetched_once_they_are_listed() {
    let live = LowLatency { has_hints: true, ..LowLatency::new(26, 60, 10) };
    let origin = Origin::start(move |request| match request.path.strip_prefix("/p") {
        // The first request of each comes before the part is listed.
        Some(part) if request.again == 0 && part.parse::<u64>().unwrap() % 4 == 1 => {
            Answer::status(200).latency_until_released()
        }
        _ => live.answer(request),
    });
    let frames = frames(&origin);
    assert!(frames.iter().copied().eq(frames[0]..600), "{frames:?}");
    // The hint may be held for ten seconds. The stream has seven.
    let requests = origin.log().requests;
    let held = requests.iter().find(|request| request.path.starts_with("/p") && request.again > 0).unwrap();
    let last = requests.iter().find(|request| request.path.contains("_HLS_msn=11")).unwrap();
    assert!(held.number < last.number, "{} is requested again once its playlist lists it", held.path);
}

#[test]
fn s4_4_5_3_a_hint_of_a_range_without_an_end_brings_each_frame_once() {
    for has_hints in [false, true] {
        let live = LowLatency { has_hints, has_ranges: true, ..LowLatency::new(26, 48, 10) };
        let origin = Origin::start(move |request| live.answer(request));
        let frames = frames(&origin);
        let jumps: Vec<&[u64]> = frames.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        assert!(jumps.is_empty() && frames.last() == Some(&479), "hints {has_hints}: {jumps:?}");
    }
}

/// Signs URLs that were refused.
struct Signing;

impl RequestHook for Signing {
    fn fresh_url(&self, _: RequestKind, url: &str, _: u16) -> Option<String> {
        Some(format!("{url}?signed"))
    }
}

#[test]
fn s6_3_8_a_hinted_initialization_section_that_is_refused_is_fetched_by_a_fresh_url() {
    let list = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART-INF:PART-TARGET=1\n#EXTINF:2,\n0.ts\n\
        #EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"next.mp4\"\n";
    let site = Site::default().with("/live.m3u8", list).with("/0.ts", presentation::ts(0));
    let origin = Origin::start(move |request| match request.path.as_str() {
        "/next.mp4" => Answer::status(403),
        "/next.mp4?signed" => Answer::whole(&Content::bytes(vec![0; 100])),
        _ => site.answer(request),
    });
    let _hls = open(&origin, "/live.m3u8", |config| config.hook = Some(Hook::new(Signing)));
    origin.wait_until("the request by the fresh URL", |log| {
        log.requests.iter().any(|request| request.path == "/next.mp4?signed")
    });
}
