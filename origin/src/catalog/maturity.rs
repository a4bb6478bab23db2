//! One table from the rating boards' marks to age classes. What is not known counts as 16: an unrated title must not
//! reach children, and is no reason to hide it from everybody.
use kv_schemas::viewer::Maturity;

const MARKS: [(&[&str], Maturity); 5] = [
    (&["G", "TV-Y", "TV-G", "U", "0", "FSK 0"], Maturity::All),
    (&["PG", "TV-Y7", "TV-PG", "6", "7", "FSK 6"], Maturity::From7),
    (&["PG-13", "TV-14", "12", "12A", "13", "FSK 12"], Maturity::From13),
    (&["R", "15", "16", "FSK 16"], Maturity::From16),
    (&["NC-17", "TV-MA", "17", "18", "X", "R18", "FSK 18"], Maturity::From18),
];

/// The age class of a mark.
pub fn class_of(mark: Option<&str>) -> Maturity {
    let mark = mark.unwrap_or_default().trim();
    let known = MARKS.iter().find(|(marks, _)| marks.iter().any(|known| known.eq_ignore_ascii_case(mark)));
    known.map_or(Maturity::From16, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_has_one_class_and_strangers_are_not_for_children() {
        for (mark, class) in [("G", 0), ("tv-y7", 7), ("PG-13", 13), ("R", 16), ("NC-17", 18), ("TV-MA", 18)] {
            assert_eq!(class_of(Some(mark)).years(), class, "{mark}");
        }
        for unknown in [None, Some(""), Some("Not Rated"), Some("Open")] {
            assert_eq!(class_of(unknown), Maturity::From16, "{unknown:?}");
        }
        let mut all: Vec<_> = MARKS.iter().flat_map(|(marks, _)| marks.iter()).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
