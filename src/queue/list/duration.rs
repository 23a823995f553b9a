//! Durations as lists write them.

use std::time::Duration;

/// Longer than any track: 10 years in seconds.
const LONGEST: f64 = 3.2e8;

/// A number of seconds, or `h:mm:ss` or `mm:ss` with a fraction at the end. `None` for what is not positive.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    // What follows a third part is left in it, and makes it no number.
    for part in text.trim().splitn(3, ':') {
        // Lists write -1 for a stream, which has no duration.
        seconds = seconds * 60.0 + part.trim().parse::<f64>().ok().filter(|part| *part >= 0.0)?;
    }
    of_seconds(seconds)
}

pub(super) fn of_seconds(seconds: f64) -> Option<Duration> {
    // Also false for NaN.
    let is_usual = seconds > 0.0 && seconds < LONGEST;
    is_usual.then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_clocks_are_read() {
        for (text, millis) in [
            ("123", Some(123_000)),
            (" 1.5 ", Some(1_500)),
            ("1:02:03.5", Some(3_723_500)),
            ("90:00", Some(5_400_000)),
            ("-1", None),
            ("0", None),
            ("", None),
            ("1:-2", None),
            ("1:2:3:4", None),
            ("1:2:3:4:5", None),
            ("inf", None),
            ("NaN", None),
            ("1e300", None),
        ] {
            assert_eq!(parse(text).map(|duration| duration.as_millis()), millis, "{text:?}");
        }
    }
}
