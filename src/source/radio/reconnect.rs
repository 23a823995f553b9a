//! Decides whether and when a radio reconnects after its connection has ended.
//!
//! Does no I/O and reads no clock: the [receiver](super::receiver) passes in events and the time, and acts on the
//! decision.

use std::time::{Duration, Instant};

use crate::client::retry::{self, Absence};
use crate::config::{AfterPause, RadioConfig};
use crate::error::{Error, ErrorKind};

/// A connection that delivered audio for this long was a good one: the delays start from the shortest again. Without this
/// time, a station that sends a burst and disconnects each time would be asked again without a pause. It is short, because
/// proxies and limits of stations end connections every few seconds, and each delay may be heard.
const STEADY: Duration = Duration::from_secs(2);

/// The history of one radio's connections, as far as it matters for the next decision.
#[derive(Debug)]
pub(crate) struct Reconnect {
    policy: Policy,
    /// Connections that failed since the last steady one.
    failures: u32,
    /// True once a byte of audio has arrived, over any connection.
    heard: bool,
    /// When this connection delivered its first byte. `None` before that.
    flowing_since: Option<Instant>,
    /// When the first failure after the last byte of audio happened. Until the first byte, when the radio was opened.
    troubled_since: Option<Instant>,
    starving: Option<Starving>,
}

/// The fields of [`RadioConfig`] that decide.
#[derive(Debug)]
struct Policy {
    give_up: Option<Duration>,
    source_away: Duration,
    min_audio_rate: u64,
    audio_rate_window: Duration,
    /// Pause of the reader after which the connection is closed.
    close_after: Option<Duration>,
}

/// A time during which the reader was blocked whenever bytes arrived.
#[derive(Clone, Copy, Debug)]
struct Starving {
    since: Instant,
    bytes: u64,
}

/// What to do after a connection has ended.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Reconnect after this delay.
    Retry(Duration),
    /// The radio ends with this error.
    End(Error),
}

impl Reconnect {
    pub(crate) fn new(config: &RadioConfig, now: Instant) -> Self {
        let policy = Policy {
            give_up: config.give_up,
            source_away: config.source_away,
            min_audio_rate: config.min_audio_rate,
            audio_rate_window: config.audio_rate_window,
            close_after: (config.after_pause == AfterPause::LiveEdge).then_some(config.pause_limit),
        };
        Self {
            policy,
            failures: 0,
            heard: false,
            flowing_since: None,
            troubled_since: Some(now),
            starving: None,
        }
    }

    /// Records that `bytes` of audio arrived. `starved` is true if the reader was blocked on them. Fails if the connection
    /// is too slow and has to be replaced.
    pub(crate) fn handle_audio(&mut self, bytes: u64, starved: bool, now: Instant) -> Result<(), Error> {
        self.heard = true;
        self.troubled_since = None;
        let flowing_since = *self.flowing_since.get_or_insert(now);
        if now.saturating_duration_since(flowing_since) >= STEADY {
            self.failures = 0;
        }
        // A full window stops the station, and a station that is ahead sends at the speed of playing. So its rate only counts
        // while the reader lacks bytes.
        if !starved {
            self.starving = None;
            return Ok(());
        }
        let starving = self.starving.get_or_insert(Starving { since: now, bytes: 0 });
        starving.bytes += bytes;
        let time = now.saturating_duration_since(starving.since);
        if time < self.policy.audio_rate_window {
            return Ok(());
        }
        let rate = starving.bytes as f64 / time.as_secs_f64();
        // Each window counts for itself: a burst must not make up for the time after it.
        self.starving = None;
        if rate < self.policy.min_audio_rate as f64 {
            let least = self.policy.min_audio_rate;
            let why = format!("the station is too slow: {rate:.0} bytes a second, the minimum is {least}");
            return Err(Error::new(ErrorKind::Silent, why));
        }
        Ok(())
    }

    /// Decides what to do after `error`, which ended the connection or prevented it. `random` is any number; it spreads the
    /// delays.
    pub(crate) fn handle_failure(&mut self, error: &Error, now: Instant, random: u64) -> Decision {
        // After a connection that delivered audio the first delay is zero: the reader continues from the buffer, which may be
        // short.
        let flowed = self.flowing_since.take().is_some();
        self.starving = None;
        let troubled_for = now.saturating_duration_since(*self.troubled_since.get_or_insert(now));
        if !self.is_transient(error, troubled_for) {
            return Decision::End(error.clone());
        }
        let mut after = retry::delay(error, self.failures, flowed, random);
        // Only a station that was heard is known to come back. After audio the delay is zero anyway.
        let is_away = self.heard && !flowed;
        // RFC 9110, section 10.2.3: a `Retry-After` is honoured, also if the listener waits longer by it.
        if is_away && error.retry_after().is_none() {
            after = after.min(Absence::max_delay(troubled_for));
        }
        self.failures = self.failures.saturating_add(1);
        match self.policy.give_up {
            // Now, not at the limit: nothing would happen until then.
            Some(limit) if troubled_for + after > limit => Decision::End(error.clone()),
            _ => Decision::Retry(after),
        }
    }

