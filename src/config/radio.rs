//! `RadioConfig`: a station.

use std::fmt;
use std::time::Duration;

#[cfg(doc)]
use super::client::ClientConfig;
use super::limits::{YEAR, bound};
use super::shown::{HeaderNames, SafeUrls};
use crate::error::{Error, ErrorKind};
use crate::hook::Hook;

/// Options of a [`Radio`](crate::Radio).
///
/// ```
/// use windway::config::AfterPause;
/// use windway::RadioConfig;
///
/// let config = RadioConfig::new().ahead(512 * 1024).after_pause(AfterPause::Continue);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RadioConfig {
    /// Number of bytes kept behind the reader, to seek back to. Default: 1 MiB.
    pub behind: u64,
    /// Maximum number of bytes stored ahead of the reader. While they are stored, windway reads nothing, so TCP flow
    /// control slows the server down. Default: 4 MiB.
    pub ahead: u64,
    /// A read that gets no byte for this long fails with [`ErrorKind::TimedOut`]. The next read tries again. The radio
    /// keeps reconnecting in the meantime. `None` waits forever. Default: 30 s.
    pub read_timeout: Option<Duration>,
    /// Maximum time of reconnecting without receiving a byte of audio. Then the radio ends with the last error. It ends
    /// before that if the next attempt would start after the limit. Default: `None`, no limit.
    pub give_up: Option<Duration>,
    /// Grace period in which answers are retried that would end the radio: a 404, which Icecast sends while its
    /// source is offline; a 403, which it sends while the station has as many listeners as it may have; and an HTML
    /// page or a forbidden redirect, as of a Wi-Fi network that wants a login. It starts when the audio breaks off.
    /// During the first 2 min after that, the delay between two attempts is 1.5 s at most. If no audio was received
    /// before, such an answer ends the radio at once. So a station that has really become forbidden, such as by a URL
    /// that has expired and no `hook` that gives a fresh one, also ends only after this time. Default: 2 min.
    pub source_away: Duration,
    /// Minimum rate of the audio in bytes per second. A connection that is slower for a whole `audio_rate_window`, while
    /// the reader waits for bytes, is replaced. Use a value below the station's bitrate; 0 turns the check off. The limit
    /// [`ClientConfig::min_rate`] applies to a station too. Default: 1000,
    /// which is 8 kbit/s.
    pub min_audio_rate: u64,
    /// Duration over which `min_audio_rate` is measured. Default: 10 s.
    pub audio_rate_window: Duration,
    /// What the reader gets after a long pause. Default: [`AfterPause::LiveEdge`].
    pub after_pause: AfterPause,
    /// Minimum length of a long pause: the time in which nothing is read while `ahead` bytes are stored. Default: 10 s.
    pub pause_limit: Duration,
    /// What `read` does at a discontinuity. Default: [`OnDiscontinuity::Continue`].
    pub on_discontinuity: OnDiscontinuity,
    /// Headers sent to the URL's origin, and to no other. [`Fetch::header`](crate::Fetch::header) lists the names that
    /// are refused. Default: none.
    pub headers: Vec<(String, String)>,
    /// Other URLs of the same station, in the order in which to try them if its own fails: its host is down, or it
    /// answers with an error. The one that worked last is tried first from then on. `headers` are
    /// only sent to one of the URL's own origin. Default: none.
    pub mirrors: Vec<String>,
    /// Gives each request headers, and fresh URLs in place of those that expire. Default: none.
    pub hook: Option<Hook>,
    /// Number of events stored for each subscriber. A subscriber that is slower loses the oldest ones. Default: 256.
    pub event_capacity: usize,
}

setters!(RadioConfig {
    behind: u64,
    ahead: u64,
    source_away: Duration,
    min_audio_rate: u64,
    audio_rate_window: Duration,
    after_pause: AfterPause,
    pause_limit: Duration,
    on_discontinuity: OnDiscontinuity,
    event_capacity: usize,
} into {
    read_timeout: Option<Duration>,
    give_up: Option<Duration>,
    headers: Vec<(String, String)>,
    mirrors: Vec<String>,
    hook: Option<Hook>,
});

