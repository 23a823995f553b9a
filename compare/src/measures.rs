//! What is measured, of which libraries.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use symphonia::core::formats::TrackType;
use symphonia::core::formats::probe::Hint;
use symphonia::core::io::{MediaSource, MediaSourceStream};

use crate::origin::{Urls, pattern};
use crate::subjects::{ReadSeek, Subject};
use crate::{Failure, machine};

/// Values of one run: the metric, and the number in its unit.
type Values = Vec<(&'static str, f64)>;

pub(crate) struct Measure {
    pub(crate) name: &'static str,
    /// Those that offer it.
    pub(crate) subjects: &'static [&'static str],
    /// Gets a factor for the amount of work: 1, or less to try it.
    pub(crate) run: fn(&mut dyn Subject, &Urls, f64) -> Result<Values, Failure>,
}

/// A value in the report.
pub(crate) struct Metric {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) is_more_better: bool,
    pub(crate) about: &'static str,
}

/// What a program that limits its downloads by hand allows at once: as many as windway by default.
const BY_HAND: usize = 4;

/// Downloads in the background of the urgent requests.
const DOWNLOADS: usize = 16;

const ALL: &[&str] = &["windway", "ureq", "reqwest", "reqwest blocking", "stream-download", "libcurl easy"];
const READERS: &[&str] = &["windway", "stream-download"];

pub(crate) static MEASURES: &[Measure] = &[
    Measure {
        name: "small",
        subjects: &["windway", "ureq", "reqwest", "reqwest blocking", "libcurl easy"],
        run: small,
    },
    Measure { name: "bulk", subjects: ALL, run: bulk },
    Measure { name: "seek", subjects: ALL, run: seek },
    Measure { name: "urgent", subjects: ALL, run: urgent },
    Measure { name: "urgent-limited", subjects: ALL, run: urgent_limited },
    Measure { name: "slots", subjects: ALL, run: slots },
    Measure { name: "slots-limited", subjects: ALL, run: slots_limited },
    Measure {
        name: "cancel",
        subjects: &["windway", "reqwest", "stream-download", "libcurl easy"],
        run: cancel,
    },
    Measure { name: "idle", subjects: READERS, run: idle },
    Measure { name: "corruption", subjects: READERS, run: corruption },
    Measure {
        name: "sample",
        subjects: &["windway", "ureq", "reqwest blocking", "stream-download"],
        run: sample,
    },
];

