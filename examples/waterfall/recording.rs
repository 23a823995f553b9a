//! What happened to the requests of a downloader, and how much was buffered, over time.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use windway::downloader::RequestId;
use windway::event::{Event, Subscriber};
use windway::{ByteRange, Downloader, Priority};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    /// The request was sent, or waits for a connection. There is no response head yet.
    Waiting,
    Body,
    Preempted,
    /// The attempt failed. The next one begins after a delay.
    Retrying,
    Completed,
    Cancelled,
    Failed,
}

impl State {
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Failed)
    }
}

/// A request.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) range: Option<ByteRange>,
    pub(crate) priority: Priority,
    /// Each with the time at which it begins. In order.
    pub(crate) states: Vec<(Duration, State)>,
    pub(crate) bytes: u64,
    /// Why it did not complete.
    pub(crate) note: String,
}

#[derive(Default)]
pub(crate) struct Recording {
    pub(crate) title: String,
    pub(crate) lines: BTreeMap<RequestId, Line>,
    /// What the reader did.
    pub(crate) marks: Vec<(Duration, String)>,
    pub(crate) levels: Vec<(Duration, f64)>,
    /// What `levels` counts.
    pub(crate) unit: &'static str,
}

impl Recording {
    pub(crate) fn end(&self) -> Duration {
        let states = self.lines.values().flat_map(|line| &line.states).map(|(at, _)| *at);
        let marks = self.marks.iter().map(|(at, _)| *at);
        states.chain(marks).max().unwrap_or_default().max(Duration::from_millis(1))
    }
}

/// Records until the downloader is gone.
pub(crate) struct Recorder {
    began: Instant,
    recording: Arc<Mutex<Recording>>,
    events: JoinHandle<()>,
    sampling: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

impl Recorder {
    pub(crate) fn start(downloader: &Downloader, url: &str) -> Self {
        let title = format!("Requests for {}", windway::SafeUrl::from(url));
        let recording = Arc::new(Mutex::new(Recording { title, ..Recording::default() }));
        let (events, began) = (downloader.subscribe(), Instant::now());
        let events = {
            let recording = Arc::clone(&recording);
            thread::spawn(move || record(&events, began, &recording))
        };
        Self { began, recording, events, sampling: Mutex::default() }
    }

    /// Records what the reader does.
    pub(crate) fn mark(&self, what: &str) {
        lock(&self.recording).marks.push((self.began.elapsed(), what.into()));
    }

    /// Records `level` fifty times a second.
    pub(crate) fn sample(&self, level: impl Fn() -> f64 + Send + 'static, unit: &'static str) {
        lock(&self.recording).unit = unit;
        let (recording, began) = (Arc::clone(&self.recording), self.began);
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                let level = level();
                lock(&recording).levels.push((began.elapsed(), level));
            }
        });
        *lock(&self.sampling) = Some((stop, thread));
    }

    pub(crate) fn finish(self) -> Result<Recording, Box<dyn std::error::Error>> {
        if let Some((stop, thread)) = lock(&self.sampling).take() {
            drop(stop);
            thread.join().map_err(|_| "the thread that samples panicked")?;
        }
        self.events.join().map_err(|_| "the thread that records panicked")?;
        Ok(std::mem::take(&mut *lock(&self.recording)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(events: &Subscriber, began: Instant, recording: &Mutex<Recording>) {
    while let Some(event) = events.recv() {
        let (Some(request), now) = (event.request(), began.elapsed()) else { continue };
        let mut recording = lock(recording);
        if let Event::Enqueued { url, range, priority, .. } = &event {
            let path = url.to_string();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let line = Line {
                name,
                range: *range,
                priority: *priority,
                states: vec![(now, State::Queued)],
                bytes: 0,
                note: String::new(),
            };
            recording.lines.insert(request, line);
        }
        let Some(line) = recording.lines.get_mut(&request) else { continue };
        let state = match event {
            Event::Started { .. } => State::Waiting,
            Event::FirstByte { .. } | Event::Resumed { .. } => State::Body,
            Event::Preempted { .. } => State::Preempted,
            Event::Retrying { error, .. } => {
                line.note = format!("retried: {:?}", error.kind());
                State::Retrying
            }
            Event::Completed { bytes, .. } => {
                line.bytes = bytes;
                State::Completed
            }
            Event::Failed { error, bytes, .. } => {
                (line.bytes, line.note) = (bytes, format!("{:?}", error.kind()));
                State::Failed
            }
            Event::Cancelled { bytes, reason, .. } => {
                (line.bytes, line.note) = (bytes, format!("cancelled: {reason}"));
                State::Cancelled
            }
            _ => continue,
        };
        line.states.push((now, state));
    }
}
