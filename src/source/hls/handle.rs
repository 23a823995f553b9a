//! What other threads may ask of a presentation, and change.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Quality;
use super::event::HlsEvent;
use super::ladder::levels::{LevelInfo, RenditionInfo};
use super::playlist::PlaylistType;
use super::progress::HlsProgress;
use super::shared::Shared;
use super::timeline::Timeline;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::event::Subscriber;
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::source::StreamStats;
use crate::watch::{Look, Watch};

/// What a presentation is.
///
/// [`HlsHandle`] shows an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HlsKind {
    /// It has an end, and all of it can be sought to.
    Vod,
    /// Live, and all of it can be sought to.
    Event,
    /// Live: the oldest segments are removed.
    Live,
    /// Live, with parts of segments that are fetched before the segment is complete.
    LowLatency,
}

/// Observes and controls an [`Hls`](super::Hls) from other threads. Cheap to clone. No call blocks.
///
/// It keeps working after the presentation was dropped or cancelled: the position, the levels and the counters are the last ones
/// then, the phase is [`Phase::Closed`], and what moves the reader fails with [`ErrorKind::Cancelled`].
///
/// ```no_run
/// use windway::Downloader;
/// use windway::hls::{HlsConfig, HlsKind, Quality};
///
/// let hls = Downloader::global()?.open_hls("https://example.com/main.m3u8", HlsConfig::default())?;
/// let handle = hls.handle();
/// for (index, level) in handle.levels().iter().enumerate() {
///     println!("{index}: {} bit/s, {:?}", level.bandwidth, level.language);
/// }
/// handle.set_quality(Quality::Fixed(0));
/// if handle.kind() != HlsKind::Vod {
///     println!("live: {:?} of {:?}", handle.position(), handle.seekable());
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct HlsHandle {
    pub(super) shared: Arc<Shared>,
}

impl HlsHandle {
    /// The requested URL, without its user and password.
    pub fn url(&self) -> SafeUrl {
        self.shared.request.url().into()
    }

    /// What the presentation is. A live one becomes [`HlsKind::Vod`] when it ends.
    pub fn kind(&self) -> HlsKind {
        let kind = self.timeline(|timeline| match (timeline.list.is_ended, timeline.list.playlist_type) {
            (true, _) => HlsKind::Vod,
            (false, Some(PlaylistType::Event)) => HlsKind::Event,
            (false, _) if timeline.list.part_target.is_some() => HlsKind::LowLatency,
            (false, _) => HlsKind::Live,
        });
        kind.unwrap_or(HlsKind::Vod)
    }

    /// Duration of a presentation that has an end.
    pub fn duration(&self) -> Option<Duration> {
        self.shared.with(|state| state.duration()).flatten()
    }

    /// Presentation times that can be sought to. Of a live stream they move on.
    pub fn seekable(&self) -> Range<Duration> {
        self.shared.with(|state| state.seekable()).unwrap_or_default()
    }

    /// Presentation time up to which audio was read. The listener hears it a little later.
    pub fn position(&self) -> Duration {
        self.shared.with(|state| state.reader_time()).unwrap_or_default()
    }

    /// Audio that is fetched ahead of the reader.
    pub fn buffered(&self) -> Duration {
        self.shared.with(|state| state.buffered()).unwrap_or_default()
    }

    /// How much to drop from the end of the decoded audio, as [`Section::padding`](super::Section::padding) of the last section: for
    /// readers of an [`HlsSource`](super::HlsSource). `None` until the end has arrived, at the latest when `read` returns 0 there.
    pub fn padding(&self) -> Option<Duration> {
        self.shared.with(|state| state.padding()).flatten()
    }

    /// Throughput of the network in bits per second, as the choice of the level expects it. `None` before the first segment.
    /// An application may keep it for [`AbrConfig::throughput`](crate::abr::AbrConfig::throughput) of the next session.
    pub fn throughput(&self) -> Option<u64> {
        self.shared.with(|state| state.throughput()).flatten()
    }

    /// Counters of the presentation since it was opened. Playlists and keys count as requests. The blocked call for the first
    /// section counts as a stall. Dropped bytes are those of audio that is not played, because a segment of a higher level has
    /// replaced it, or because such a segment came too late.
    pub fn stats(&self) -> StreamStats {
        self.shared.stats()
    }

    /// Distance of the reader from the end of a live playlist. While that can't be loaded again its end moves on with the clock, so
    /// that the distance does not shrink to zero in an outage. `None` for a presentation that has ended.
    pub fn latency(&self) -> Option<Duration> {
        self.shared.with(|state| state.latency(Instant::now())).flatten()
    }

