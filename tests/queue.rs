//! Queues: the next track is there before its turn, a skip waits for nothing, and a track that fails ends itself only.
#![cfg(feature = "queue")]

use std::io::{Read, Seek};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::content::assert_pattern;
use support::{Answer, Content, Log, Origin, poll_until};
use windway::config::{ReadAhead, StorageConfig};
use windway::queue::{
    ListRules, Playing, Playlist, Queue, QueueConfig, QueueEvent, QueueHandle, Repeat, Track, TrackError,
    TrackId,
};
use windway::stream::{Phase, TryRead};
use windway::{Downloader, DownloaderConfig, Error, ErrorKind, FileConfig, Stream};

const LEN: u64 = 150_000;

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

fn queue(downloader: &Downloader) -> (Queue, QueueHandle) {
    let queue = Queue::new(downloader, QueueConfig::default());
    let handle = queue.handle();
    (queue, handle)
}

/// Answers requests for `/silent` only when it is released.
fn with_silent_track() -> Origin {
    let content = Content::pattern(LEN);
    Origin::start(move |request| match &*request.path {
        "/silent" => Answer::file(request, &content).latency_until_released(),
        _ => Answer::file(request, &content),
    })
}

fn push(handle: &QueueHandle, origin: &Origin, path: &str) -> TrackId {
    handle.push(Track::new(&origin.url(path)).unwrap())
}

fn play(queue: &mut Queue) -> Playing {
    queue.next().expect("a track").expect("a track that opens")
}

fn failed(queue: &mut Queue) -> TrackError {
    queue.next().expect("a track").expect_err("it opened")
}

fn read_all(playing: &mut Playing) {
    let mut bytes = Vec::new();
    playing.stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, LEN);
    assert_pattern(0, &bytes);
}

fn request(log: &Log, path: &str) -> usize {
    log.requests.iter().filter(|request| request.path == path).count()
}

/// Waits until nothing is fetched.
fn settle(downloader: &Downloader) {
    poll_until("the end of all fetches", || {
        let stats = downloader.stats();
        stats.busy_workers + stats.retrying + stats.queued.iter().sum::<usize>() == 0
    });
}

/// Options of all tracks can name what belongs to one: none of it may be played in the place of another.
#[test]
#[cfg(all(feature = "cache", unix))]
fn what_the_options_name_of_one_track_is_not_played_as_another() {
    use windway::cache::{Cache, CacheConfig, CacheKey, CacheUse};

    let origin = Origin::start(|request| match &*request.path {
        "/gone" => Answer::status(404),
        "/a" => Answer::file(request, &Content::pattern(1000)).header("Cache-Control", "max-age=3600"),
        _ => Answer::file(request, &Content::bytes(vec![7; 2000])),
    });
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), CacheConfig::new().keep_free(0)).unwrap();
    let mut config = QueueConfig::default();
    config.file.mirrors = vec![origin.url("/a")];
    config.file.cache = Some(CacheUse::of(&cache).key(CacheKey::named("a")));
    let mut queue = Queue::new(&downloader(), config);
    let handle = queue.handle();
    for (path, len) in [("/a", 1000), ("/b", 2000)] {
        push(&handle, &origin, path);
        let mut bytes = Vec::new();
        play(&mut queue).stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), len, "{path}");
    }
    push(&handle, &origin, "/gone");
    assert_eq!(failed(&mut queue).error.kind(), ErrorKind::Status(404));
}

#[test]
fn the_next_track_needs_no_network_when_its_turn_comes() {
    for storage in [StorageConfig::Memory, StorageConfig::TempFile(None)] {
        let origin = Origin::serving(Content::pattern(LEN));
        let downloader = downloader();
        let mut config = QueueConfig::default();
        config.file = config.file.storage(storage);
        let mut queue = Queue::new(&downloader, config);
        let handle = queue.handle();
        let (first, second) = (push(&handle, &origin, "/1"), push(&handle, &origin, "/2"));
        let mut playing = play(&mut queue);
        assert_eq!((playing.id, handle.current(), handle.upcoming()), (first, Some(first), Some(second)));
        read_all(&mut playing);
        origin.wait_until("the prefetch", |log| request(log, "/2") == 1);
        settle(&downloader);
        origin.stop_listening();
        let mut playing = play(&mut queue);
        assert_eq!(playing.id, second);
        read_all(&mut playing);
        assert!(queue.next().is_none());
        assert_eq!((handle.current(), request(&origin.log(), "/2")), (None, 1));
    }
}

