//! Whether a failed request is tried again, and how long to wait before.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant, SystemTime};

use crate::error::Error;

/// Longest first wait: a few round trips, in which a restarted server or a switched network is back.
const BASE_DELAY: Duration = Duration::from_millis(250);
/// Longest wait: less than a listener's patience, and few enough requests that a server under load recovers.
const MAX_DELAY: Duration = Duration::from_secs(8);
/// A server may ask for more patience than this, and does not get it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// So many bytes show that a server delivers again: the waits begin anew. More than a server sends before it looks at what
/// comes back (an initial window is about 14 KiB, RFC 6928).
const RESET_BYTES: u64 = 64 * 1024;

/// And so does an attempt that brought bytes over this time: a slow one is no dead one.
const RESET_TIME: Duration = Duration::from_secs(1);

/// Counts attempts that failed, for the waits between them and the limit on them.
///
/// The count begins anew only after real flow, or a server that sends a byte and hangs up would be asked without a pause.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    /// Failed attempts since the last real flow.
    failures: u32,
    /// New bytes since then, or since the first attempt; over all attempts.
    bytes: u64,
    /// When this attempt brought its first new byte.
    flowing_since: Option<Instant>,
}

impl Backoff {
    /// Notes that `bytes` new bytes came at `now`.
    pub(crate) fn handle_bytes(&mut self, bytes: u64, now: Instant) {
        let since = *self.flowing_since.get_or_insert(now);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= RESET_BYTES || now.saturating_duration_since(since) >= RESET_TIME {
            self.failures = 0;
            self.bytes = 0;
        }
    }

    /// Notes that the attempt failed with `error`. Returns how long to wait before the next one, or `None` if `max_retries`
    /// attempts have failed already. `random` is any number.
    pub(crate) fn handle_failure(
        &mut self,
        error: &Error,
        max_retries: u32,
        random: u64,
    ) -> Option<Duration> {
        let flowed = self.flowing_since.take().is_some();
        if self.failures >= max_retries {
            return None;
        }
        let after = delay(error, self.failures, flowed, random);
        self.failures += 1;
        Some(after)
    }
}

/// The wait before the next attempt, after `failures` failed ones since the last real flow. At once if the failed attempt
/// had delivered bytes; what the server asked for, if it did; else full jitter: anything up to 250 ms·2ⁿ, 8 s at most
/// (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). `random` is any number.
pub(crate) fn delay(error: &Error, failures: u32, flowed: bool, random: u64) -> Duration {
    let most = BASE_DELAY.saturating_mul(1_u32 << failures.min(16)).min(MAX_DELAY);
    let jittered = most.mul_f64(random as f64 / u64::MAX as f64);
    match error.retry_after() {
        // A server that asks for no patience, and fails again, gets some all the same.
        Some(asked) if failures > 0 => asked.min(MAX_RETRY_AFTER).max(jittered),
        Some(asked) => asked.min(MAX_RETRY_AFTER),
        None if flowed && failures == 0 => Duration::ZERO,
        None => jittered,
    }
}

/// The wait that a `Retry-After` header asks for: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// A number nobody can guess. Good enough to keep clients from retrying in step.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    fn broken() -> Error {
        Error::new(ErrorKind::Disconnected, "gone")
    }

    #[test]
    fn the_first_retry_is_at_once_only_if_bytes_had_flowed() {
        assert_eq!(delay(&broken(), 0, true, u64::MAX), Duration::ZERO);
        assert_eq!(delay(&broken(), 0, false, u64::MAX), BASE_DELAY);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> =
            (0..8).map(|failures| delay(&broken(), failures, false, u64::MAX).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }

    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn a_byte_each_does_not_end_the_count() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut waits = Vec::new();
        loop {
            backoff.handle_bytes(1, now);
            let Some(after) = backoff.handle_failure(&broken(), 5, u64::MAX) else { break };
            waits.push(after.as_millis());
            now += after;
        }
        assert_eq!(waits, [0, 500, 1000, 2000, 4000]);
    }

    #[test]
    fn real_flow_ends_the_count() {
        let now = Instant::now() + START;
        let failed = || {
            let mut backoff = Backoff::default();
            (0..3).for_each(|_| assert!(backoff.handle_failure(&broken(), 5, 0).is_some()));
            backoff
        };
        let wait = |backoff: &mut Backoff| backoff.handle_failure(&broken(), 5, u64::MAX);
        let mut by_bytes = failed();
        by_bytes.handle_bytes(RESET_BYTES, now);
        assert_eq!(wait(&mut by_bytes), Some(Duration::ZERO));
        let mut by_bytes_of_several = failed();
        by_bytes_of_several.handle_bytes(RESET_BYTES - 1, now);
        assert_eq!(wait(&mut by_bytes_of_several), Some(8 * BASE_DELAY));
        by_bytes_of_several.handle_bytes(1, now);
        assert_eq!(wait(&mut by_bytes_of_several), Some(Duration::ZERO));
        let mut by_time = failed();
        by_time.handle_bytes(1, now);
        by_time.handle_bytes(1, now + RESET_TIME);
        assert_eq!(wait(&mut by_time), Some(Duration::ZERO));
    }

    #[test]
    fn the_server_is_heard_within_reason() {
        let error = broken().with_retry_after(Duration::from_secs(7));
        assert_eq!(delay(&error, 0, true, 0), Duration::from_secs(7));
        let error = broken().with_retry_after(Duration::from_secs(86_400));
        assert_eq!(delay(&error, 0, true, 0), MAX_RETRY_AFTER);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(parse_retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse_retry_after(date, now), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after(date, now + Duration::from_secs(60)), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(value in ".{0,64}") {
            parse_retry_after(&value, SystemTime::UNIX_EPOCH);
        }

        #[test]
        fn jitter_never_leaves_its_bounds(failures in any::<u32>(), random in any::<u64>()) {
            prop_assert!(delay(&broken(), failures, false, random) <= MAX_DELAY);
        }
    }
}
