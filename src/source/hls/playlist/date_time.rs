//! Dates with times, as playlists write them (ISO 8601).

use std::time::{Duration, SystemTime};

use super::values::parse_seconds;

/// Parses `2026-01-31T12:00:00.5+01:00`. Without a time zone it is UTC (section 4.4.4.6). Dates before 1970 are refused.
pub(super) fn parse_date_time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    // RFC 3339, section 5.6: `t` and a space may stand in the place of `T`.
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let days = days_from_civil(digits(year, 4)?, digits(month, 2)?, digits(day, 2)?)?;
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let offset = zone_offset(zone)?;
    let mut parts = time.splitn(3, ':');
    let (hours, minutes) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let seconds = parse_seconds(parts.next().unwrap_or("0"))?;
    // 60 is a leap second, and ISO 8601 may write the end of a day as 24:00.
    if hours > 24 || minutes > 59 || seconds >= Duration::from_secs(61) {
        return None;
    }
    let minutes = (days * 24 + i64::from(hours)) * 60 + i64::from(minutes) - offset;
    let whole = Duration::from_secs(u64::try_from(minutes.checked_mul(60)?).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(whole.checked_add(seconds)?)
}

/// A number with exactly this many digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Minutes east of Greenwich.
fn zone_offset(zone: &str) -> Option<i64> {
    // Section 4.4.4.6: it should have a time zone. Without one it is taken for UTC, so that the dates of one server still compare.
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = zone.split_at_checked(1)?;
    let rest = rest.replace(':', "");
    let (hours, minutes) = match rest.len() {
        2 => (digits(&rest, 2)?, 0),
        4 => (digits(rest.get(..2)?, 2)?, digits(rest.get(2..)?, 2)?),
        _ => return None,
    };
    let offset = i64::from(hours * 60 + minutes);
    Some(if sign == "-" { -offset } else { offset })
}

/// Days since 1970-01-01 in the Gregorian calendar. The year is counted from March, so the leap day is its last day.
fn days_from_civil(year: u32, month: u32, day: u32) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = i64::from(year) - i64::from(month <= 2);
    let month = i64::from((month + 9) % 12);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    // 719 468 days lie between 0000-03-01 and 1970-01-01.
    Some(
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s4_4_4_6_dates_are_read_with_any_zone_or_none() {
        let at = |seconds: u64, millis: u64| {
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis))
        };
        let cases = [
            ("1970-01-01T00:00:00Z", at(0, 0)),
            ("2000-02-29T12:30:00.25Z", at(951_827_400, 250)),
            ("2010-02-19T14:54:23.031+08:00", at(1_266_562_463, 31)),
            ("2010-02-19T14:54:23.031+0800", at(1_266_562_463, 31)),
            ("2010-02-19T06:54:23", at(1_266_562_463, 0)),
            ("2026-12-31T23:59:60Z", at(1_798_761_600, 0)),
            ("1969-12-31T23:59:59Z", None),
            ("2010-13-01T00:00:00Z", None),
            ("2010-02-19", None),
            ("2010-02-19T06:54:23+x", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse_date_time(text), wanted, "{text}");
        }
    }
}
