//! HTTP dates (RFC 9110 section 5.6.7), read as leniently as RFC 9111 section 4.2 wants caches to.
//!
//! A reader of our own: a general one refuses other letter cases and a weekday that does not fit the date, which a
//! cache must not, and takes the century of a two-digit year from a fixed table.

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MS_PER_DAY: u64 = 86_400_000;

/// Milliseconds since 1970 of an HTTP date in any of its three forms; `None` for anything else, and before 1970.
///
/// `now_ms` decides the century of a two-digit year.
pub fn parse_date_ms(value: &str, now_ms: u64) -> Option<u64> {
    let value = value.trim();
    // RFC 9111 section 4.2: "Although all date formats are specified to be case-sensitive, a cache recipient SHOULD
    // match the field value case-insensitively."
    let lower = value.to_ascii_lowercase();
    let (weekday, rest) = match lower.split_once(',') {
        Some((weekday, rest)) => (weekday, rest.strip_prefix(' ')?),
        // asctime: "Sun Nov  6 08:49:37 1994"
        None => lower.split_once(' ')?,
    };
    let is_long = WEEKDAYS.contains(&weekday);
    let is_short = weekday.len() == 3 && WEEKDAYS.iter().any(|name| name.starts_with(weekday));
    if is_long && lower.contains(',') {
        // "Sunday, 06-Nov-94 08:49:37 GMT"
        let (date, time) = rest.split_once(' ')?;
        let mut parts = date.split('-');
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        let year = full_year(number(year, 2)?, now_ms)?;
        let time = time.strip_suffix(" gmt")?;
        return parts.next().is_none().then(|| at(year, month, number(day, 2)?, time))?;
    }
    if !is_short {
        return None;
    }
    if lower.contains(',') {
        // "Sun, 06 Nov 1994 08:49:37 GMT"
        let mut parts = rest.split(' ');
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        let time = parts.next()?;
        let zone = parts.next()?;
        return (zone == "gmt" && parts.next().is_none())
            .then(|| at(number(year, 4)?, month, number(day, 2)?, time))?;
    }
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.strip_prefix(' ').unwrap_or(rest).split_once(' ')?;
    let (time, year) = rest.split_once(' ')?;
    at(number(year, 4)?, month, number(day, day.len().clamp(1, 2))?, time)
}

/// Exactly so many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    let legal = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    if legal { text.parse().ok() } else { None }
}

/// RFC 9110 section 5.6.7: "Recipients of a timestamp value in rfc850-date format, which uses a two-digit year, MUST
/// interpret a timestamp that appears to be more than 50 years in the future as representing the most recent year in
/// the past that had the same last two digits."
fn full_year(two_digits: u64, now_ms: u64) -> Option<u64> {
    // The civil year to the day: 400 years have 146,097 days.
    let now_year = (now_ms / MS_PER_DAY).checked_mul(400)?.checked_div(146_097)?.checked_add(1970)?;
    let year = now_year.checked_sub(now_year % 100)?.checked_add(two_digits)?;
    Some(if year > now_year.checked_add(50)? { year.checked_sub(100)? } else { year })
}

