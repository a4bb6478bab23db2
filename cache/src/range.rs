//! Ranges (RFC 9110 section 14): which bytes of a stored body a request wants, and what a partial answer holds.
use crate::fields::Fields;

/// One byte range as a request asks for it. Lists of ranges are not cut here: RFC 9110 section 14.2 lets a cache ignore
/// a `Range`, and a stored answer is then given whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `first-` or `first-last`.
    From { first: u64, last: Option<u64> },
    /// `-length`: the end of the body.
    Suffix(u64),
}

/// Where a stored body, or a part of one, is to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Bytes of the stored body, from `offset`, and what `Content-Range` says of them.
    Bytes { offset: u64, length: u64, content_range: String },
    /// No byte of the range exists: 416.
    Unsatisfiable { content_range: String },
}

/// Which bytes of the whole a 206 holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub first: u64,
    pub last: u64,
    /// `None` while unknown (`*`).
    pub complete: Option<u64>,
}

/// RFC 9110 section 5.6.7's `1*DIGIT`, without sign; larger than any file counts as the largest number.
fn digits(text: &str) -> Option<u64> {
    let legal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if legal { Some(text.parse().unwrap_or(u64::MAX)) } else { None }
}

/// A `Range` of exactly one byte range; `None` for every other value.
pub fn parse(value: &str) -> Option<ByteRange> {
    // Section 14.1: "range-unit names are case-insensitive".
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
    if first.is_empty() {
        return digits(last).map(ByteRange::Suffix);
    }
    let first = digits(first)?;
    let last = if last.is_empty() { None } else { Some(digits(last)?) };
    // Section 14.1.1: "An int-range is invalid if the last-pos value is present and less than first-pos."
    if last.is_some_and(|last| last < first) { None } else { Some(ByteRange::From { first, last }) }
}

impl ContentRange {
    /// RFC 9110 section 14.4. Invalid: "a last-pos value less than its first-pos value, or a complete-length value less
    /// than or equal to its last-pos value".
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, rest) = value.trim().split_once(' ')?;
        let (range, complete) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (digits(first)?, digits(last)?);
        let complete = if complete == "*" { None } else { Some(digits(complete)?) };
        let valid = unit.eq_ignore_ascii_case("bytes") && first <= last && complete.is_none_or(|length| last < length);
        valid.then_some(Self { first, last, complete })
    }

    pub fn of(fields: &Fields) -> Option<Self> {
        // Several lines would say several things of one body.
        Self::parse(&fields.joined("content-range")?)
    }
}

/// Fields about the bytes of one message: RFC 9530 has `Content-Digest` "for the integrity of HTTP message content", as
/// Content-MD5 was. They are true neither of a part cut out of it nor of a whole joined from parts, while `Repr-Digest` is
/// of the representation and holds for all.
pub const OF_ONE_MESSAGE: [&str; 2] = ["content-digest", "content-md5"];

fn written(first: u64, length: u64, complete: Option<u64>) -> String {
    let last = first.saturating_add(length).saturating_sub(1);
    match complete {
        Some(complete) => format!("bytes {first}-{last}/{complete}"),
        None => format!("bytes {first}-{last}/*"),
    }
}

/// Cuts a range out of a whole body.
pub fn cut_whole(range: ByteRange, body_bytes: u64) -> Cut {
    let (first, last) = match range {
        ByteRange::From { first, last } => (first, last.unwrap_or(u64::MAX).min(body_bytes.saturating_sub(1))),
        // Section 14.1.3: "If the selected representation is shorter than the specified suffix-length, the entire
        // representation is used."
        ByteRange::Suffix(length) => (body_bytes.saturating_sub(length), body_bytes.saturating_sub(1)),
    };
    // A suffix of no bytes, a range that begins behind the end, and any range of an empty body.
    if range == ByteRange::Suffix(0) || first >= body_bytes {
        return Cut::Unsatisfiable { content_range: format!("bytes */{body_bytes}") };
    }
    let length = last.saturating_sub(first).saturating_add(1);
    Cut::Bytes { offset: first, length, content_range: written(first, length, Some(body_bytes)) }
}