#[test]
fn a_track_is_prefetched_before_the_one_before_it_has_ended_and_no_other_one_is() {
    let (long, short) = (Content::pattern(30_000_000), Content::pattern(LEN));
    let origin = Origin::start(move |request| match &*request.path {
        "/long" => Answer::file(request, &long),
        _ => Answer::file(request, &short),
    });
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    for path in ["/long", "/2", "/3"] {
        push(&handle, &origin, path);
    }
    let mut playing = play(&mut queue);
    let mut bytes = vec![0; 1 << 20];
    playing.stream.read_exact(&mut bytes).unwrap();
    assert_eq!(request(&origin.log(), "/2"), 0, "much is left of the first one");
    for _ in 1..28 {
        playing.stream.read_exact(&mut bytes).unwrap();
    }
    origin.wait_until("the prefetch", |log| request(log, "/2") == 1);
    settle(&downloader);
    assert_eq!(request(&origin.log(), "/3"), 0);
    assert_eq!(handle.current_stream().unwrap().position(), 28 << 20);
}

#[test]
fn a_track_can_be_read_on_when_the_next_one_has_begun() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    push(&handle, &origin, "/1");
    let second = push(&handle, &origin, "/2");
    let mut fading = play(&mut queue);
    let mut playing = play(&mut queue);
    assert_eq!(handle.current(), Some(second));
    read_all(&mut fading);
    handle.skip();
    assert_eq!(playing.stream.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn nothing_is_prefetched_on_a_metered_network_or_if_it_is_switched_off() {
    for metered in [true, false] {
        let origin = Origin::serving(Content::pattern(LEN));
        let downloader = downloader();
        downloader.set_metered(metered);
        let mut config = QueueConfig::default();
        if !metered {
            config.prefetch_before = None;
        }
        let mut queue = Queue::new(&downloader, config);
        let handle = queue.handle();
        push(&handle, &origin, "/1");
        push(&handle, &origin, "/2");
        read_all(&mut play(&mut queue));
        settle(&downloader);
        assert_eq!(request(&origin.log(), "/2"), 0);
        read_all(&mut play(&mut queue));
    }
}

#[test]
fn a_skip_ends_a_blocked_read_and_takes_what_was_prefetched() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match (&*request.path, request.range()) {
        // Nor does another connection bring the rest.
        ("/stalls", Some((1.., _))) => Answer::file(request, &content).latency_until_released(),
        ("/stalls", _) => Answer::file(request, &content).stall_after(100_000),
        _ => Answer::file(request, &content),
    });
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    for path in ["/stalls", "/2"] {
        push(&handle, &origin, path);
    }
    let mut playing = play(&mut queue);
    let mut bytes = vec![0; 100_000];
    playing.stream.read_exact(&mut bytes).unwrap();
    // Fewer bytes are left than before which the next track is prefetched.
    origin.wait_until("the prefetch", |log| request(log, "/2") == 1);
    let of_stream = playing.stream.handle();
    let reader = thread::spawn(move || {
        let got = playing.stream.read(&mut [0; 100]).unwrap();
        (got, playing)
    });
    poll_until("the read is blocked", || of_stream.phase() == Phase::Stalled);
    poll_until("the next track is stored", || downloader.stats().totals.completed >= 2);
    origin.stop_listening();
    handle.skip();
    let (got, mut playing) = reader.join().unwrap();
    assert_eq!((got, playing.stream.read(&mut [0; 100]).unwrap()), (0, 0));
    assert_eq!(playing.stream.try_read(&mut [0; 100]).unwrap(), TryRead::End);
    of_stream.resume();
    assert_eq!(playing.stream.read(&mut [0; 100]).unwrap(), 0);
    read_all(&mut play(&mut queue));
}

