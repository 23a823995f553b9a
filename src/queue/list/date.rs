//! Dates as feeds write them: those of mail in RSS, those of RFC 3339 in Atom. Pure.

use std::time::{Duration, SystemTime};

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// The zones that RFC 822, section 5.1, knows by name, with their offset in hours. Other names count as UTC (RFC 2822,
/// section 4.3).
const ZONES: [(&str, i64); 8] =
    [("est", -5), ("edt", -4), ("cst", -6), ("cdt", -5), ("mst", -7), ("mdt", -6), ("pst", -8), ("pdt", -7)];

/// A date of RFC 822 or RFC 3339, also without its time or its seconds. `None` for others, and for years that can't be meant.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    // Only the dates of RFC 3339 begin with a year.
    let is_year_first = text.as_bytes().get(4) == Some(&b'-');
    let seconds = if is_year_first { of_rfc_3339(text) } else { of_mail(text) }?;
    let since = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(since)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}

/// `Tue, 14 Nov 2023 22:13:20 +0000`. The day of the week may be missing or wrong.
fn of_mail(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, date)| date);
    let mut words = text.split_whitespace();
    let day = number(words.next()?)?;
    let month = words.next()?.get(..3)?.to_ascii_lowercase();
    let month = 1 + MONTHS.iter().position(|known| *known == month)?;
    let year = words.next().and_then(number)?;
    // RFC 2822, section 4.3.
    let year = match year {
        0..=49 => 2000 + year,
        50..=999 => 1900 + year,
        _ => year,
    };
    let time = words.next().map_or(Some(0), time)?;
    let zone = words.next().map_or(Some(0), |zone| {
        let zone = zone.to_ascii_lowercase();
        let named = ZONES.iter().find(|(name, _)| *name == zone).map_or(0, |(_, hours)| hours * 3600);
        if zone.starts_with(['+', '-']) { offset(&zone) } else { Some(named) }
    })?;
    Some(days(year, i64::try_from(month).ok()?, day)? * 86_400 + time - zone)
}

/// `2023-11-14T22:13:20.5+01:00`, or the date alone. Also with a space before the time and the zone, as many programs print it.
fn of_rfc_3339(text: &str) -> Option<i64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let midnight = days(year, month, day)? * 86_400;
    if rest.is_empty() {
        return Some(midnight);
    }
    let rest = rest.get(1..)?;
    let end =
        rest.find(|char: char| !char.is_ascii_digit() && !matches!(char, ':' | '.')).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(end);
    let zone = match zone.trim_start() {
        "" | "Z" | "z" | "UTC" => 0,
        zone => offset(zone)?,
    };
    Some(midnight + time(clock)? - zone)
}

/// Seconds of `hh:mm:ss`, without a fraction. The seconds may be missing.
fn time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let seconds = parts.next().map_or(Some(0), |seconds| number(seconds.split('.').next()?))?;
    // 60 is a leap second.
    let is_time = hours < 24 && minutes < 60 && seconds <= 60 && parts.next().is_none();
    is_time.then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Seconds of `+hhmm`, `+hh:mm` or `+hh`.
fn offset(text: &str) -> Option<i64> {
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits: String = text.get(1..)?.chars().filter(|char| *char != ':').collect();
    let minutes = digits.get(2..)?;
    let minutes = if minutes.is_empty() { 0 } else { number(minutes)? };
    let hours = number(digits.get(..2)?)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn number(text: &str) -> Option<i64> {
    // `parse` would accept a sign.
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. `None` if there is no such date.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap),
        _ => 31,
    };
    if year == 0 || !(1..=12).contains(&month) || !(1..=last).contains(&day) {
        return None;
    }
    // Counted from March on, so that the day of a leap year is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = 365 * year + year / 4 - year / 100 + year / 400;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    Some(of_years + (153 * month + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Option<i64> {
        let date = parse(text)?;
        Some(match date.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap(),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
        })
    }

    #[test]
    fn dates_of_mail_and_of_rfc_3339_are_read() {
        for (text, expected) in [
            ("Tue, 14 Nov 2023 22:13:20 +0000", Some(1_700_000_000)),
            (" Tue, 14 Nov 2023 22:13:20 GMT\n", Some(1_700_000_000)),
            ("14 November 2023 22:13:20", Some(1_700_000_000)),
            ("Tue, 14 Nov 2023 17:13:20 EST", Some(1_700_000_000)),
            ("Wed, 15 Nov 23 03:43:20 +0530", Some(1_700_000_000)),
            ("Thu, 1 Jan 1970 00:00 UT", Some(0)),
            ("Wed, 31 Dec 69 23:59:59 Z", Some(-1)),
            ("Thu, 29 Feb 2024 00:00:00 +0000", Some(1_709_164_800)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000)),
            ("2023-11-14T23:13:20.123+01:00", Some(1_700_000_000)),
            ("2023-11-14 22:13:20", Some(1_700_000_000)),
            ("2023-11-14", Some(1_699_920_000)),
            ("2023-11-14 23:13:20 +0100", Some(1_700_000_000)),
            ("2023-11-14 22:13:20 UTC", Some(1_700_000_000)),
            ("2023-11-14 22:13:20+00", Some(1_700_000_000)),
            ("2023-11-14é", None),
            ("2023-1-1-1", None),
            ("2023-11-14T22:13:20 noon", None),
            ("Thu, 30 Feb 2023 00:00:00 +0000", None),
            ("2023-13-01", None),
            ("2023-11-14T25:00:00Z", None),
            ("14 Foo 2023", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), date in "[0-9]{0,5}[-, ]?[0-9A-Za-zé]{0,4}[- ][0-9]{0,5}[T ]?[0-9:.]{0,9}[+-Z ]{0,2}[0-9:]{0,5}") {
            // Any answer will do.
            let _ = (parse(&text), parse(&date));
        }

        #[test]
        fn dates_are_those_that_httpdate_writes(seconds_since in 0_u64..8_000_000_000) {
            let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds_since);
            prop_assert_eq!(parse(&httpdate::fmt_http_date(date)), Some(date));
        }
    }
}