fn at(year: u64, month: &str, day: u64, time: &str) -> Option<u64> {
    let month = u64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        1 if is_leap => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    };
    // Second 60 is a leap second.
    let legal = parts.next().is_none()
        && year >= 1970
        && (1..=days_in_month).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !legal {
        return None;
    }
    // Years begin in March here, so that the leap day is the last day of one.
    let (year, month) =
        if month < 2 { (year.checked_sub(1)?, month.checked_add(10)?) } else { (year, month.checked_sub(2)?) };
    let leap_days = (year / 4).checked_sub(year / 100)?.checked_add(year / 400)?;
    let day_of_year = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?.checked_add(day)?.checked_sub(1)?;
    // 719,468 days lie between the first of March of year 0 and 1970.
    let days = year.checked_mul(365)?.checked_add(leap_days)?.checked_add(day_of_year)?.checked_sub(719_468)?;
    let seconds = days
        .checked_mul(24)?
        .checked_add(hour)?
        .checked_mul(60)?
        .checked_add(minute)?
        .checked_mul(60)?
        .checked_add(second)?;
    seconds.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// Tuesday, 24 November 2026.
    const NOW_MS: u64 = 1_795_478_400_000;
    const SAMPLE_MS: Option<u64> = Some(784_111_777_000);

    #[test]
    fn the_three_forms_of_one_moment() {
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
            "sUN, 06 nOV 1994 08:49:37 gmt",
            " Sun, 06 Nov 1994 08:49:37 GMT\t",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_date_ms(form, NOW_MS), SAMPLE_MS, "{form:?}");
        }
    }

    #[test]
    fn a_two_digit_year_lies_at_most_fifty_years_ahead() {
        let year = |text: &str| parse_date_ms(&format!("Sunday, 01-Jan-{text} 00:00:00 GMT"), NOW_MS);
        let january = |year| at(year, "jan", 1, "00:00:00");
        assert_eq!(year("76"), january(2076));
        assert_eq!(year("77"), january(1977));
        assert_eq!(year("26"), january(2026));
        assert_eq!(year("00"), january(2000));
    }

    #[test]
    fn what_is_no_date() {
        for bad in [
            "",
            "0",
            "-1",
            "tomorrow",
            "Sun, 06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 00:60:00 GMT",
            "Sun, 29 Feb 2025 00:00:00 GMT",
            "Sun, 31 Apr 2025 00:00:00 GMT",
            "Sun, 00 Jan 2025 00:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_date_ms(bad, NOW_MS), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_well_kept_library_writes_is_read(seconds in 0_u64..253_402_300_800) {
            let written = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(parse_date_ms(&written, NOW_MS), Some(seconds * 1000));
        }

        /// In all three forms, of days and times there are and there are not; but for the weekday, which no form has to have
        /// right here.
        #[test]
        fn days_and_times_are_read_as_the_library_reads_them_and_no_others_are(
            day in prop_oneof![0_u64..33, 28_u64..32],
            month in prop_oneof![prop::sample::select(MONTHS.to_vec()), Just("feb")],
            year in prop_oneof![1965_u64..2077, prop::sample::select(vec![1972_u64, 2000, 2024, 2100])],
            hour in 0_u64..26, minute in 0_u64..62, second in prop_oneof![0_u64..60, Just(61)],
            form in 0..3, cased in any::<bool>(),
        ) {
            let name = format!("{}{}", month[..1].to_uppercase(), &month[1..]);
            let time = format!("{hour:02}:{minute:02}:{second:02}");
            let text = |long: &str| match form {
                0 => format!("{}, {day:02} {name} {year} {time} GMT", &long[..3]),
                1 => format!("{long}, {day:02}-{name}-{:02} {time} GMT", year % 100),
                _ => format!("{} {name} {day:>2} {time} {year}", &long[..3]),
            };
            // The library tells two-digit years by a fixed table.
            let year_is_told_alike = form != 1 || (1977..2070).contains(&year);
            let weekdays = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
            let strict = weekdays.iter().find_map(|long| httpdate::parse_http_date(&text(long)).ok());
            let strict_ms = strict.map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs() * 1000);
            let (is_read, written) = (|text: &str| parse_date_ms(text, NOW_MS), text("Sunday"));
            let written = if cased { written.to_uppercase() } else { written };
            if year_is_told_alike {
                prop_assert_eq!(is_read(&written), strict_ms, "{:?}", written);
            }
        }

        #[test]
        fn whatever_is_read_is_a_moment_that_can_be_written(
            any in ".{0,60}",
            likely in "(Sun|Sunday|Mon)?,?[ 0-9:-]{0,12}(Nov|Feb)?[ 0-9:-]{0,14}(GMT)?",
            near in "(Sun|Foo), [0-3][0-9] (Nov|Feb|Fob) [12][09][0-9]{2} [0-2][0-9]:[0-6][0-9]:[0-6][0-9] (GMT|UTC)",
        ) {
            for text in [any, likely, near] {
                let read = parse_date_ms(&text, NOW_MS);
                let lower = format!(" {}\t", text.to_ascii_lowercase());
                prop_assert_eq!(parse_date_ms(&lower, NOW_MS), read, "{:?}", text);
                if let Some(ms) = read {
                    let written = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms));
                    prop_assert_eq!(parse_date_ms(&written, NOW_MS), Some(ms), "{:?}", text);
                    prop_assert!(text.to_ascii_lowercase().contains("gmt") || !text.contains(','), "{:?}", text);
                }
            }
        }
    }
}