    /// The versions of the audio, by ascending rate.
    pub fn levels(&self) -> Vec<LevelInfo> {
        self.shared.with(|state| state.levels().to_vec()).unwrap_or_default()
    }

    /// Index of the level of the audio that was read last, also after a seek until something is read there. It follows
    /// [`level`](Self::level) once what is buffered was read. Before the first read, and after another rendition was selected, it is that
    /// of what will be read first.
    pub fn playing_level(&self) -> usize {
        self.shared.with(|state| state.playing_level()).unwrap_or_default()
    }

    /// Index of the level that is being fetched. That of what is heard is [`playing_level`](Self::playing_level).
    pub fn level(&self) -> usize {
        self.shared.with(|state| state.level()).unwrap_or_default()
    }

    /// The alternative versions of the audio, such as languages, in the order of the playlist. Empty if there is only one.
    pub fn renditions(&self) -> Vec<RenditionInfo> {
        self.shared.with(|state| state.renditions().to_vec()).unwrap_or_default()
    }

    /// Index of the rendition that is played. 0 if there is only one.
    pub fn rendition(&self) -> usize {
        self.shared.with(|state| state.rendition()).unwrap_or_default()
    }

    /// Continues with another of the [`renditions`](Self::renditions) where the reader is. As with a seek, sections end, also
    /// the one being read; [`Hls::next_section`](super::Hls::next_section) returns the one of the new rendition.
    /// [`levels`](Self::levels) are those of the new rendition from now on. No other one takes the place of what was selected: if its
    /// playlists can't be loaded, reading fails with that error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if there is no such rendition, or none of its playlists can be played;
    /// [`ErrorKind::Cancelled`] once the presentation was dropped or cancelled.
    pub fn select_rendition(&self, rendition: usize) -> Result<(), Error> {
        self.shared.select_rendition(rendition)
    }

    /// Changes how the level is chosen, from the next segment on that is not requested yet: it is heard after what is buffered. A level
    /// that is fixed is heard soonest by a [`seek`](Self::seek) to the time that is heard, which costs a short pause; without a pause, but
    /// later, by [`drop_buffered`](Self::drop_buffered).
    pub fn set_quality(&self, quality: Quality) {
        self.shared.set_quality(quality);
    }

    /// Drops what is buffered, from the first segment on that begins a second or more behind the [`position`](Self::position), and fetches
    /// it again at the level that is chosen now. Returns the presentation time of that place. A level of
    /// [`set_quality`](Self::set_quality) is heard from there on, and not only after all that is buffered. That is a second to a segment
    /// and a second after what was read, and a decoder reads ahead: symphonia up to 32 KiB. With segments of 4 s at 64 kbit/s it may be
    /// heard after 9 s. A [`seek`](Self::seek) to the time that is heard is faster.
    ///
    /// No audio is left out or repeated, and no section ends, except of Opus and ALAC, whose next section is
    /// [`Reopened`](super::Discontinuity::Reopened) there, and where the format changes. It costs the data that is dropped, which
    /// [`stats`](Self::stats) counts, and the protection against an outage until the buffer is full again. If the network is too slow for
    /// the new level, or away, the reader waits.
    ///
    /// ```no_run
    /// use windway::Downloader;
    /// use windway::hls::{HlsConfig, Quality};
    ///
    /// let hls = Downloader::global()?.open_hls("https://example.com/main.m3u8", HlsConfig::default())?;
    /// let handle = hls.handle();
    /// // The user has chosen the best level while it plays.
    /// handle.set_quality(Quality::Fixed(handle.levels().len() - 1));
    /// let from = handle.drop_buffered()?;
    /// println!("heard from {from:?} on");
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the playlist of a live stream lists that place no more: then all that is buffered stays;
    /// [`ErrorKind::Cancelled`] once the presentation was dropped or cancelled.
    pub fn drop_buffered(&self) -> Result<Duration, Error> {
        self.shared.drop_buffered()
    }