/// Cuts a range out of a stored part. RFC 9111 section 3.3: only "if the request is partial and specifies a range wholly
/// within the incomplete response".
///
/// Each end is counted from the end of the whole the request names, so that a part whose body is a little shorter than
/// its `Content-Range` says (which section 14.4 does not call invalid) yields no byte from a wrong place.
pub fn cut_part(range: ByteRange, part: ContentRange, body_bytes: u64) -> Option<Cut> {
    let (offset, wanted) = match range {
        ByteRange::From { first, last } => {
            let end = part.complete.map(|complete| complete.saturating_sub(1));
            // Without a last position the range goes to the end of the whole, which must be known to be held.
            let last = match (last, end) {
                (Some(last), Some(end)) => last.min(end),
                (Some(last), None) => last,
                (None, end) => end?,
            };
            if first < part.first || last > part.last || first > last {
                return None;
            }
            (first.checked_sub(part.first)?, last.checked_sub(first)?.checked_add(1)?)
        }
        ByteRange::Suffix(length) => {
            let reaches_end = part.complete?.checked_sub(1)? == part.last;
            if !reaches_end || length == 0 || length > body_bytes {
                return None;
            }
            (body_bytes.checked_sub(length)?, length)
        }
    };
    let length = wanted.min(body_bytes.checked_sub(offset)?);
    if length == 0 {
        return None;
    }
    let first = match range {
        ByteRange::From { first, .. } => first,
        ByteRange::Suffix(_) => part.complete?.checked_sub(length)?,
    };
    Some(Cut::Bytes { offset, length, content_range: written(first, length, part.complete) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from(first: u64, last: Option<u64>) -> Option<ByteRange> {
        Some(ByteRange::From { first, last })
    }

    #[test]
    fn one_range_is_read_and_everything_else_is_ignored() {
        let table = [
            ("bytes=0-1", from(0, Some(1))),
            ("BYTES=5-", from(5, None)),
            ("bytes= 0-0 ", from(0, Some(0))),
            ("bytes=-5", Some(ByteRange::Suffix(5))),
            ("bytes=0-99999999999999999999999", from(0, Some(u64::MAX))),
            ("bytes=1-0", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(parse(value), expected, "{value:?}");
        }
    }

    #[test]
    fn content_ranges_that_contradict_themselves_are_refused() {
        assert_eq!(ContentRange::parse("bytes 4-9/10"), Some(ContentRange { first: 4, last: 9, complete: Some(10) }));
        assert_eq!(ContentRange::parse("bytes 0-0/*"), Some(ContentRange { first: 0, last: 0, complete: None }));
        for bad in [
            "bytes 9-4/10",
            "bytes 4-10/10",
            "bytes */10",
            "items 0-1/2",
            "bytes 0-1",
            "bytes=0-1/2",
            "",
            "bytes 0-1/2, bytes 3-4/5",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad:?}");
        }
    }

    fn bytes(offset: u64, length: u64, content_range: &str) -> Cut {
        Cut::Bytes { offset, length, content_range: content_range.into() }
    }

    #[test]
    fn a_whole_body_is_cut_where_the_request_says() {
        let cut = |value: &str| cut_whole(parse(value).unwrap(), 11);
        assert_eq!(cut("bytes=0-1"), bytes(0, 2, "bytes 0-1/11"));
        assert_eq!(cut("bytes=1-"), bytes(1, 10, "bytes 1-10/11"));
        assert_eq!(cut("bytes=-1"), bytes(10, 1, "bytes 10-10/11"));
        assert_eq!(cut("bytes=-99"), bytes(0, 11, "bytes 0-10/11"));
        assert_eq!(cut("bytes=5-99"), bytes(5, 6, "bytes 5-10/11"));
        for none in ["bytes=11-", "bytes=-0"] {
            assert_eq!(cut(none), Cut::Unsatisfiable { content_range: "bytes */11".into() }, "{none}");
        }
        assert!(matches!(cut_whole(ByteRange::Suffix(1), 0), Cut::Unsatisfiable { .. }));
    }

    #[test]
    fn a_part_gives_only_what_lies_wholly_within_it() {
        let part = ContentRange::parse("bytes 4-9/10").unwrap();
        let cut = |value: &str| cut_part(parse(value).unwrap(), part, 6);
        assert_eq!(cut("bytes=6-8"), Some(bytes(2, 3, "bytes 6-8/10")));
        assert_eq!(cut("bytes=6-"), Some(bytes(2, 4, "bytes 6-9/10")));
        assert_eq!(cut("bytes=-1"), Some(bytes(5, 1, "bytes 9-9/10")));
        assert_eq!(cut("bytes=-6"), Some(bytes(0, 6, "bytes 4-9/10")));
        assert_eq!(cut("bytes=4-99"), Some(bytes(0, 6, "bytes 4-9/10")));
        for outside in ["bytes=3-5", "bytes=0-", "bytes=-7", "bytes=-0"] {
            assert_eq!(cut(outside), None, "{outside}");
        }
        let open = ContentRange::parse("bytes 4-9/*").unwrap();
        assert_eq!(cut_part(parse("bytes=5-6").unwrap(), open, 6), Some(bytes(1, 2, "bytes 5-6/*")));
        for unknown in ["bytes=5-", "bytes=-1", "bytes=5-10"] {
            assert_eq!(cut_part(parse(unknown).unwrap(), open, 6), None, "{unknown}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_of_any_value_is_one_range_and_written_so_it_is_read_again(
            value in ".{0,40}",
            likely in "(bytes|x)[ =]{0,2}[0-9*/, -]{0,24}",
            numbers in "bytes=[0-9]{0,3}-[0-9]{0,3}",
            answered in "bytes [0-9]{1,2}-[0-9]{1,2}/([0-9]{1,2}|\\*)",
        ) {
            for value in [value, likely, numbers, answered] {
                if let Some(range) = parse(&value) {
                    let written = match range {
                        ByteRange::From { first, last: Some(last) } => {
                            prop_assert!(first <= last, "{:?}", value);
                            format!("bytes={first}-{last}")
                        }
                        ByteRange::From { first, last: None } => format!("bytes={first}-"),
                        ByteRange::Suffix(length) => format!("bytes=-{length}"),
                    };
                    prop_assert_eq!(parse(&written), Some(range), "{:?}", value);
                    prop_assert_eq!(value.matches('-').count(), 1, "one range: {:?}", value);
                }
                if let Some(part) = ContentRange::parse(&value) {
                    prop_assert!(part.first <= part.last, "{:?}", value);
                    prop_assert!(part.complete.is_none_or(|complete| part.last < complete), "{:?}", value);
                    let again = written(part.first, part.last - part.first + 1, part.complete);
                    prop_assert_eq!(ContentRange::parse(&again), Some(part), "{:?}", value);
                }
            }
        }

        /// Against the letter of RFC 9110 section 14.1.2, byte by byte.
        #[test]
        fn a_cut_has_the_bytes_that_were_asked_for(
            first in 0_u64..20, last in prop::option::of(0_u64..20), suffix in 0_u64..20,
            held in 0_u64..10, bytes in 1_u64..16, behind in prop::option::of(0_u64..5),
        ) {
            let complete = behind.map(|more| held + bytes + more);
            let part = ContentRange { first: held, last: held + bytes - 1, complete };
            let (whole, held): (Vec<u64>, Vec<u64>) = ((0..bytes).collect(), (part.first..=part.last).collect());
            let last = last.map(|last| last.max(first));
            for range in [ByteRange::From { first, last }, ByteRange::Suffix(suffix)] {
                let wanted = |complete: Option<u64>| -> Option<Vec<u64>> {
                    Some(match (range, complete) {
                        (ByteRange::From { first, last: Some(last) }, None) => (first..=last).collect(),
                        (ByteRange::From { first, last }, complete) => {
                            (first..complete?).filter(|n| last.is_none_or(|last| *n <= last)).collect()
                        }
                        (ByteRange::Suffix(length), complete) => {
                            (complete?.saturating_sub(length)..complete?).collect()
                        }
                    })
                };
                let cut = |cut: Cut, body: &[u64]| match cut {
                    Cut::Bytes { offset, length, content_range } => {
                        let (offset, length) = (usize::try_from(offset).unwrap(), usize::try_from(length).unwrap());
                        let cut = body[offset..][..length].to_vec();
                        let said = ContentRange::parse(&content_range).unwrap();
                        assert_eq!((Some(&said.first), Some(&said.last)), (cut.first(), cut.last()), "{content_range}");
                        cut
                    }
                    Cut::Unsatisfiable { .. } => Vec::new(),
                };
                prop_assert_eq!(cut(cut_whole(range, bytes), &whole), wanted(Some(bytes)).unwrap());
                // More than is held is origin's to answer, even where that would be all there is.
                let is_longer = matches!(range, ByteRange::Suffix(length) if length > bytes);
                let is_held = |wanted: &Vec<u64>| !wanted.is_empty() && wanted.iter().all(|n| held.contains(n));
                let all_held = wanted(part.complete).filter(|wanted| is_held(wanted) && !is_longer);
                let got = cut_part(range, part, bytes).map(|part| cut(part, &held));
                prop_assert_eq!(got, all_held, "{:?} of {:?}", range, part);
            }
        }

        #[test]
        fn a_cut_never_leaves_the_body(first: u64, last: Option<u64>, suffix: u64, held in 0_u64..50, body in 0_u64..60, complete in proptest::option::of(0_u64..100)) {
            for range in [ByteRange::From { first, last }, ByteRange::From { first: first % 64, last: last.map(|l| l % 64) }, ByteRange::Suffix(suffix), ByteRange::Suffix(suffix % 64)] {
                let part = ContentRange { first: held, last: held + body, complete };
                for cut in [Some(cut_whole(range, body)), cut_part(range, part, body)].into_iter().flatten() {
                    if let Cut::Bytes { offset, length, .. } = cut {
                        prop_assert!(length > 0 && offset + length <= body);
                    }
                }
            }
        }
    }
}
