//! Points in time, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const DAY: u64 = 24 * 60 * 60;
/// Longer than any machine will run; what is meant to last for ever does not expire.
const LONGEST: u64 = 100 * 366 * DAY;

/// Seconds since 1970, UTC; as text in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub u64);

/// A text that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTime {
    /// Another format.
    #[error(
        "write a time from now, such as 90s, 5m, 12h, 30d or 4w, or a date such as 2027-01-31 or 2027-01-31T12:00:00Z"
    )]
    Unreadable,
    /// It is over already.
    #[error("that is in the past")]
    Past,
    /// Nobody will see it.
    #[error(
        "that is more than a hundred years away; without an expiry a token is good until it is revoked"
    )]
    Far,
}

impl Time {
    /// What the system's clock says; 1970 when it says less.
    pub fn now() -> Time {
        Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Reads when something ends that begins `now`: a time from then on, or a date.
    ///
    /// # Errors
    /// [`BadTime`].
    pub fn expiry(text: &str, now: Time) -> Result<Time, BadTime> {
        let end = match span(text) {
            Some(seconds) => Time(now.0.checked_add(seconds).ok_or(BadTime::Far)?),
            None => text.parse()?,
        };
        match end {
            end if end <= now => Err(BadTime::Past),
            end if end.0 - now.0 > LONGEST => Err(BadTime::Far),
            end => Ok(end),
        }
    }
}

/// `90s`, `5m`, `12h`, `30d`, `4w`; too much is as much as there is.
fn span(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => DAY,
        'w' => 7 * DAY,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let count = || digits.parse().unwrap_or(u64::MAX);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| unit.saturating_mul(count()))
}

impl FromStr for Time {
    type Err = BadTime;

    /// `2027-01-31`, the beginning of that day, or an RFC 3339 time with an offset; fractions of a
    /// second are cut off.
    fn from_str(text: &str) -> Result<Time, BadTime> {
        parse(text).ok_or(BadTime::Unreadable)
    }
}

fn parse(text: &str) -> Option<Time> {
    let (date, rest) = text.split_at_checked(10)?;
    let midnight = days_since_1970(date)? * DAY as i64;
    let seconds = match rest.as_bytes() {
        [] => midnight,
        [b'T' | b't' | b' ', ..] => {
            let (time, rest) = rest[1..].split_at_checked(8)?;
            midnight + second_of_day(time)? - offset(without_fraction(rest)?)?
        }
        _ => return None,
    };
    u64::try_from(seconds).ok().map(Time)
}

/// Numbers of as many digits as `format` has `0`s, between its other characters.
fn numbers<const N: usize>(text: &str, format: &str) -> Option<[i64; N]> {
    let mut found = [0; N];
    let (mut at, mut inside) = (0, false);
    if text.len() != format.len() {
        return None;
    }
    for (got, expected) in text.bytes().zip(format.bytes()) {
        if expected != b'0' {
            at += usize::from(std::mem::take(&mut inside));
            (got == expected).then_some(())?;
            continue;
        }
        inside = true;
        let digit = i64::from(char::from(got).to_digit(10)?);
        let number = found.get_mut(at)?;
        *number = *number * 10 + digit;
    }
    Some(found)
}

fn days_since_1970(date: &str) -> Option<i64> {
    let [year, month, day] = numbers(date, "0000-00-00")?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    (1..=length).contains(&day).then(|| days_from_civil(year, month, day))
}

fn second_of_day(time: &str) -> Option<i64> {
    let [hour, minute, second] = numbers(time, "00:00:00")?;
    // RFC 3339 has a 60th second now and then.
    let exists = hour < 24 && minute < 60 && second <= 60;
    exists.then_some((hour * 60 + minute) * 60 + second)
}

fn without_fraction(rest: &str) -> Option<&str> {
    let Some(fraction) = rest.strip_prefix('.') else { return Some(rest) };
    let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    (zone.len() < fraction.len()).then_some(zone)
}

fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next()? {
        'Z' | 'z' => return (zone.len() == 1).then_some(0),
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(&zone[1..], "00:00")?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

/// Days since 1970 in the Gregorian calendar; a year begins in March here, so that the leap day is
/// its last one, and 400 years are 146097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days((self.0 / DAY) as i64);
        let second = self.0 % DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl TryFrom<String> for Time {
    type Error = BadTime;

    fn try_from(text: String) -> Result<Time, BadTime> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_800_000_000);

    #[test]
    fn a_time_from_now_and_dates_are_read() {
        for (text, expected) in [
            ("90s", NOW.0 + 90),
            ("5m", NOW.0 + 300),
            ("12h", NOW.0 + 43_200),
            ("30d", NOW.0 + 30 * DAY),
            ("4w", NOW.0 + 28 * DAY),
            ("2027-01-31", 1_801_353_600),
            ("2027-01-31T12:00:00Z", 1_801_396_800),
            ("2027-01-31t12:00:00.25z", 1_801_396_800),
            ("2027-01-31 14:00:00+02:00", 1_801_396_800),
            ("2027-01-31T06:30:00-05:30", 1_801_396_800),
            ("2028-02-29", 1_835_395_200),
        ] {
            assert_eq!(Time::expiry(text, NOW), Ok(Time(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "s",
            "d",
            "30",
            "30 d",
            "-1d",
            "+1d",
            "1.5h",
            "30D",
            "30y",
            "é",
            "３０d",
            "1d1d",
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-01-00",
            "2027-01-32",
            "2027-1-1",
            "2027-01-31T",
            "2027-01-31T12:00:00",
            "2027-01-31T24:00:00Z",
            "2027-01-31T12:60:00Z",
            "2027-01-31T12:00:00.Z",
            "2027-01-31T12:00:00Zx",
            "2027-01-31T12:00:00+2:00",
            "2027-01-31x",
            "2027/01/31",
            "éééééé",
            "2027-01-31T12:00:00+24:00",
        ] {
            assert_eq!(Time::expiry(bad, NOW), Err(BadTime::Unreadable), "{bad}");
        }
        for past in ["0s", "0w", "2020-01-01", "1970-01-01T00:00:00Z"] {
            assert_eq!(Time::expiry(past, NOW), Err(BadTime::Past), "{past}");
        }
        for far in ["99999999999999999999999d", "18446744073709551615s", "5300w", "2200-01-01"] {
            assert_eq!(Time::expiry(far, NOW), Err(BadTime::Far), "{far}");
        }
    }

    #[test]
    fn times_print_what_they_read() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(NOW.to_string(), "2027-01-15T08:00:00Z");
        for day in (0..60_000).step_by(17) {
            let time = Time(day * DAY + day % DAY);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