/// Checks that the next track is requested before it is taken, and plays it to its end.
fn assert_requested(origin: &Origin, downloader: &Downloader, queue: &mut Queue, path: &str, id: TrackId) {
    origin.wait_until("the request", |log| request(log, path) == 1);
    settle(downloader);
    origin.stop_listening();
    let mut playing = play(queue);
    assert_eq!(playing.id, id);
    read_all(&mut playing);
    origin.listen_again();
}

#[test]
fn a_skip_to_any_track_requests_it_at_once() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let ids = ["/1", "/2", "/3", "/4"].map(|path| push(&handle, &origin, path));
    let _playing = play(&mut queue);
    assert!(handle.skip_to(ids[3]));
    assert_requested(&origin, &downloader, &mut queue, "/4", ids[3]);
    assert!(handle.skip_to(ids[0]));
    assert_eq!(play(&mut queue).id, ids[0]);
    assert_eq!(play(&mut queue).id, ids[1]);
}

#[test]
fn a_skip_back_and_one_to_an_index_request_the_track_at_once() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let ids = ["/1", "/2", "/3"].map(|path| push(&handle, &origin, path));
    assert!(handle.skip_to_index(2) && !handle.skip_to_index(3));
    assert_eq!(handle.current_index(), None);
    let mut third = play(&mut queue);
    assert_eq!((third.id, handle.current_index()), (ids[2], Some(2)));
    assert!(handle.previous());
    assert_eq!(third.stream.read(&mut [0; 10]).unwrap(), 0);
    assert_requested(&origin, &downloader, &mut queue, "/2", ids[1]);
    assert!(handle.skip_to(ids[0]));
    let mut first = play(&mut queue);
    assert!(!handle.previous());
    assert_eq!(first.id, ids[0]);
    read_all(&mut first);
}

#[test]
fn skips_in_a_row_add_up_and_the_track_that_they_lead_to_is_requested_at_once() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let ids = ["/1", "/2", "/3", "/4", "/5"].map(|path| push(&handle, &origin, path));
    let _playing = play(&mut queue);
    for _ in 0..3 {
        handle.skip();
    }
    assert_eq!(handle.upcoming(), Some(ids[3]));
    assert_requested(&origin, &downloader, &mut queue, "/4", ids[3]);
    assert!(handle.skip_to_index(2));
    handle.skip();
    handle.skip();
    assert_eq!(play(&mut queue).id, ids[4]);
    // The end of the queue skips nothing more.
    handle.skip();
    handle.close();
    assert!(handle.previous());
    assert_eq!(handle.upcoming(), Some(ids[4]));
}

#[test]
fn a_step_back_passes_the_tracks_that_are_missing() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match &*request.path {
        "/gone" => Answer::status(404),
        _ => Answer::file(request, &content),
    });
    let (mut queue, handle) = queue(&downloader());
    let ids = ["/1", "/gone", "/gone", "/4"].map(|path| push(&handle, &origin, path));
    assert!(handle.skip_to(ids[3]));
    assert_eq!(play(&mut queue).id, ids[3]);
    assert!(handle.previous());
    assert_eq!([failed(&mut queue).id, failed(&mut queue).id], [ids[2], ids[1]]);
    let mut first = play(&mut queue);
    assert_eq!(first.id, ids[0]);
    read_all(&mut first);
    // And forwards over them.
    assert_eq!([failed(&mut queue).id, failed(&mut queue).id], [ids[1], ids[2]]);
    assert_eq!(play(&mut queue).id, ids[3]);
}