    /// Records that the connection was closed because the reader was away. This is not a failure.
    pub(crate) fn handle_close(&mut self) {
        self.flowing_since = None;
        self.starving = None;
        self.failures = 0;
    }

    /// When to close the connection, if nothing has been read since `idle_since` and the window is full.
    pub(crate) fn close_at(&self, idle_since: Instant) -> Option<Instant> {
        idle_since.checked_add(self.policy.close_after?)
    }

    /// True if another attempt may succeed.
    fn is_transient(&self, error: &Error, troubled_for: Duration) -> bool {
        match error.kind() {
            // Icecast answers 404 while a station's source is offline, and also for a station that does not exist. It answers 403
            // while the station has all the listeners that it may have: for a while that counts the connection that has just
            // broken. A network that wants a login answers every request with its page, or with a redirect to it, which a
            // playlist's rules may forbid.
            ErrorKind::Status(403 | 404) | ErrorKind::NotMedia | ErrorKind::Forbidden => {
                self.heard && troubled_for < self.policy.source_away
            }
            // A network that wants a login, or a broken proxy, causes these. The station worked before.
            ErrorKind::Tls | ErrorKind::Protocol | ErrorKind::Redirect | ErrorKind::Stalled => self.heard,
            // Other parts of the program hold the bodies, and may close them soon.
            ErrorKind::TooManyOpenBodies => true,
            _ => error.is_retryable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn broken() -> Error {
        Error::new(ErrorKind::Disconnected, "gone")
    }

    fn status(status: u16) -> Error {
        Error::new(ErrorKind::Status(status), "no")
    }

    fn radio(change: impl FnOnce(&mut RadioConfig)) -> (Reconnect, Instant) {
        let now = Instant::now();
        let mut config = RadioConfig::default();
        change(&mut config);
        (Reconnect::new(&config, now), now)
    }

    /// The longest wait that this failure can lead to; `None` if it is the end.
    fn longest_wait(radio: &mut Reconnect, error: &Error, now: Instant) -> Option<Duration> {
        match radio.handle_failure(error, now, u64::MAX) {
            Decision::Retry(after) => Some(after),
            Decision::End(_) => None,
        }
    }

    #[test]
    fn a_station_that_was_never_heard_is_asked_with_growing_waits() {
        let (mut radio, now) = radio(|_| ());
        let waits: Vec<_> =
            (0..8).map(|_| longest_wait(&mut radio, &broken(), now).unwrap().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }

    #[test]
    fn the_first_break_after_audio_is_mended_at_once_and_steady_audio_begins_anew() {
        let (mut radio, now) = radio(|_| ());
        radio.handle_audio(1, false, now).unwrap();
        assert_eq!(longest_wait(&mut radio, &broken(), now), Some(Duration::ZERO));
        assert_eq!(longest_wait(&mut radio, &broken(), now), Some(SECOND / 2));
        radio.handle_audio(1, false, now).unwrap();
        radio.handle_audio(1, false, now + STEADY).unwrap();
        assert_eq!(longest_wait(&mut radio, &broken(), now), Some(Duration::ZERO));
    }

    #[test]
    fn a_station_that_hangs_up_every_few_seconds_is_heard_again_without_a_pause() {
        let (mut radio, mut now) = radio(|_| ());
        for _ in 0..6 {
            radio.handle_audio(1000, true, now).unwrap();
            now += 3 * SECOND;
            radio.handle_audio(1000, true, now).unwrap();
            assert_eq!(longest_wait(&mut radio, &broken(), now), Some(Duration::ZERO));
        }
    }

    #[test]
    fn a_station_that_hangs_up_after_each_burst_is_not_asked_in_a_loop() {
        let (mut radio, now) = radio(|_| ());
        let waits: Vec<_> = (0..6)
            .map(|_| {
                radio.handle_audio(60_000, true, now).unwrap();
                longest_wait(&mut radio, &broken(), now).unwrap().as_millis()
            })
            .collect();
        assert_eq!(waits, [0, 500, 1000, 2000, 4000, 8000]);
    }

    #[test]
    fn a_station_that_was_heard_just_now_is_asked_again_soon() {
        let (mut radio, now) = radio(|_| ());
        radio.handle_audio(1, false, now).unwrap();
        let mut wait = |after| longest_wait(&mut radio, &broken(), now + after).unwrap().as_millis();
        let waits: Vec<_> =
            [0, 1, 2, 3, 4, 120, 400].into_iter().map(|second| wait(second * SECOND)).collect();
        assert_eq!(waits, [0, 500, 1000, 1500, 1500, 1500, 4000]);
    }

    #[test]
    fn a_retry_after_is_honoured() {
        let (mut radio, now) = radio(|_| ());
        radio.handle_audio(1, false, now).unwrap();
        let error = status(503).with_retry_after(7 * SECOND);
        assert_eq!(longest_wait(&mut radio, &error, now), Some(7 * SECOND));
    }

    #[test]
    fn permanent_answers_are_the_end() {
        for code in [400, 401, 410, 451] {
            let (mut radio, now) = radio(|_| ());
            radio.handle_audio(1, false, now).unwrap();
            assert_eq!(longest_wait(&mut radio, &status(code), now), None, "{code}");
        }
    }

    #[test]
    fn what_is_no_audio_is_the_end_unless_the_station_may_come_back() {
        let (page, redirect) =
            (Error::new(ErrorKind::NotMedia, "a page"), Error::new(ErrorKind::Forbidden, "no"));
        for error in [status(403), status(404), page, redirect] {
            let (mut never_heard, now) = radio(|_| ());
            assert_eq!(longest_wait(&mut never_heard, &error, now), None);

            let (mut radio, now) = radio(|config| config.source_away = 60 * SECOND);
            radio.handle_audio(1, false, now).unwrap();
            assert!(longest_wait(&mut radio, &broken(), now).is_some());
            assert!(longest_wait(&mut radio, &error, now + 59 * SECOND).is_some(), "{error}");
            assert!(longest_wait(&mut radio, &error, now + 60 * SECOND).is_none(), "{error}");
        }
    }

    #[test]
    fn errors_of_a_foreign_network_are_transient_once_the_station_was_heard() {
        for kind in [ErrorKind::Tls, ErrorKind::Protocol, ErrorKind::Redirect] {
            let error = Error::new(kind, "no");
            let (mut radio, now) = radio(|_| ());
            assert!(longest_wait(&mut radio, &error, now).is_none());
            radio.handle_audio(1, false, now).unwrap();
            assert!(longest_wait(&mut radio, &error, now).is_some());
        }
    }

    #[test]
    fn it_gives_up_when_told_and_counts_from_the_break_on() {
        let (mut radio, now) = radio(|config| config.give_up = Some(20 * SECOND));
        assert!(longest_wait(&mut radio, &broken(), now + 19 * SECOND).is_some());
        assert!(longest_wait(&mut radio, &broken(), now + 20 * SECOND).is_none());
        // An hour's pause with a full buffer, and then the break is found.
        radio.handle_audio(1, false, now).unwrap();
        let hour = 3600 * SECOND;
        assert!(longest_wait(&mut radio, &broken(), now + hour).is_some());
        let later = status(503).with_retry_after(30 * SECOND);
        assert!(longest_wait(&mut radio, &later, now + hour).is_none());
    }

    #[test]
    fn a_connection_that_starves_the_reader_is_given_up_after_the_window() {
        let (mut radio, now) = radio(|_| ());
        let starve = |radio: &mut Reconnect, bytes, starved| {
            (0..=10).find(|tick| radio.handle_audio(bytes, starved, now + *tick * SECOND).is_err())
        };
        assert_eq!(starve(&mut radio, 900, true), Some(10));
        assert_eq!(starve(&mut radio, 1000, true), None);
        assert_eq!(starve(&mut radio, 10, false), None);
    }

    #[test]
    fn one_byte_in_time_ends_the_starving() {
        let (mut radio, now) = radio(|_| ());
        for tick in 0..40 {
            radio.handle_audio(1, tick % 9 != 0, now + tick * SECOND).unwrap();
        }
    }

    #[test]
    fn a_connection_is_closed_in_a_long_pause_only_for_the_live_edge() {
        let (live, now) = radio(|config| config.pause_limit = 3 * SECOND);
        assert_eq!(live.close_at(now), Some(now + 3 * SECOND));
        let (patient, now) = radio(|config| config.after_pause = AfterPause::Continue);
        assert_eq!(patient.close_at(now), None);
    }

    proptest! {
        /// Whatever happens, in any order: no delay is longer than 8 s, and without a limit a transient error never ends
        /// the radio.
        #[test]
        fn it_never_stops_by_itself(facts in proptest::collection::vec((0..4_u8, 0..100_000_u64, any::<u64>()), 0..100)) {
            let (mut radio, mut now) = radio(|_| ());
            for (fact, number, random) in facts {
                now += Duration::from_millis(number);
                match fact {
                    0 => drop(radio.handle_audio(number, random % 2 == 0, now)),
                    1 => radio.handle_close(),
                    _ => match radio.handle_failure(&broken(), now, random) {
                        Decision::Retry(after) => prop_assert!(after <= Duration::from_secs(8)),
                        Decision::End(error) => prop_assert!(false, "ended with {error}"),
                    },
                }
            }
        }
    }
}
