//! A presentation that is dropped while another thread is blocked: no thread and no request is left, whatever it waits for.
//!
//! The only test of its process, because it counts threads.
#![cfg(all(feature = "hls-aes", target_os = "linux"))]

#[path = "support/presentation.rs"]
mod presentation;

use std::io::Read;

use presentation::{Site, downloader, extinf, site, vod};
use support::{Answer, Origin};
use windway::hls::Quality;

/// Names of windway's threads of this process that still run.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("windway-hls")).collect()
}

/// Where a presentation hangs: what is requested then, and the playlist to open.
struct Hang {
    what: &'static str,
    path: &'static str,
    open: &'static str,
    answer: fn(Answer) -> Answer,
}

#[test]
fn a_presentation_that_is_dropped_ends_its_reader_and_its_requests_in_every_phase() {
    let in_head: fn(Answer) -> Answer = |good| good.stall_in_head(0);
    let in_body: fn(Answer) -> Answer = |good| good.stall_after(100);
    let hangs = [
        Hang { what: "segment", path: "/0.ts", open: "/ts.m3u8", answer: in_head },
        Hang { what: "body of a segment", path: "/0.ts", open: "/ts.m3u8", answer: in_body },
        Hang { what: "second segment", path: "/1.ts", open: "/ts.m3u8", answer: in_head },
        Hang { what: "init", path: "/init.mp4", open: "/mp4.m3u8", answer: in_head },
        Hang { what: "key", path: "/key", open: "/key.m3u8", answer: in_head },
        Hang { what: "level", path: "/mp4.m3u8", open: "/all.m3u8", answer: in_head },
        Hang { what: "reload", path: "/live.m3u8", open: "/live.m3u8", answer: in_head },
    ];
    for Hang { what, path, open, answer } in hangs {
        let lines: String = (0..3).map(|index| extinf(&format!("{index}.ts"))).collect();
        let key = vod(&format!("#EXT-X-KEY:METHOD=AES-128,URI=\"key\"\n{lines}"));
        let live = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n{lines}");
        let levels =
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nts.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nmp4.m3u8\n";
        let site: Site = site(3).with("/key.m3u8", key).with("/key", [7; 16]);
        let site = site.with("/live.m3u8", live).with("/all.m3u8", levels);
        let origin = Origin::start(move |request| {
            let good = site.answer(request);
            let is_later = path != open || request.again > 0;
            if request.path == path && is_later { answer(good) } else { good }
        });
        let downloader = downloader();
        let mut config = windway::hls::HlsConfig::default();
        config.quality = Quality::Fixed(0);
        let mut hls = downloader.open_hls(&origin.url(open), config).unwrap();
        let handle = hls.handle();
        if what == "level" {
            handle.set_quality(Quality::Fixed(1));
        }
        // The section outlives the presentation, on another thread.
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let begun = hls.next_section();
            let Ok(Some(mut section)) = begun else {
                sender.send(None).unwrap();
                return drop(hls);
            };
            sender.send(Some(hls)).unwrap();
            let mut bytes = Vec::new();
            let error = section.read_to_end(&mut bytes).err().map(windway::Error::from);
            assert!(error.is_none_or(|error| error.is_cancelled()));
        });
        origin.wait_until(what, |log| {
            log.requests.iter().any(|request| request.path == path && (path != open || request.again > 0))
        });
        match receiver.try_recv() {
            Ok(Some(hls)) => drop(hls),
            // Blocked before the first section, so the presentation can't be dropped: it is ended by its handle.
            _ => handle.cancel(),
        }
        support::in_time(what, move || reader.join().unwrap());
        drop(receiver);
        assert!(threads().is_empty(), "{what}: {:?}", threads());
        // Each request that hangs has been ended: its connection is closed.
        support::poll_until(what, || {
            let stats = downloader.stats();
            (stats.busy_workers, stats.open_bodies, stats.queued) == (0, 0, [0; 4])
        });
    }
}