#[test]
fn the_track_that_is_repeated_needs_no_network_and_a_change_of_the_mode_is_an_event() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let ids = ["/1", "/2"].map(|path| push(&handle, &origin, path));
    let events = handle.subscribe();
    handle.set_repeat(Repeat::One);
    handle.set_repeat(Repeat::One);
    assert!(matches!(events.try_recv(), Some(QueueEvent::Changed)));
    assert!(events.try_recv().is_none(), "nothing was changed");
    read_all(&mut play(&mut queue));
    settle(&downloader);
    origin.stop_listening();
    for _ in 0..3 {
        let mut again = play(&mut queue);
        assert_eq!((again.id, handle.upcoming()), (ids[0], Some(ids[0])));
        read_all(&mut again);
    }
    assert_eq!(request(&origin.log(), "/1"), 1, "it is stored");
    origin.listen_again();
    handle.set_repeat(Repeat::All);
    assert_eq!(handle.upcoming(), Some(ids[1]));
    let order = [(); 3].map(|()| play(&mut queue).id);
    assert_eq!(order, [ids[1], ids[0], ids[1]]);
    handle.set_repeat(Repeat::Off);
    assert!(queue.next().is_none());
}

/// Runs `wait_next` until it has returned a track, or none, and returns the queue with it.
fn wait_next(mut queue: Queue) -> thread::JoinHandle<(Option<TrackId>, Queue)> {
    thread::spawn(move || (queue.wait_next().map(|track| track.expect("a track that opens").id), queue))
}

#[test]
fn the_end_of_a_queue_is_waited_out_until_there_is_a_next_track() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (queue, handle) = queue(&downloader);
    let events = handle.subscribe();
    let ends = || poll_until("the end", || matches!(events.try_recv(), Some(QueueEvent::Ended)));
    let waits = wait_next(queue);
    ends();
    let first = push(&handle, &origin, "/1");
    let (id, queue) = waits.join().unwrap();
    assert_eq!(id, Some(first));
    // The same for each other way to a next track.
    let ways: [&dyn Fn() -> bool; 4] =
        [&|| handle.skip_to(first), &|| handle.skip_to_index(0), &|| handle.previous(), &|| {
            handle.set_repeat(Repeat::All);
            true
        }];
    let mut queue = queue;
    for way in ways {
        let waits = wait_next(queue);
        ends();
        assert!(way());
        let (id, waited) = waits.join().unwrap();
        assert_eq!(id, Some(first));
        queue = waited;
    }
}

#[test]
fn the_close_of_a_queue_ends_its_track_its_opening_and_its_wait_for_good() {
    let origin = with_silent_track();
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    push(&handle, &origin, "/1");
    push(&handle, &origin, "/2");
    let mut playing = play(&mut queue);
    handle.close();
    assert_eq!((playing.stream.read(&mut [0; 10]).unwrap(), handle.current()), (0, None));
    assert!(queue.next().is_none() && queue.wait_next().is_none());
    assert_eq!((request(&origin.log(), "/2"), handle.tracks().len()), (0, 2), "nothing is requested for it");
    push(&handle, &origin, "/3");
    assert!(!handle.skip_to_index(9) && handle.skip_to_index(0));
    assert!(queue.next().is_none(), "nothing opens it again");

    let (queue, handle) = self::queue(&downloader);
    push(&handle, &origin, "/silent");
    let waits = wait_next(queue);
    origin.wait_until("the request", |log| request(log, "/silent") == 1);
    handle.close();
    assert_eq!(waits.join().unwrap().0, None);

    let (queue, handle) = self::queue(&downloader);
    let events = handle.subscribe();
    let waits = wait_next(queue);
    poll_until("the end", || matches!(events.try_recv(), Some(QueueEvent::Ended)));
    handle.close();
    assert_eq!(waits.join().unwrap().0, None);
    drop(playing);
    poll_until("the end of the peers", || downloader.stats().peers == 0);
}

#[test]
fn a_skip_ends_an_opening() {
    let origin = with_silent_track();
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let silent = push(&handle, &origin, "/silent");
    let second = push(&handle, &origin, "/2");
    let player = thread::spawn(move || (play(&mut queue), queue));
    origin.wait_until("the request", |log| request(log, "/silent") == 1);
    assert!(handle.skip_to(second));
    let (mut playing, queue) = player.join().unwrap();
    assert_eq!(playing.id, second);
    read_all(&mut playing);
    // The same by its removal, and by that of all.
    for end in [|handle: &QueueHandle, id| drop(handle.remove(id)), |handle: &QueueHandle, _| handle.clear()]
    {
        origin.forget();
        let mut queue = Queue::new(&downloader, QueueConfig::default());
        let handle = queue.handle();
        let id = push(&handle, &origin, "/silent");
        let player = thread::spawn(move || queue.next().is_none());
        origin.wait_until("the request", |log| request(log, "/silent") == 1);
        end(&handle, id);
        assert!(player.join().unwrap());
    }
    assert_ne!(silent, second);
    drop((playing, queue));
    poll_until("the end of the peers", || downloader.stats().peers == 0);
}