impl Default for RadioConfig {
    fn default() -> Self {
        Self {
            // At 128 kbit/s this is about a minute, and `ahead` four minutes.
            behind: 1 << 20,
            ahead: 4 << 20,
            read_timeout: Some(Duration::from_secs(30)),
            give_up: None,
            source_away: Duration::from_secs(120),
            min_audio_rate: 1000,
            audio_rate_window: Duration::from_secs(10),
            after_pause: AfterPause::LiveEdge,
            pause_limit: Duration::from_secs(10),
            on_discontinuity: OnDiscontinuity::Continue,
            headers: Vec::new(),
            mirrors: Vec::new(),
            hook: None,
            event_capacity: 256,
        }
    }
}

impl RadioConfig {
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        self.check()?;
        self.read_timeout = self.read_timeout.map(|limit| limit.min(YEAR));
        self.give_up = self.give_up.map(|limit| limit.min(YEAR));
        bound([&mut self.source_away, &mut self.audio_rate_window, &mut self.pause_limit]);
        Ok(self)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |field: &str, why: &str| {
            Err(Error::new(ErrorKind::InvalidConfig, format!("RadioConfig::{field} {why}")))
        };
        if self.ahead == 0 {
            return wrong("ahead", "is 0 bytes: nothing could be read");
        }
        if self.read_timeout == Some(Duration::ZERO) {
            return wrong("read_timeout", "is zero: every read that waits would fail");
        }
        if self.audio_rate_window.is_zero() && self.min_audio_rate > 0 {
            return wrong("audio_rate_window", "is zero: no rate can be measured");
        }
        Ok(())
    }
}

impl fmt::Debug for RadioConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            behind,
            ahead,
            read_timeout,
            give_up,
            source_away,
            min_audio_rate,
            audio_rate_window,
            after_pause,
            pause_limit,
            on_discontinuity,
            headers,
            mirrors,
            hook,
            event_capacity,
        } = self;
        f.debug_struct("RadioConfig")
            .field("behind", behind)
            .field("ahead", ahead)
            .field("read_timeout", read_timeout)
            .field("give_up", give_up)
            .field("source_away", source_away)
            .field("min_audio_rate", min_audio_rate)
            .field("audio_rate_window", audio_rate_window)
            .field("after_pause", after_pause)
            .field("pause_limit", pause_limit)
            .field("on_discontinuity", on_discontinuity)
            .field("headers", &HeaderNames(headers))
            .field("mirrors", &SafeUrls(mirrors))
            .field("hook", hook)
            .field("event_capacity", event_capacity)
            .finish()
    }
}

/// What a radio's reader gets after a pause that was longer than the buffer.
///
/// ```
/// use windway::RadioConfig;
/// use windway::config::AfterPause;
///
/// let config = RadioConfig::new().after_pause(AfterPause::Continue);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterPause {
    /// What the station sends at that time. The connection is closed during the pause, and the bytes stored ahead are
    /// skipped. If the first call after the pause is a seek instead of a read, they are kept.
    LiveEdge,
    /// The audio from where it paused: first the buffer, then the rest of the old connection if the server kept it
    /// open.
    Continue,
}

/// What a radio's `read` does at a discontinuity: where one connection's audio ends and another's begins.
///
/// ```
/// use windway::RadioConfig;
/// use windway::config::OnDiscontinuity;
///
/// let config = RadioConfig::new().on_discontinuity(OnDiscontinuity::EndOfStream);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDiscontinuity {
    /// Continues: the cut frame is followed by the audio of the new connection. For MP3 and AAC: their frames are
    /// independent, so a decoder searches for the next one.
    Continue,
    /// Returns 0, as at the end of a file, until
    /// [`RadioHandle::pass_discontinuity`](crate::radio::RadioHandle::pass_discontinuity) is called. For Ogg, FLAC and other
    /// formats that begin with headers: each connection is read as a separate file by a new decoder.
    EndOfStream,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_radio_with_zero_ahead_is_refused() {
        let config = RadioConfig { ahead: 0, ..Default::default() };
        assert!(config.check().unwrap_err().to_string().contains("RadioConfig::ahead"));
        assert!(RadioConfig::default().check().is_ok());
    }
}
