//! Options of HLS.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::hook::Hook;
use crate::abr::{Abr, AbrConfig};
#[cfg(feature = "cache")]
use crate::cache::CacheUse;
use crate::config::setters::setters;
use crate::error::{Error, ErrorKind};
use crate::types::Priority;

/// Options of an [`Hls`](super::Hls).
///
/// ```
/// use std::time::Duration;
/// use windway::hls::{HlsConfig, Quality};
///
/// let config = HlsConfig::new().buffer(Duration::from_secs(30)).quality(Quality::Fixed(0));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct HlsConfig {
    /// How the variant is chosen. Default: automatic.
    pub quality: Quality,
    /// Preferred language of the audio, as RFC 5646 writes it: another region of the same language is taken if there is none of
    /// this one. Default: what the author marks as default, but no AC-3 where there is other audio. It is a wish: if the server refuses
    /// the playlist of this rendition, another one is opened, in the same language first, and
    /// [`HlsEvent::RenditionFailed`](crate::hls::HlsEvent::RenditionFailed) says so.
    pub language: Option<String>,
    /// Where playback starts. Default: `EXT-X-START` of the playlist; without it the beginning, or near the end of a live stream.
    /// Opening fails with [`ErrorKind::OutOfWindow`] if it is behind the end of a presentation on
    /// demand. A live stream does not start closer to its end than by default.
    pub start: Option<Duration>,
    /// Distance from the end at which a live stream starts. Default: the hold-back of the playlist; without one, three target
    /// durations.
    pub hold_back: Option<Duration>,
    /// How far ahead of the reader segments are fetched. Default: 120 s.
    pub buffer: Duration,
    /// Upper limit of the memory for fetched audio that was not read yet, in bytes. What it leaves free keeps audio that was read, and, in
    /// a quarter of the limit at most, copies of segments that have arrived, so that seeks back and forth fetch nothing again; of a
    /// live stream those that it still lists. Default: 64 MiB. No segment is requested above it. One that is longer than what is
    /// left is fetched all the same, up to four times the limit; more than that is [`ErrorKind::TooLarge`], and the segment is
    /// skipped.
    pub buffer_bytes: usize,
    /// Priority among the streams of the downloader. One of high priority gets the throughput that it needs, and those of low
    /// priority adapt to what is left. Default: high.
    pub priority: Priority,
    /// Headers for requests to the origin of the playlist, and to no other. Default: none.
    pub headers: Vec<(String, String)>,
    /// Gives single requests headers and fresh URLs. Default: none.
    pub hook: Option<Hook>,
    /// Allows an https playlist to name http URLs. Default: false.
    pub allow_http: bool,
    /// Allows what a playlist from a public address names, and redirects of it, to lead to private addresses. Without it a
    /// host name that resolves to a private address is refused too. Default: false.
    pub allow_private: bool,
    /// Maximum time that a call blocks without progress, also `open_hls`, and while no server can be reached. Default: 30 s; `None` is
    /// forever.
    pub read_timeout: Option<Duration>,
    /// Persistent cache that keeps a presentation on demand: its playlists, initialization sections and segments as they are
    /// received, never a key. What is stored is played without the network; [`RequestHook::key`](super::RequestHook::key) may
    /// supply keys for that. While the server can't be reached, each segment is played from any level that has it: the one
    /// in use, or else the best one that is allowed. One that none has is [`ErrorKind::NotCached`]. The key of a presentation is
    /// that of its URL, or [`CacheUse::key`]: if its URL is signed, name the signing fields in
    /// [`CacheConfig::ignore_query`](crate::cache::CacheConfig::ignore_query). Live streams are not stored. Needs the feature
    /// `cache`. Default: none.
    #[cfg(feature = "cache")]
    pub cache: Option<CacheUse>,
}

/// How the variant is chosen.
///
/// ```
/// use windway::hls::{HlsConfig, Quality};
///
/// let config = HlsConfig::new().quality(Quality::Fixed(0)); // the lowest level
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Quality {
    /// By the measured throughput and the buffer.
    Auto(AbrConfig),
    /// Always this one of [`HlsHandle::levels`](super::HlsHandle::levels), as long as it can be fetched. A number that is too large
    /// is the last one. After a failure the nearest other level is played for 60 s, or until
    /// [`HlsHandle::set_quality`](super::HlsHandle::set_quality) chooses this one again; if all levels have failed, until a segment
    /// arrives. If the cache has only another level, that is played if the playlists can't be fetched.
    Fixed(usize),
    /// By a choice of the application.
    Custom(MakeAbr),
}