#[test]
fn a_track_that_fails_is_an_error_with_its_id_and_the_queue_goes_on() {
    let content = Content::pattern(LEN);
    let page = Content::bytes(&b"<!doctype html><title>Login</title>"[..]);
    let origin = Origin::start(move |request| match &*request.path {
        "/page" => Answer::whole(&page),
        "/gone" => Answer::status(404),
        _ => Answer::file(request, &content),
    });
    let dead = Origin::serving(Content::pattern(1));
    let url = dead.url("/a");
    drop(dead);
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let events = handle.subscribe();
    let ids = [
        push(&handle, &origin, "/gone"),
        handle.push(Track::new(&url).unwrap()),
        push(&handle, &origin, "/1"),
    ];
    let more = [push(&handle, &origin, "/page"), push(&handle, &origin, "/2")];
    let gone = failed(&mut queue);
    assert_eq!((gone.id, gone.error.kind(), handle.current()), (ids[0], ErrorKind::Status(404), None));
    let refused = failed(&mut queue);
    assert_eq!((refused.id, refused.error.kind()), (ids[1], ErrorKind::Refused));
    assert_eq!(Error::from(refused).kind(), ErrorKind::Refused);
    read_all(&mut play(&mut queue));
    // This one fails while it is prefetched.
    origin.wait_until("the prefetch", |log| request(log, "/page") >= 1);
    settle(&downloader);
    let page = failed(&mut queue);
    assert_eq!((page.id, page.error.kind()), (more[0], ErrorKind::NotMedia));
    let mut playing = play(&mut queue);
    assert_eq!(playing.id, more[1]);
    read_all(&mut playing);
    assert!(queue.next().is_none());
    drop(queue);
    let events: Vec<String> = events.into_iter().map(|event| format!("{event:?}")).collect();
    let counts = ["Failed", "Started", "Ended", "Changed"]
        .map(|name| events.iter().filter(|event| event.starts_with(name)).count());
    assert_eq!(counts, [3, 2, 1, 5], "{events:?}");
}

#[test]
fn a_track_that_has_failed_is_opened_again_by_a_skip_to_it() {
    static IS_OFFLINE: AtomicBool = AtomicBool::new(true);
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| match IS_OFFLINE.load(Ordering::SeqCst) {
        true => Answer::status(404),
        false => Answer::file(request, &content),
    });
    let (mut queue, handle) = queue(&downloader());
    let (offline, behind) = (push(&handle, &origin, "/offline"), push(&handle, &origin, "/behind"));
    for _ in 0..2 {
        assert_eq!(failed(&mut queue).id, offline);
        assert!(handle.skip_to(offline));
    }
    IS_OFFLINE.store(false, Ordering::SeqCst);
    for id in [offline, behind] {
        let mut playing = play(&mut queue);
        assert_eq!(playing.id, id);
        read_all(&mut playing);
    }
    assert!(queue.next().is_none());
}

#[test]
fn a_call_that_changes_nothing_is_no_event() {
    let downloader = downloader();
    let (_queue, handle) = queue(&downloader);
    let removed = handle.push(Track::new("https://example.com/1").unwrap());
    handle.remove(removed).unwrap();
    let events = handle.subscribe();
    assert!(!handle.move_to(removed, 0));
    assert!(handle.remove(removed).is_none());
    handle.extend([]);
    handle.clear();
    assert_eq!(std::iter::from_fn(|| events.try_recv()).count(), 0);
}

