//! Every number of a configuration at its smallest and its largest: it is refused by name, or it works.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use support::content::assert_pattern;
use support::peers::{List, collect};
use support::{Answer, Content, Origin, Station, in_time};
use windway::config::{ReadAhead, StorageConfig};
use windway::downloader::Outcome;
use windway::{
    ClientConfig, Downloader, DownloaderConfig, Error, ErrorKind, Fetch, FileConfig, Priority, RadioConfig,
};

const LEN: usize = 300_000;

fn origin() -> Origin {
    let content = Content::pattern(LEN as u64);
    let station = Station { audio: Content::endless(), interval: 8192, every: 2, titles: vec!["One"] };
    Origin::start(move |request| match request.path.as_str() {
        "/live" => Answer::station(request, &station),
        "/broken" if request.number % 2 == 0 => Answer::file(request, &content).close_after(100_000),
        _ => Answer::file(request, &content),
    })
}

/// Name of a field, and a change that sets it.
type Case<C> = (&'static str, fn(&mut C));

fn use_all_ways(downloader: &Downloader, origin: &Origin) -> Result<(), Error> {
    let list = List::default();
    let peer = downloader.register(list.clone(), Priority::High)?;
    let (sink, end) = collect(0);
    list.put(Fetch::get(&origin.url("/a"))?, sink);
    peer.wake(Priority::Low);
    match end.recv().unwrap().outcome {
        Outcome::Done => {}
        Outcome::Failed(error) => return Err(error),
        outcome => panic!("{outcome:?}"),
    }
    let mut all = Vec::new();
    peer.execute(Fetch::get(&origin.url("/broken"))?)?.read_to_end(&mut all)?;
    assert_pattern(0, &all);
    for answer in peer.batch(vec![Fetch::get(&origin.url("/a"))?, Fetch::get(&origin.url("/a"))?]) {
        answer?.read_to_end(&mut all)?;
    }
    downloader.preconnect(&origin.url("/a"), usize::MAX)?;
    let mut stream = downloader.open(&origin.url("/a"))?;
    all.clear();
    stream.read_to_end(&mut all)?;
    assert_eq!(all.len(), LEN);
    downloader.network_changed();
    downloader.stop();
    Ok(())
}

const OF_A_DOWNLOADER: &[Case<DownloaderConfig>] = &[
    ("max_concurrent", |config| config.max_concurrent = 0),
    ("max_concurrent", |config| config.max_concurrent = usize::MAX),
    ("reserved", |config| config.reserved = usize::MAX),
    ("max_per_origin", |config| config.max_per_origin = 0),
    ("max_per_origin", |config| config.max_per_origin = usize::MAX),
    ("max_preempted", |config| config.max_preempted = Some(0)),
    ("max_preempted", |config| config.max_preempted = Some(usize::MAX)),
    ("prefetch_delay", |config| config.prefetch_delay = Duration::ZERO),
    ("aging_threshold", |config| config.aging_threshold = Duration::ZERO),
    ("aging_threshold", |config| config.aging_threshold = Duration::MAX),
    ("peer_capacity", |config| config.peer_capacity = 0),
    ("peer_capacity", |config| config.peer_capacity = 1),
    ("peer_capacity", |config| config.peer_capacity = usize::MAX),
    ("max_open_bodies", |config| config.max_open_bodies = 0),
    ("max_open_bodies", |config| config.max_open_bodies = 1),
    ("max_open_bodies", |config| config.max_open_bodies = usize::MAX),
    ("max_retries", |config| config.max_retries = u32::MAX),
    ("soft_timeout", |config| config.soft_timeout = Duration::ZERO),
    ("soft_timeout", |config| config.soft_timeout = Duration::MAX),
    ("hang_timeout", |config| config.hang_timeout = Duration::ZERO),
    ("hang_timeout", |config| config.hang_timeout = Duration::MAX),
    ("event_capacity", |config| config.event_capacity = 0),
    ("event_capacity", |config| config.event_capacity = usize::MAX),
    ("client", |config| config.client.resolve_timeout = Duration::ZERO),
    ("client", |config| config.client.resolve_timeout = Duration::MAX),
    ("client", |config| config.client.resolve_cache = Duration::ZERO),
    ("client", |config| config.client.resolve_cache = Duration::MAX),
    ("client", |config| config.client.connect_timeout = Duration::ZERO),
    ("client", |config| config.client.connect_timeout = Duration::MAX),
    ("client", |config| config.client.silence_timeout = Duration::ZERO),
    ("client", |config| config.client.silence_timeout = Duration::MAX),
    ("client", |config| config.client.min_rate = 0),
    ("client", |config| config.client.min_rate = u64::MAX),
    ("client", |config| config.client.max_redirects = 0),
    ("client", |config| config.client.max_redirects = u32::MAX),
    ("client", |config| config.client.max_head = 0),
    ("client", |config| config.client.max_head = usize::MAX),
    ("client", |config| config.client.max_idle_per_origin = 0),
    ("client", |config| config.client.max_idle_per_origin = usize::MAX),
    ("client", |config| config.client.max_idle = 0),
    ("client", |config| config.client.max_idle = usize::MAX),
    ("client", |config| config.client.max_idle_age = Duration::ZERO),
    ("client", |config| config.client.max_idle_age = Duration::MAX),
    ("every number", |config| {
        config.max_per_origin = usize::MAX;
        config.max_preempted = Some(usize::MAX);
        config.peer_capacity = usize::MAX;
        config.max_open_bodies = usize::MAX;
        config.client.max_idle = usize::MAX;
        config.client.max_idle_per_origin = usize::MAX;
    }),
];

#[test]
fn numbers_of_a_downloader_are_refused_by_name_or_work() {
    for (number, (field, change)) in OF_A_DOWNLOADER.iter().enumerate() {
        let case = format!("case {number}, {field}");
        let mut config = DownloaderConfig::default();
        change(&mut config);
        match Downloader::new(config) {
            Ok(downloader) => {
                let used = in_time(&case, move || {
                    let origin = origin();
                    use_all_ways(&downloader, &origin).map_err(|error| format!("{error:?}"))
                });
                assert_eq!(used, Ok(()), "{case}");
            }
            Err(error) => assert_names(field, &error, &case),
        }
    }
}

/// Panics unless the error refuses this field of a configuration.
fn assert_names(field: &str, error: &Error, case: &str) {
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{case}: {error:?}");
    assert!(error.to_string().contains(field), "{case}: {error}");
}

#[test]
fn numbers_of_a_file_are_refused_by_name_or_work() {
    let cases: &[Case<FileConfig>] = &[
        ("read_ahead", |config| config.read_ahead = ReadAhead::Bytes(0)),
        ("read_ahead", |config| config.read_ahead = ReadAhead::Bytes(1)),
        ("read_ahead", |config| config.read_ahead = ReadAhead::Bytes(u64::MAX)),
        ("behind", |config| config.behind = 0),
        ("behind", |config| config.behind = u64::MAX),
        ("read_timeout", |config| config.read_timeout = Some(Duration::ZERO)),
        ("read_timeout", |config| config.read_timeout = Some(Duration::MAX)),
        ("read_timeout", |config| config.read_timeout = None),
        ("every number", |config| {
            config.read_ahead = ReadAhead::Bytes(u64::MAX);
            config.behind = u64::MAX;
        }),
    ];
    let origin = std::sync::Arc::new(origin());
    let storages = [StorageConfig::Memory, StorageConfig::WholeMemory, StorageConfig::WindowedTempFile(None)];
    for (number, (field, change)) in cases.iter().enumerate() {
        for storage in &storages {
            let case = format!("case {number}, {field}, {storage:?}");
            let mut config = FileConfig::default();
            config.storage = storage.clone();
            change(&mut config);
            let origin = std::sync::Arc::clone(&origin);
            let used = in_time(&case, move || -> Result<(), Error> {
                let downloader = Downloader::new(DownloaderConfig::default())?;
                let mut stream = downloader.open_with(&origin.url("/a"), config)?;
                let mut all = Vec::new();
                stream.read_to_end(&mut all)?;
                assert_eq!(all.len(), LEN);
                assert_pattern(0, &all);
                for position in [0, LEN as u64 - 10, i64::MAX as u64] {
                    stream.seek(SeekFrom::Start(position))?;
                    let _ = stream.read(&mut [0; 5])?;
                }
                let handle = stream.handle();
                if let Err(error) = handle.wait_buffered(u64::MAX, Some(Duration::MAX)) {
                    // More than the window holds.
                    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
                }
                handle.wait_range(5..5, None)?;
                handle.set_read_ahead(ReadAhead::Bytes(u64::MAX))?;
                Ok(())
            });
            if let Err(error) = used {
                assert_names(field, &error, &case);
            }
        }
    }
}

#[test]
fn numbers_of_a_radio_are_refused_by_name_or_work() {
    let cases: &[Case<RadioConfig>] = &[
        ("behind", |config| config.behind = 0),
        ("behind", |config| config.behind = u64::MAX),
        ("ahead", |config| config.ahead = 0),
        ("ahead", |config| config.ahead = 1),
        ("ahead", |config| config.ahead = u64::MAX),
        ("read_timeout", |config| config.read_timeout = Some(Duration::ZERO)),
        ("read_timeout", |config| config.read_timeout = Some(Duration::MAX)),
        ("give_up", |config| config.give_up = Some(Duration::ZERO)),
        ("give_up", |config| config.give_up = Some(Duration::MAX)),
        ("source_away", |config| config.source_away = Duration::ZERO),
        ("source_away", |config| config.source_away = Duration::MAX),
        ("min_audio_rate", |config| config.min_audio_rate = 0),
        ("min_audio_rate", |config| config.min_audio_rate = u64::MAX),
        ("audio_rate_window", |config| config.audio_rate_window = Duration::ZERO),
        ("audio_rate_window", |config| config.audio_rate_window = Duration::MAX),
        ("pause_limit", |config| config.pause_limit = Duration::ZERO),
        ("pause_limit", |config| config.pause_limit = Duration::MAX),
        ("event_capacity", |config| config.event_capacity = 0),
        ("event_capacity", |config| config.event_capacity = usize::MAX),
    ];
    let origin = std::sync::Arc::new(origin());
    for (number, (field, change)) in cases.iter().enumerate() {
        let case = format!("case {number}, {field}");
        let mut config = RadioConfig::default();
        change(&mut config);
        // With room for one byte each byte takes two switches of threads, which is slow on a busy machine.
        let bytes = config.ahead.clamp(1000, 50_000) as usize;
        let origin = std::sync::Arc::clone(&origin);
        let used = in_time(&case, move || -> Result<(), Error> {
            let downloader = Downloader::new(DownloaderConfig::default())?;
            let mut radio = downloader.open_radio(&origin.url("/live"), config)?;
            radio.read_exact(&mut vec![0; bytes])?;
            let window = radio.handle().window();
            radio.seek(SeekFrom::Start(window.start))?;
            let _ = radio.read(&mut [0; 5])?;
            Ok(())
        });
        if let Err(error) = used {
            assert_names(field, &error, &case);
        }
    }
}

#[test]
fn a_response_head_may_be_as_large_as_max_head() {
    for (len, max_head, is_accepted) in [
        (60_000, 64 << 10, true),
        (100_000, 64 << 10, false),
        (100_000, 128 << 10, true),
        (900_000, 1 << 20, true),
        (1_100_000, usize::MAX, false),
    ] {
        let field = "a".repeat(len);
        let origin = Origin::start(move |request| {
            Answer::file(request, &Content::pattern(10)).header("X-Large", &field)
        });
        let config = DownloaderConfig::new().client(ClientConfig::new().max_head(max_head));
        let peer = Downloader::new(config).unwrap().register((), Priority::High).unwrap();
        let answer = in_time("a large head", move || {
            peer.execute(Fetch::get(&origin.url("/a")).unwrap().max_retries(0)).map(drop)
        });
        match answer {
            Ok(()) => assert!(is_accepted, "{len} bytes, {max_head} allowed"),
            Err(error) => {
                assert!(!is_accepted && error.kind() == ErrorKind::Protocol, "{len}, {max_head}: {error}")
            }
        }
    }
}