pub(crate) static METRICS: &[Metric] = &[
    Metric {
        id: "small_time",
        title: "Small GET",
        unit: "µs",
        is_more_better: false,
        about: "Median time of 1 KiB over a connection that is open, one request after the other.",
    },
    Metric {
        id: "small_cpu",
        title: "Small GET, CPU",
        unit: "µs",
        is_more_better: false,
        about: "CPU time of the client's threads for each of these requests.",
    },
    Metric {
        id: "bulk_rate",
        title: "Bulk",
        unit: "MB/s",
        is_more_better: true,
        about: "512 MiB, read in pieces of 64 KiB where the library lets its user choose. windway and stream-download also store what they read: in memory by a window, and in a temporary file.",
    },
    Metric {
        id: "bulk_memory",
        title: "Bulk, memory",
        unit: "MiB",
        is_more_better: false,
        about: "Most memory of the client's process meanwhile.",
    },
    Metric {
        id: "open",
        title: "Open",
        unit: "ms",
        is_more_better: false,
        about: "First 4 KiB of a file of 64 MiB on a server 40 ms away, which sends 4 MB/s. Two round trips are the least: one for TCP.",
    },
    Metric {
        id: "seek",
        title: "Far seek",
        unit: "ms",
        is_more_better: false,
        about: "4 KiB in the middle of the same file, after it was opened. One round trip is the least, over a connection that is free.",
    },
    Metric {
        id: "urgent",
        title: "Urgent, full link",
        unit: "ms",
        is_more_better: false,
        about: "256 KiB while the same client downloads 16 files in the background, over a link of 2 MB/s that all connections share equally; 40 ms away. What counts is how many connections the downloads use. windway uses 4 for prefetches, and so has a fifth of the link for this fetch; the other libraries have no limit, and each download takes a share.",
    },
    Metric {
        id: "urgent_limited",
        title: "Urgent, full link, limit by hand",
        unit: "ms",
        is_more_better: false,
        about: "The same, if the program itself runs at most 4 of its downloads at once. windway runs as before.",
    },
    Metric {
        id: "slots",
        title: "Urgent, busy origin",
        unit: "ms",
        is_more_better: false,
        about: "1 KiB from an origin that serves 6 connections at a time, in the order in which they come, while the same client downloads 16 files of 2 MB at 1 MB/s each in the background; 40 ms away. The connection of the urgent request waits behind those of the downloads, unless the client has left room.",
    },
    Metric {
        id: "slots_limited",
        title: "Urgent, busy origin, limit by hand",
        unit: "ms",
        is_more_better: false,
        about: "The same, if the program itself runs at most 4 of its downloads at once. windway runs as before.",
    },
    Metric {
        id: "cancel",
        title: "Cancel",
        unit: "µs",
        is_more_better: false,
        about: "From the cancel until the read of a silent body has returned. ureq and the blocking reqwest can't be cancelled.",
    },
    Metric {
        id: "idle_cpu",
        title: "Idle, CPU",
        unit: "ms",
        is_more_better: false,
        about: "CPU time in 5 s while a file is open, as much of it as the library prefetches is stored, and nothing is read.",
    },
    Metric {
        id: "idle_wake_ups",
        title: "Idle, wake-ups",
        unit: "",
        is_more_better: false,
        about: "Times that a thread of the client woke up in these 5 s.",
    },
    Metric {
        id: "wrong_reads",
        title: "Wrong reads",
        unit: "",
        is_more_better: false,
        about: "Of 60 reads of 8 KiB after seeks forwards and backwards in a file of 16 MiB at 8 MB/s: those with a wrong byte, or with an error.",
    },
    Metric {
        id: "seeks_time",
        title: "These reads",
        unit: "s",
        is_more_better: false,
        about: "Time of these 60 seeks and reads.",
    },
    Metric {
        id: "first_sample",
        title: "First sample",
        unit: "ms",
        is_more_better: false,
        about: "symphonia's first decoded packet of a FLAC on a server 40 ms away, opened without a pooled connection.",
    },
];

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn small(subject: &mut dyn Subject, origin: &Urls, scale: f64) -> Result<Values, Failure> {
    let count = (10_000.0 * scale) as usize;
    subject.gets(&origin.small(0), count / 10)?;
    let cpu = machine::cpu();
    let mut times = subject.gets(&origin.small(0), count)?;
    let cpu = microseconds(machine::cpu() - cpu) / count as f64;
    times.sort();
    Ok(vec![("small_time", microseconds(times[count / 2])), ("small_cpu", cpu)])
}

fn bulk(subject: &mut dyn Subject, origin: &Urls, scale: f64) -> Result<Values, Failure> {
    let len = (scale * f64::from(512 << 20)) as u64;
    let began = Instant::now();
    let got = subject.bulk(&origin.zeros(len, 0, u64::MAX))?;
    let took = began.elapsed();
    if got != len {
        return Err(format!("{got} of {len} bytes").into());
    }
    Ok(vec![("bulk_rate", len as f64 / 1e6 / took.as_secs_f64()), ("bulk_memory", machine::peak_memory())])
}

fn seek(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    let len = 64 << 20;
    let (opened, sought) = subject.open_and_seek(&origin.file(len, 40, 4_000_000), len / 2)?;
    Ok(vec![("open", milliseconds(opened)), ("seek", milliseconds(sought))])
}

fn urgent(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    Ok(vec![("urgent", on_full_link(subject, origin, DOWNLOADS)?)])
}

fn urgent_limited(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    Ok(vec![("urgent_limited", on_full_link(subject, origin, BY_HAND)?)])
}

fn slots(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    Ok(vec![("slots", at_busy_origin(subject, origin, DOWNLOADS)?)])
}

fn slots_limited(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    Ok(vec![("slots_limited", at_busy_origin(subject, origin, BY_HAND)?)])
}