#[test]
fn the_removal_of_a_prefetched_track_cancels_its_fetch() {
    let origin = with_silent_track();
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let [_, silent, third] = ["/1", "/silent", "/3"].map(|path| push(&handle, &origin, path));
    let mut playing = play(&mut queue);
    read_all(&mut playing);
    origin.wait_until("the prefetch", |log| request(log, "/silent") == 1);
    assert_eq!(downloader.stats().peers, 2);
    assert!(handle.remove(silent).is_some());
    // The one behind it takes its place.
    origin.wait_until("the other prefetch", |log| request(log, "/3") == 1);
    settle(&downloader);
    assert_eq!((downloader.stats().peers, downloader.stats().totals.cancelled > 0), (2, true));
    assert_eq!(play(&mut queue).id, third);
}

#[test]
fn what_is_inserted_behind_the_current_track_is_prefetched_instead() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let events = handle.subscribe();
    push(&handle, &origin, "/1");
    let second = push(&handle, &origin, "/2");
    let mut playing = play(&mut queue);
    read_all(&mut playing);
    let inserted = handle.insert_next(Track::new(&origin.url("/3")).unwrap());
    origin.wait_until("the prefetch", |log| request(log, "/3") == 1);
    assert!(handle.move_to(inserted, 99));
    assert_eq!(handle.tracks().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [playing.id, second, inserted]);
    let prefetched: Vec<TrackId> = std::iter::from_fn(|| events.try_recv())
        .filter_map(|event| match event {
            QueueEvent::Prefetching { id } => Some(id),
            _ => None,
        })
        .collect();
    assert_eq!(prefetched, [second, inserted, second]);
    // A track that comes when the current one is at its end is prefetched, too.
    handle.remove(second);
    handle.remove(inserted);
    push(&handle, &origin, "/4");
    origin.wait_until("the prefetch", |log| request(log, "/4") == 1);
}

#[test]
fn a_track_may_be_opened_by_a_closure() {
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let bytes = || Ok(Stream::from_bytes("some bytes"));
    handle.push(Track::opened_by(bytes));
    let no = handle.push(Track::opened_by(|| Stream::open_file("/there/is/no/such/file")));
    handle.push(Track::opened_by(bytes).titled("Last"));
    let mut text = String::new();
    play(&mut queue).stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "some bytes");
    assert_eq!(failed(&mut queue).id, no);
    let mut playing = play(&mut queue);
    assert_eq!(playing.track.title(), Some("Last"));
    handle.remove(playing.id);
    assert_eq!(playing.stream.read(&mut [0; 10]).unwrap(), 0);
    assert!(queue.next().is_none());
    assert_eq!(downloader.stats().peers, 0);
}

/// Also if its stream is dropped early, is read on beside its next turn, or is skipped in its next turn.
#[test]
fn a_track_that_is_stored_whole_is_played_again_from_its_bytes() {
    for storage in [StorageConfig::Memory, StorageConfig::TempFile(None)] {
        let origin = Origin::serving(Content::pattern(LEN));
        let downloader = downloader();
        downloader.set_metered(true);
        let mut config = QueueConfig::new().prefetch_before(None);
        config.file = config.file.storage(storage);
        let mut queue = Queue::new(&downloader, config);
        let handle = queue.handle();
        let id = push(&handle, &origin, "/1");
        handle.set_repeat(Repeat::All);
        let mut first = play(&mut queue);
        read_all(&mut first);
        let mut second = play(&mut queue);
        first.stream.rewind().unwrap();
        read_all(&mut first);
        drop(first);
        read_all(&mut second);
        handle.skip_to(id);
        let mut third = play(&mut queue);
        assert_eq!(second.stream.read(&mut [0; 10]).unwrap(), 0, "it was skipped");
        read_all(&mut third);
        drop(third);
        assert_eq!((play(&mut queue).id, request(&origin.log(), "/1")), (id, 1));
    }
}

