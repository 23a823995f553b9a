//! The queue as its player and other threads see it.

use std::fmt;
use std::sync::Arc;

use super::config::QueueConfig;
use super::event::{QueueEvent, TrackError};
use super::order::{Repeat, TrackId};
use super::shared::{Opener, Shared, Taken};
use super::skip::Skip;
use super::track::Track;
use super::track_source::TrackSource;
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::event::Subscriber;
use crate::foreign::in_callback;
use crate::source::file::FileReader;
use crate::stream::{Stream, StreamHandle};

/// Tracks that are played one after the other, the next one prefetched. See the [module](crate::queue).
///
/// It is an iterator over streams that blocks: see [`next`](Self::next). Other threads change it through its
/// [`handle`](Self::handle). Dropping it ends prefetching; the stream of the current track can be read on.
pub struct Queue {
    shared: Arc<Shared>,
    opener: Arc<Opener>,
}

/// A track that is to be played, from [`Queue::next`].
///
/// If another thread skips or removes the track, the reads of its stream return the end. A decoder may report that as an
/// error, because it expects more: the track was skipped if [`QueueHandle::current`] is not its id any more. A decoder first plays
/// what it has read ahead, unless its loop asks that for each packet: see the [guide](crate::guide::queue).
///
/// ```no_run
/// # use windway::queue::{Queue, QueueConfig};
/// # fn decode(stream: windway::Stream) -> std::io::Result<()> { Ok(()) }
/// # let mut queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
/// let handle = queue.handle();
/// for playing in &mut queue {
///     let playing = playing?;
///     match decode(playing.stream) {
///         Err(error) if handle.current() == Some(playing.id) => eprintln!("{error}"),
///         _ => {} // played to its end, or skipped
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Playing {
    /// Names the track in the queue.
    pub id: TrackId,
    /// The track.
    pub track: Track,
    /// Its bytes, from the beginning on.
    pub stream: Stream,
}

impl Queue {
    /// An empty queue. Starts nothing.
    pub fn new(downloader: &Downloader, config: QueueConfig) -> Self {
        let opener = Opener::new(downloader, config);
        Self { shared: Arc::new(Shared::new(&opener)), opener }
    }

    /// A handle for other threads. It does not keep the queue, its downloader or its cache.
    pub fn handle(&self) -> QueueHandle {
        QueueHandle { shared: Arc::clone(&self.shared) }
    }

    /// As [`next`](Self::next), but at the end of the queue it blocks until there is a next track: one that was added, or that was
    /// skipped to. For a player that runs as long as its program. `None` once the queue was [closed](QueueHandle::close).
    ///
    /// Before it blocks, [`QueueEvent::Ended`] is published. What the output still has to play is its own matter: a thread that
    /// waits here writes nothing.
    ///
    /// ```no_run
    /// use windway::queue::{Queue, QueueConfig, Track};
    ///
    /// # fn play(stream: windway::Stream) {}
    /// let mut queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
    /// let handle = queue.handle();
    /// let player = std::thread::spawn(move || {
    ///     while let Some(track) = queue.wait_next() {
    ///         match track {
    ///             Ok(track) => play(track.stream),
    ///             Err(error) => eprintln!("{error}"),
    ///         }
    ///     }
    /// });
    /// handle.push(Track::new("https://example.com/1.flac")?); // at any time, also after the end
    /// handle.close();
    /// player.join().unwrap();
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn wait_next(&mut self) -> Option<Result<Playing, TrackError>> {
        loop {
            let next = self.next();
            // In a callback `next` returns `None` only if there is none: to wait for one there could wait forever.
            if next.is_some() || in_callback() || !self.shared.wait_next() {
                return next;
            }
        }
    }

    /// Opens `taken`. `None` if it was skipped meanwhile.
    fn open(&self, taken: Taken) -> Option<Result<Playing, TrackError>> {
        let Taken { id, track, prefetched } = taken;
        let opened = match track.open() {
            Some(opened) => opened.map(|stream| {
                // A source without readers of its own may be that of a track which was skipped, and which stays interrupted.
                stream.handle().resume();
                Skip::new(stream.into_source())
            }),
            None => self.open_remote(id, &track, prefetched),
        };
        match opened {
            Ok(skip) => {
                let stream = Stream::new(TrackSource::new(
                    id,
                    skip.clone(),
                    &self.shared,
                    self.opener.config.prefetch_before,
                ));
                // Opened without a lock, so another thread may have skipped or removed the track in the meantime.
                if !self.shared.handle_opened(id, &skip, stream.handle()) {
                    return None;
                }
                self.shared.events.publish(&QueueEvent::Started { id });
                Some(Ok(Playing { id, track, stream }))
            }
            Err(error) => self.shared.handle_failed(id).then(|| {
                self.shared.events.publish(&QueueEvent::Failed { id, error: error.clone() });
                Err(TrackError { id, error })
            }),
        }
    }