    /// Continues at `target`, and returns the start of the segment there. Sections end, also the one being read;
    /// [`Hls::next_section`](super::Hls::next_section) returns the one at the target, whose
    /// [`skip`](super::SectionInfo::skip) is the rest of the way. That is the first section after the seek whose
    /// [`discontinuity`](super::SectionInfo::discontinuity) is [`Seek`](super::Discontinuity::Seek); or
    /// [`Behind`](super::Discontinuity::Behind), if the target leaves the window of a live stream before its segment is requested.
    ///
    /// The time that is returned is for display. What is not buffered is placed by the durations in the playlist, and
    /// [`SectionInfo::start`](super::SectionInfo::start) is the time of a frame, which is known once the media has arrived: do not compare
    /// the two. They differ by roundings, by a part of a frame, or by as much as the playlist is wrong.
    /// Where the times in the media show that the playlist is wrong about durations, that section begins with a segment before.
    ///
    /// Where the target is buffered nothing is fetched again, and the levels are those that were fetched. That includes audio that was
    /// read, up to a quarter of [`HlsConfig::buffer`](super::HlsConfig::buffer) and at most a minute behind the reader, as far as
    /// [`HlsConfig::buffer_bytes`](super::HlsConfig::buffer_bytes) has room for it, also in a [`Section`](super::Section) that was read
    /// to its end and dropped. One that was dropped before its end is not kept if the section behind it was handed out. Buffered audio of
    /// a lower level than the one that [`set_quality`](Self::set_quality) has fixed is fetched again, and not played: so after a choice by
    /// hand a seek to the time that is heard plays the new level as soon as its first bytes are there.
    ///
    /// Whole segments that have arrived are kept as well, wherever they are, in a quarter of `buffer_bytes` at most, while it has room for
    /// them: those behind the reader make room first, and of these the farthest ones. They are not requested again if they are of the
    /// level that would be fetched now; with [`Quality::Auto`] also of a better one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfWindow`] if the target is not in [`seekable`](Self::seekable), unless it has left that and is still buffered;
    /// [`ErrorKind::Cancelled`] once the presentation was dropped or cancelled.
    pub fn seek(&self, target: Duration) -> Result<Duration, Error> {
        self.shared.seek(target)
    }

    /// Continues a live stream at its edge: a [`seek`](Self::seek) to the end of [`seekable`](Self::seekable).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if the presentation has an end; those of [`seek`](Self::seek).
    pub fn go_live(&self) -> Result<Duration, Error> {
        self.shared.go_live()
    }

    /// What the presentation is doing. [`Phase::Complete`]: all up to its end is fetched. [`Phase::Ended`]: the last section was read
    /// to its end, or [`Hls::next_section`](super::Hls::next_section) has returned `None`, and nothing was sought since. A
    /// [`watch`](Self::watch) goes on, as a seek may follow.
    pub fn phase(&self) -> Phase {
        self.shared.phase()
    }

    /// The error that stopped fetching, or that is being retried: then it stays until bytes arrive, and the phase is
    /// [`Phase::Retrying`]. That of a live playlist stays until it is loaded, although what is buffered plays. Cancelling does not
    /// count as an error.
    pub fn last_error(&self) -> Option<Error> {
        self.shared.last_error().filter(|error| !error.is_cancelled())
    }

    /// What a user interface shows, at this moment. Does not block.
    pub fn progress(&self) -> HlsProgress {
        self.shared.progress()
    }

    /// Returns the [`progress`](Self::progress) now, and again after each `every`. The last one is that of a presentation that was
    /// dropped or cancelled, or whose downloader has stopped: it comes at once. The iterator blocks the thread that uses it; no
    /// other thread wakes for it.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use windway::Downloader;
    /// use windway::hls::HlsConfig;
    ///
    /// let hls = Downloader::global()?.open_hls("https://example.com/main.m3u8", HlsConfig::default())?;
    /// let handle = hls.handle();
    /// std::thread::spawn(move || {
    ///     for progress in handle.watch(Duration::from_millis(200)) {
    ///         println!("{:?} at {:?}, level {}", progress.stream.phase, progress.stream.position, progress.level);
    ///     }
    /// });
    /// # Ok::<(), windway::Error>(())
    /// ```
    pub fn watch(&self, every: Duration) -> Watch<HlsProgress> {
        let shared = Arc::clone(&self.shared);
        let look = move || {
            let progress = shared.progress();
            Look { is_last: progress.stream.phase == Phase::Closed, progress }
        };
        let ending = Arc::default();
        let on_cancel = self.shared.signal_on_cancel(&ending);
        Watch::new(look, every, &ending, on_cancel)
    }

    /// Subscribes to the events from now on. The subscription ends with the presentation.
    pub fn subscribe(&self) -> Subscriber<HlsEvent> {
        self.shared.subscribe()
    }

    /// Makes blocked calls fail with [`ErrorKind::Interrupted`]. Until [`resume`](Self::resume) no call blocks: it fails
    /// instead. Fetching continues. That error is not [cancelled](Error::is_cancelled): the presentation can go on.
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Allows calls to block again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Ends all transfers permanently. Calls that would block fail with [`ErrorKind::Cancelled`]; fetched audio can still
    /// be read.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    fn timeline<T>(&self, look: impl FnOnce(&Timeline) -> T) -> Option<T> {
        self.shared.with(|state| state.timeline().map(look)).flatten()
    }
}

impl fmt::Debug for HlsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HlsHandle").field("url", &self.url()).finish_non_exhaustive()
    }
}