/// Its beginning is not stored any more when it ends.
#[test]
fn a_track_that_is_not_stored_whole_is_prefetched_for_its_next_turn() {
    let origin = Origin::serving(Content::pattern(4 << 20));
    let mut config = QueueConfig::default();
    config.file = config.file.storage(StorageConfig::Memory).behind(64 << 10);
    let mut queue = Queue::new(&downloader(), config);
    let handle = queue.handle();
    push(&handle, &origin, "/1");
    handle.set_repeat(Repeat::One);
    let mut playing = play(&mut queue);
    std::io::copy(&mut playing.stream, &mut std::io::sink()).unwrap();
    let beginnings = |log: &Log| {
        log.requests.iter().filter(|request| request.range().is_some_and(|(start, _)| start == 0)).count()
    };
    origin.wait_until("the prefetch", |log| beginnings(log) == 2);
    drop(playing);
    assert_pattern(0, &{
        let mut bytes = vec![0; 1000];
        play(&mut queue).stream.read_exact(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(beginnings(&origin.log()), 2);
}

#[test]
fn a_queue_of_missing_tracks_ends_after_one_round_and_is_tried_again_by_a_skip() {
    let origin = Origin::start(|_| Answer::status(404));
    let (mut queue, handle) = queue(&downloader());
    let ids = ["/1", "/2"].map(|path| push(&handle, &origin, path));
    handle.set_repeat(Repeat::All);
    for _ in 0..2 {
        assert_eq!([failed(&mut queue).id, failed(&mut queue).id], ids);
        assert!(queue.next().is_none() && queue.next().is_none());
        assert!(handle.skip_to(ids[0]));
    }
}

/// As the guide says of a loop in memory.
#[test]
fn a_repeated_track_that_keeps_its_stream_is_requested_once_also_if_a_skip_has_ended_it_before() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let config = FileConfig::new().storage(StorageConfig::WholeMemory).read_ahead(ReadAhead::Whole);
    let kept = downloader.open_later(&origin.url("/loop"), config).unwrap();
    let id = handle.push(Track::opened_by(move || Ok(kept.reader())));
    handle.set_repeat(Repeat::One);
    let mut skipped = play(&mut queue);
    handle.skip_to(id);
    assert_eq!(skipped.stream.read(&mut [0; 10]).unwrap(), 0);
    for _ in 0..3 {
        read_all(&mut play(&mut queue));
    }
    assert_eq!(request(&origin.log(), "/loop"), 1);
}

#[test]
fn a_skip_ends_no_read_of_another_reader_of_the_same_file() {
    let content = Content::pattern(LEN);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(10_000));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let kept = downloader.open_later(&origin.url("/loop"), FileConfig::default()).unwrap();
    let mut other = kept.reader();
    handle.push(Track::opened_by(move || Ok(kept.reader())));
    let mut playing = play(&mut queue);
    let mut tracks_reader = playing.stream.reader();
    let skipped = std::thread::spawn(move || playing.stream.read_to_end(&mut Vec::new()).map(drop));
    let others = std::thread::spawn(move || {
        support::content::assert_whole(&mut other, LEN);
        support::content::assert_whole(&mut tracks_reader, LEN);
    });
    handle.skip();
    // It ends as at the end of the file.
    skipped.join().unwrap().unwrap();
    origin.release();
    others.join().unwrap();
}

/// Its last bytes arrive after the last look at what is stored, and no read returns the end.
#[test]
fn a_repeated_track_of_which_exactly_all_bytes_were_read_is_not_requested_again() {
    let content = Content::pattern(40_000);
    let origin = Origin::start(move |request| Answer::file(request, &content).stall_after(10_000));
    let (mut queue, handle) = queue(&downloader());
    push(&handle, &origin, "/1");
    handle.set_repeat(Repeat::One);
    let mut playing = play(&mut queue);
    playing.stream.read_exact(&mut [0; 100]).unwrap();
    origin.release();
    playing.stream.read_exact(&mut vec![0; 39_900]).unwrap();
    let requests = origin.log().requests.len();
    play(&mut queue).stream.read_exact(&mut vec![0; 40_000]).unwrap();
    assert_eq!(origin.log().requests.len(), requests);
}

/// The file is stored whole: a listener who wants to hear it from its beginning needs no network.
#[test]
fn a_skip_to_the_track_that_plays_plays_its_stored_bytes_again() {
    let origin = Origin::serving(Content::pattern(LEN));
    let (mut queue, handle) = queue(&downloader());
    let id = push(&handle, &origin, "/1");
    let mut first = play(&mut queue);
    first.stream.read_exact(&mut [0; 1000]).unwrap();
    poll_until("the whole file", || first.stream.handle().phase() == Phase::Complete);
    let requests = origin.log().requests.len();
    assert!(handle.skip_to(id));
    let mut again = play(&mut queue);
    assert_eq!(first.stream.read(&mut [0; 10]).unwrap(), 0, "it was skipped");
    read_all(&mut again);
    assert_eq!(origin.log().requests.len(), requests);
}

#[test]
fn the_drop_of_a_queue_ends_its_prefetch_and_not_its_stream() {
    let origin = with_silent_track();
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    let [_first, _silent] = ["/1", "/silent"].map(|path| push(&handle, &origin, path));
    let mut playing = play(&mut queue);
    let mut first = [0; 1000];
    playing.stream.read_exact(&mut first).unwrap();
    poll_until("the prefetch", || downloader.stats().peers == 2);
    drop(queue);
    assert_eq!(downloader.stats().peers, 1);
    let mut rest = Vec::new();
    playing.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() as u64, LEN - 1000);
    push(&handle, &origin, "/3");
    handle.skip();
    assert_eq!((downloader.stats().peers, request(&origin.log(), "/3")), (1, 0));
}