impl Quality {
    /// The levels that the user allows, of those with these rates. At least one.
    pub(super) fn allowed_levels(&self, bitrates: &[u64]) -> RangeInclusive<usize> {
        let last = bitrates.len() - 1;
        let Self::Auto(config) = self else { return 0..=last };
        let highest = config.at_most.map_or(last, |most| {
            // The lowest one is played even if it exceeds the limit: there is none below it.
            bitrates.partition_point(|rate| *rate <= most).saturating_sub(1)
        });
        let lowest = config.at_least.map_or(0, |least| bitrates.partition_point(|rate| *rate < least));
        // Where both can't be met, the upper bound counts: it may be what the user pays for.
        lowest.min(highest)..=highest
    }
}

/// Makes the [`Abr`] of an application.
///
/// It runs under the lock of the player: it must not block, and must not call the player. One that panics is not asked again:
/// the level stays as it is.
///
/// ```
/// use windway::abr::{Abr, AbrConfig, Hybrid, Snapshot};
/// use windway::hls::{MakeAbr, Quality};
///
/// let quality = Quality::Custom(MakeAbr::new(|| Box::new(Hybrid::new(AbrConfig::default()))));
/// ```
#[derive(Clone)]
pub struct MakeAbr(Arc<dyn Fn() -> Box<dyn Abr> + Send + Sync>);

impl MakeAbr {
    /// `make` is called when playing begins, and when the quality is set.
    pub fn new(make: impl Fn() -> Box<dyn Abr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self) -> Box<dyn Abr> {
        (self.0)()
    }
}

impl fmt::Debug for MakeAbr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeAbr")
    }
}

#[cfg(feature = "cache")]
impl HlsConfig {
    /// Sets [`cache`](Self#structfield.cache). A [`Cache`](crate::cache::Cache) will do.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Option<CacheUse>>) -> Self {
        self.cache = cache.into();
        self
    }
}

setters!(HlsConfig {
    quality: Quality,
    buffer: Duration,
    buffer_bytes: usize,
    priority: Priority,
    allow_http: bool,
    allow_private: bool,
} into {
    language: Option<String>,
    start: Option<Duration>,
    hold_back: Option<Duration>,
    headers: Vec<(String, String)>,
    hook: Option<Hook>,
    read_timeout: Option<Duration>,
});

impl Default for HlsConfig {
    fn default() -> Self {
        Self {
            quality: Quality::Auto(AbrConfig::default()),
            language: None,
            start: None,
            hold_back: None,
            // On recorded traces of 3G the choice of levels scored 4 % less with 60 s: a longer buffer has more to spend on quality.
            buffer: Duration::from_secs(120),
            // 120 s at 4.4 Mbit/s, about as much as PCM in stereo with 24 bits at 96 kHz has.
            buffer_bytes: 64 << 20,
            priority: Priority::High,
            headers: Vec::new(),
            hook: None,
            allow_http: false,
            allow_private: false,
            read_timeout: Some(Duration::from_secs(30)),
            #[cfg(feature = "cache")]
            cache: None,
        }
    }
}

impl HlsConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |why: &str| Err(Error::new(ErrorKind::InvalidConfig, why));
        if self.buffer.is_zero() {
            return wrong("HlsConfig::buffer must not be zero");
        }
        if self.buffer_bytes == 0 {
            return wrong("HlsConfig::buffer_bytes must not be 0");
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return wrong("HlsConfig::read_timeout is zero: every read that waits would fail");
        }
        Ok(())
    }
}

// By hand, because values of headers must not be shown.
impl fmt::Debug for HlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HlsConfig");
        #[cfg(feature = "cache")]
        shown.field("cache", &self.cache);
        shown
            .field("quality", &self.quality)
            .field("language", &self.language)
            .field("start", &self.start)
            .field("hold_back", &self.hold_back)
            .field("buffer", &self.buffer)
            .field("buffer_bytes", &self.buffer_bytes)
            .field("priority", &self.priority)
            .field("headers", &format_args!("{} headers", self.headers.len()))
            .field("hook", &self.hook)
            .field("allow_http", &self.allow_http)
            .field("allow_private", &self.allow_private)
            .field("read_timeout", &self.read_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_ends_each_call_at_once_is_refused() {
        let error = HlsConfig::new().read_timeout(Duration::ZERO).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("HlsConfig::read_timeout"), "{error}");
        assert!(HlsConfig::new().read_timeout(None).check().is_ok());
    }
}