fn on_full_link(subject: &mut dyn Subject, origin: &Urls, at_once: usize) -> Result<f64, Failure> {
    behind(subject, &origin.linked(100_000_000, 40), at_once, &origin.linked(256 << 10, 40))
}

fn at_busy_origin(subject: &mut dyn Subject, origin: &Urls, at_once: usize) -> Result<f64, Failure> {
    behind(subject, &origin.queued(2_000_000, 40), at_once, &origin.queued(1024, 40))
}

/// Milliseconds of a request while the same client downloads in the background.
fn behind(subject: &mut dyn Subject, bulk: &str, at_once: usize, wanted: &str) -> Result<f64, Failure> {
    let downloads = subject.background(bulk, DOWNLOADS, at_once)?;
    std::thread::sleep(Duration::from_secs(1));
    let began = Instant::now();
    subject.get(wanted)?;
    let took = began.elapsed();
    drop(downloads);
    Ok(milliseconds(took))
}

fn cancel(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    Ok(vec![("cancel", microseconds(subject.cancel(&origin.silent())?))])
}

fn idle(subject: &mut dyn Subject, origin: &Urls, scale: f64) -> Result<Values, Failure> {
    let mut reader = subject.open(&origin.file(16 << 20, 0, u64::MAX))?;
    reader.read_exact(&mut vec![0; 1 << 20])?;
    // Until all is stored that is prefetched.
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, wake_ups) = (machine::cpu(), machine::wake_ups());
    std::thread::sleep(Duration::from_secs_f64(5.0 * scale));
    // Without this thread's own sleep.
    let wake_ups = (machine::wake_ups() - wake_ups).saturating_sub(1) as f64;
    Ok(vec![("idle_cpu", milliseconds(machine::cpu() - cpu)), ("idle_wake_ups", wake_ups)])
}

fn corruption(subject: &mut dyn Subject, origin: &Urls, scale: f64) -> Result<Values, Failure> {
    let len = 16 << 20;
    let began = Instant::now();
    let mut reader = subject.open(&origin.file(len, 0, 8_000_000))?;
    let (mut random, mut position, mut wrong) = (1_u64, 0_u64, 0);
    for _ in 0..(60.0 * scale) as usize {
        // A linear congruential generator, with Knuth's constants. Steps of up to 1 MiB to both sides, mostly backwards.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let step = ((random >> 40) % (2 << 20)) as i64 - (1 << 20) - (1 << 18);
        position = position.saturating_add_signed(step).min(len - 8192);
        if position == 0 {
            position = (random >> 33) % (len / 2);
        }
        let mut buf = [0; 8192];
        let read = reader.seek(SeekFrom::Start(position)).and_then(|_| reader.read_exact(&mut buf));
        let is_right = (position..).zip(buf).all(|(at, byte)| byte == pattern(at));
        wrong += u32::from(read.is_err() || !is_right);
        position += 8192;
    }
    Ok(vec![("wrong_reads", wrong.into()), ("seeks_time", began.elapsed().as_secs_f64())])
}

/// A reader of any library, for symphonia, which wants sources that are `Sync`.
struct Source(Mutex<Box<dyn ReadSeek>>);

impl Source {
    fn inner(&mut self) -> &mut Box<dyn ReadSeek> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner().read(buf)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner().seek(to)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.0.lock().ok().and_then(|reader| reader.byte_len())
    }
}

fn sample(subject: &mut dyn Subject, origin: &Urls, _: f64) -> Result<Values, Failure> {
    let began = Instant::now();
    let reader = subject.open(&origin.track(40))?;
    let stream = MediaSourceStream::new(Box::new(Source(Mutex::new(reader))), Default::default());
    let probe = symphonia::default::get_probe();
    let mut format = probe.probe(&Hint::new(), stream, Default::default(), Default::default())?;
    let track = format.default_track(TrackType::Audio).ok_or("no audio")?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio()).ok_or("no codec")?;
    let mut decoder = symphonia::default::get_codecs().make_audio_decoder(params, &Default::default())?;
    let packet = format.next_packet()?.ok_or("no packet")?;
    if decoder.decode(&packet)?.frames() == 0 {
        return Err("an empty packet".into());
    }
    Ok(vec![("first_sample", milliseconds(began.elapsed()))])
}