#[test]
fn headers_go_to_tracks_of_the_application_only() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let mut config = QueueConfig::default();
    config.file.headers = vec![("x-key".into(), "secret".into())];
    let mut queue = Queue::new(&downloader, config);
    let list = Playlist::parse(b"/of-list\n", &origin.url("/list.m3u"), ListRules::default()).unwrap();
    push(&queue.handle(), &origin, "/own");
    queue.handle().extend(list.into_tracks());
    read_all(&mut play(&mut queue));
    read_all(&mut play(&mut queue));
    for request in origin.log().requests {
        assert_eq!(request.header("x-key").is_some(), request.path == "/own", "{request:?}");
    }
    assert!(!format!("{queue:?} {:?}", queue.handle().tracks()).contains("secret"));
}

/// A player, and threads that change the queue at random: nothing hangs, and each byte is right.
#[test]
fn any_changes_from_other_threads_leave_each_stream_right() {
    let origin = Origin::serving(Content::pattern(LEN));
    let downloader = downloader();
    let (mut queue, handle) = queue(&downloader);
    for path in ["/1", "/2", "/3"] {
        push(&handle, &origin, path);
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 1..4_u64 {
            let (handle, origin, is_over) = (handle.clone(), &origin, &is_over);
            scope.spawn(move || {
                let mut random = seed;
                while !is_over.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                    let tracks = handle.tracks();
                    let any = (random >> 33) as usize % tracks.len().max(1);
                    match (random >> 59) % 10 {
                        _ if tracks.len() < 3 => drop(push(&handle, origin, "/a")),
                        0 => drop(handle.insert_next(Track::new(&origin.url("/b")).unwrap())),
                        1 | 2 if tracks.len() > 6 => drop(handle.remove(tracks[any].0)),
                        3 => drop(handle.move_to(tracks[any].0, any / 2)),
                        4 => drop(handle.skip_to(tracks[any].0)),
                        5 => handle.skip(),
                        6 => drop(handle.previous()),
                        7 => handle.set_repeat([Repeat::Off, Repeat::One, Repeat::All][any % 3]),
                        _ => thread::yield_now(),
                    }
                }
            });
        }
        for _ in 0..200 {
            let Some(playing) = queue.next() else {
                push(&handle, &origin, "/again");
                continue;
            };
            let mut playing = playing.unwrap();
            let mut bytes = Vec::new();
            playing.stream.read_to_end(&mut bytes).unwrap();
            assert_pattern(0, &bytes);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    drop(queue);
    poll_until("the end of the peers", || downloader.stats().peers == 0);
}