    /// Blocks until the first bytes of a track with a URL are there.
    fn open_remote(
        &self,
        id: TrackId,
        track: &Track,
        prefetched: Option<Arc<FileReader>>,
    ) -> Result<Skip, Error> {
        let priority = self.opener.config.file.priority;
        let file = match (prefetched, track.as_remote()) {
            (Some(file), _) => file,
            (None, Some(remote)) => self.opener.open_later(remote, priority)?,
            (None, None) => return Err(Error::new(ErrorKind::InvalidUrl, "the track has no URL")),
        };
        let skip = Skip::new(Arc::clone(&file) as _);
        // Before blocking: from here on a skip can interrupt the opening.
        // If it was skipped before, `handle_opened` finds that, and nothing blocks here.
        if self.shared.handle_source(id, &skip, &file) && !file.is_whole() {
            file.finish_opening(priority)?;
        }
        Ok(skip)
    }
}

impl Iterator for Queue {
    type Item = Result<Playing, TrackError>;

    /// Ends the current track and opens the next one. Returns at once if its beginning was prefetched; else blocks until its
    /// first bytes arrive. `None` if there is no next track; once there is one again, a further call returns it. To block until
    /// there is one, call [`wait_next`](Queue::wait_next).
    ///
    /// A track that can't be opened is an error, and the next call goes on behind it, or before it if
    /// [`previous`](QueueHandle::previous) has led there. If another thread skips or removes the
    /// track that is being opened, the call goes on with the track that is next then.
    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = Error::check_may_block("next") {
            // The track stays the next one: a call outside of the callback opens it.
            return self.handle().upcoming().map(|id| Err(TrackError { id, error }));
        }
        loop {
            let Some(taken) = self.shared.take_next() else {
                self.shared.events.publish(&QueueEvent::Ended);
                return None;
            };
            if let Some(opened) = self.open(taken) {
                return Some(opened);
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// Changes and observes a [`Queue`] from other threads, also while a track is read. Cheap to clone. No call blocks on the
/// network.
///
/// After the queue was dropped or [closed](Self::close), calls still change and return its list. Nothing is fetched any more, there
/// is no current stream, and subscriptions are closed.
///
/// ```
/// use windway::queue::{Queue, QueueConfig, Track};
///
/// let queue = Queue::new(&windway::Downloader::global()?, QueueConfig::default());
/// let handle = queue.handle();
/// let first = handle.push(Track::new("https://example.com/1.flac")?);
/// let second = handle.push(Track::new("https://example.com/2.flac")?);
/// handle.move_to(second, 0);
/// handle.remove(first);
/// assert_eq!(handle.tracks().len(), 1);
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct QueueHandle {
    shared: Arc<Shared>,
}

impl QueueHandle {
    /// Adds a track at the end.
    pub fn push(&self, track: Track) -> TrackId {
        self.insert(usize::MAX, track)
    }

    /// Adds a track that is played after the current one.
    pub fn insert_next(&self, track: Track) -> TrackId {
        let id = self.shared.change(|order| order.insert_next(track));
        self.changed();
        id
    }

    /// Adds a track at `index` of [`tracks`](Self::tracks), or at the end if there are fewer.
    pub fn insert(&self, index: usize, track: Track) -> TrackId {
        let id = self.shared.change(|order| order.insert(index, track));
        self.changed();
        id
    }

    /// Adds tracks at the end.
    pub fn extend(&self, tracks: impl IntoIterator<Item = Track>) {
        // Foreign code runs without the lock.
        let tracks: Vec<Track> = tracks.into_iter().collect();
        if tracks.is_empty() {
            return;
        }
        self.shared.change(|order| {
            for track in tracks {
                order.insert(usize::MAX, track);
            }
        });
        self.changed();
    }

    /// Removes a track. The current track ends. A prefetch of it is cancelled. `None` if there is no such track.
    pub fn remove(&self, id: TrackId) -> Option<Track> {
        let (track, _) = self.shared.change(|order| order.remove(id))?;
        self.changed();
        Some(track)
    }

    /// Removes all tracks. The current track ends.
    pub fn clear(&self) {
        let removed = self.shared.change(|order| order.clear());
        if removed.is_empty() {
            return;
        }
        // Without the lock: a track may own a closure of the application.
        drop(removed);
        self.changed();
    }

    /// Moves a track to `index` of [`tracks`](Self::tracks), or to the end if there are fewer. The track behind the current
    /// one is next. False if there is no such track.
    pub fn move_to(&self, id: TrackId, index: usize) -> bool {
        let is_moved = self.shared.change(|order| order.move_to(id, index));
        if is_moved {
            self.changed();
        }
        is_moved
    }

    /// Ends the current track, and makes `id` the next one: one that was played before, or will be. It is requested at once.
    /// The reads of the current track return the end, and a blocked one returns. False if there is no such track.
    pub fn skip_to(&self, id: TrackId) -> bool {
        self.shared.change(|order| order.skip_to(id))
    }

    /// As [`skip_to`](Self::skip_to), by the index in [`tracks`](Self::tracks). False if there are fewer tracks.
    pub fn skip_to_index(&self, index: usize) -> bool {
        self.shared.change(|order| order.skip_to_index(index))
    }

    /// Ends the current track. The one behind it is next, also of a track that is repeated, and is requested at once. Between two
    /// tracks, until the player takes the next one, that is passed over: two calls in a row go on by two tracks.
    pub fn skip(&self) {
        self.shared.change(|order| order.skip());
    }

    /// Goes back: ends the current track, and makes the one before it the next one, which is requested at once. Between two tracks,
    /// and after the end, the track before the next one counts: two calls in a row go back by two tracks. With [`Repeat::All`] the
    /// last track is before the first one. False if there is none before it: then the current track goes on.
    ///
    /// If the track can't be opened, the queue goes on backwards, and forwards again from the first one.
    ///
    /// Most players go to the beginning of a track first, if more than a few seconds of it were heard. That is a seek of the decoder.
    pub fn previous(&self) -> bool {
        self.shared.change(|order| order.skip_back())
    }

    /// Sets what is played again, from the next call of [`Queue::next`] on. Default: [`Repeat::Off`].
    pub fn set_repeat(&self, repeat: Repeat) {
        let is_other = self.shared.change(|order| {
            let is_other = order.repeat() != repeat;
            order.set_repeat(repeat);
            is_other
        });
        if is_other {
            self.changed();
        }
    }

    /// What is played again.
    pub fn repeat(&self) -> Repeat {
        self.shared.with_order(|order| order.repeat())
    }

    /// Ends the current track and the queue for good: [`Queue::next`] and [`Queue::wait_next`] return `None` from now on, a blocked
    /// one at once.
    pub fn close(&self) {
        self.shared.end();
    }

    /// All tracks in their order, played ones too.
    pub fn tracks(&self) -> Vec<(TrackId, Track)> {
        self.shared.with_order(|order| order.tracks().to_vec())
    }

    /// The track that was taken last, if it did not end by a skip, a removal or an error.
    pub fn current(&self) -> Option<TrackId> {
        self.shared.with_order(|order| order.current())
    }

    /// Index of the [`current`](Self::current) track in [`tracks`](Self::tracks).
    pub fn current_index(&self) -> Option<usize> {
        self.shared.with_order(|order| order.current_index())
    }

    /// The track that [`Queue::next`] would open.
    pub fn upcoming(&self) -> Option<TrackId> {
        self.shared.with_order(|order| order.next().map(|(id, _)| *id))
    }

    /// Observes the stream of the current track: its position, what is buffered, its phase. `None` while it is being opened.
    pub fn current_stream(&self) -> Option<StreamHandle> {
        self.shared.current_stream()
    }

    /// Subscribes to the events from now on. The subscription ends with the queue.
    pub fn subscribe(&self) -> Subscriber<QueueEvent> {
        self.shared.events.subscribe()
    }

    fn changed(&self) {
        self.shared.events.publish(&QueueEvent::Changed);
    }
}

impl fmt::Debug for QueueHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}
