//! What of a document a client wants, by its query: `fields=`, and of a list `limit=` and `cursor=`. Read here and taken
//! out of the query, so that origin is asked for the document and the cache keeps it once, whatever is cut from it.
//!
//! Where origin has pages of its own (the catalogue, search) it is asked for one of two sizes, and a smaller or shifted
//! part is cut from that: the cursor of such a part is origin's cursor of the page, `~` and the place in it. No part goes
//! beyond its page, so the last one of a page may be short; what is new in a page while a client walks through it can show
//! an item twice or pass over one there, and nowhere else.
use crate::cut::Slice;
use crate::fields::{self, Selection};
use crate::percent;

/// What a client wants of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub selection: Option<Selection>,
    pub slice: Option<Slice>,
    /// Tells this cut from all others of the same document.
    pub id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Path and query of the document itself.
    pub target: String,
    pub wanted: Option<Wanted>,
}

/// What is wrong with which parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub parameter: &'static str,
    pub message: String,
}

/// A document with a list.
pub struct List {
    /// Of the document's path; `*` is one segment of any value.
    pub segments: &'static [&'static str],
    path: &'static [&'static str],
    pub pages: Pages,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Many lists beside each other: their length is limited, and there is no going on.
    Many,
    /// One list, all of it in the document.
    Whole,
    /// Pages of origin.
    Origins,
}

/// Origin's page when no limit is given, and its largest one.
const PAGE: u64 = 24;
const PAGE_MAX: u64 = 100;

/// Origin's cursors are shorter.
pub const CURSOR_BYTES_MAX: usize = 1_000;

/// No list is longer.
const OFFSET_MAX: u64 = 100_000;

/// A test of the edge's compares them with its route table.
pub const LISTS: [List; 8] = [
    List { segments: &["v1", "home"], path: &["rails", "items"], pages: Pages::Many },
    List { segments: &["v1", "catalog"], path: &["items"], pages: Pages::Origins },
    List { segments: &["v1", "search"], path: &["items"], pages: Pages::Origins },
    List { segments: &["v1", "genres"], path: &["genres"], pages: Pages::Whole },
    List { segments: &["v1", "titles", "*", "similar"], path: &["items"], pages: Pages::Whole },
    List { segments: &["v1", "people", "*"], path: &["credits"], pages: Pages::Whole },
    List { segments: &["v1", "collections", "*"], path: &["items"], pages: Pages::Whole },
    List { segments: &["v1", "series", "*", "seasons", "*"], path: &["episodes"], pages: Pages::Whole },
];

/// What a read of this path with query is to be; `None` if nothing of it is ours to do.
pub fn plan(target: &str) -> Result<Option<Plan>, Fault> {
    let Some((path, query)) = target.split_once('?') else { return Ok(None) };
    if !path.starts_with("/v1/") {
        return Ok(None);
    }
    let list = list_of(path);
    let is_ours = |pair: &str| {
        let name = name_of(pair);
        name == "fields" || (list.is_some() && matches!(name, "limit" | "cursor"))
    };
    if !query.split('&').any(is_ours) {
        return Ok(None);
    }
    let selection = match parameter(query, "fields")? {
        None => None,
        Some(text) => Some(Selection::parse(&text).map_err(|fault: fields::Fault| Fault {
            parameter: "fields",
            message: format!("{} (at byte {})", fault.what, fault.at),
        })?),
    };
    let mut kept: Vec<String> = query.split('&').filter(|pair| !is_ours(pair)).map(String::from).collect();
    let slice = match list {
        None => None,
        Some(list) => slice(list, query, &mut kept)?,
    };
    let target = if kept.is_empty() { path.to_string() } else { format!("{path}?{}", kept.join("&")) };
    if selection.is_none() && slice.is_none() {
        return Ok(Some(Plan { target, wanted: None }));
    }
    let id = id_of(selection.as_ref(), slice.as_ref());
    Ok(Some(Plan { target, wanted: Some(Wanted { selection, slice, id }) }))
}

fn list_of(path: &str) -> Option<&'static List> {
    let mut segments = path.split('/');
    segments.next();
    let segments: Vec<&str> = segments.collect();
    let fits = |list: &&List| {
        list.segments.len() == segments.len()
            && list.segments.iter().zip(&segments).all(|(want, have)| *want == "*" || want == have)
    };
    LISTS.iter().find(fits)
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or(pair)
}

/// The value of a parameter, which may be there once.
fn parameter(query: &str, name: &'static str) -> Result<Option<String>, Fault> {
    let mut values = query.split('&').filter(|pair| name_of(pair) == name);
    let Some(pair) = values.next() else { return Ok(None) };
    let fault = |message: &str| Err(Fault { parameter: name, message: message.into() });
    if values.next().is_some() {
        return fault("must be given once");
    }
    match percent::decoded(pair.split_once('=').map_or("", |(_, value)| value)) {
        Some(value) => Ok(Some(value)),
        None => fault("is not percent-encoded UTF-8"),
    }
}

/// Which part of the list is wanted; what origin is to be asked for goes to `kept`.
fn slice(list: &List, query: &str, kept: &mut Vec<String>) -> Result<Option<Slice>, Fault> {
    let limit = match parameter(query, "limit")? {
        None => None,
        Some(text) => Some(number(&text).filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(|| Fault {
            parameter: "limit",
            message: format!("must be a whole number from 1 to {PAGE_MAX}"),
        })?),
    };
    let bad_cursor = || Fault { parameter: "cursor", message: "must be a next_cursor of the same list".into() };
    let cursor = parameter(query, "cursor")?;
    let (base, offset) = match &cursor {
        None => ("", 0),
        Some(text) => read_cursor(text).ok_or_else(bad_cursor)?,
    };
    let part = |limit: u64, cursor: Option<String>| Slice { path: list.path, offset, limit, cursor };
    match list.pages {
        Pages::Many if cursor.is_some() => {
            Err(Fault { parameter: "cursor", message: "this page has many lists; it takes a limit alone".into() })
        }
        Pages::Many => Ok(limit.map(|limit| part(limit, None))),
        Pages::Whole if !base.is_empty() => Err(bad_cursor()),
        Pages::Whole => {
            // Without a limit a cursor leads to the end.
            let limit = limit.unwrap_or(OFFSET_MAX);
            Ok(Some(part(limit, Some("~".into()))))
        }
        Pages::Origins => {
            let left = PAGE_MAX.checked_sub(offset).filter(|left| *left > 0).ok_or_else(bad_cursor)?;
            let limit = limit.unwrap_or(PAGE).min(left);
            let page = if offset.saturating_add(limit) <= PAGE { PAGE } else { PAGE_MAX };
            if !base.is_empty() {
                kept.push(format!("cursor={base}"));
            }
            if page != PAGE {
                kept.push(format!("limit={page}"));
            }
            let is_the_page = offset == 0 && limit == page;
            Ok((!is_the_page).then(|| part(limit, Some(format!("{base}~")))))
        }
    }
}

fn number(text: &str) -> Option<u64> {
    (text.len() <= 9 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

/// Origin's cursor, and the place in its page. Of characters that need no escape in URL and JSON.
fn read_cursor(text: &str) -> Option<(&str, u64)> {
    let (base, offset) = match text.rsplit_once('~') {
        None => (text, 0),
        Some((base, offset)) => (base, number(offset).filter(|offset| *offset <= OFFSET_MAX)?),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (base.len() <= CURSOR_BYTES_MAX && base.chars().all(is_plain) && !text.is_empty()).then_some((base, offset))
}

/// FNV-1a, 64 bits: one of a document's few cuts is told from the others, nothing hangs on it.
fn id_of(selection: Option<&Selection>, slice: Option<&Slice>) -> String {
    let selection = selection.map(Selection::canonical).unwrap_or_default();
    let slice = slice.map(|slice| format!("{}+{}{}", slice.offset, slice.limit, slice.cursor.as_deref().unwrap_or("")));
    let text = format!("{selection}|{}", slice.unwrap_or_default());
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

impl Wanted {
    /// The tag of the cut document: weak, since it says nothing about a coding.
    pub fn etag(&self, of_document: &str) -> Option<String> {
        let opaque = of_document.trim().trim_start_matches("W/").strip_prefix('"')?.strip_suffix('"')?;
        Some(format!("W/\"{opaque}~{}\"", self.id))
    }

    /// `If-None-Match` as it is to be asked about the document: the tags that this cut gave out, as the document's own. No
    /// other, or a client that holds the whole document would be told that it holds this cut of it.
    pub fn if_none_match(&self, of_cut: &str) -> Option<String> {
        if of_cut.trim() == "*" {
            return Some("*".into());
        }
        // Of `W/"a", "b,c"`, every second piece between quotes is a tag.
        let own = of_cut.split('"').skip(1).step_by(2).filter_map(|tag| tag.strip_suffix(&self.id)?.strip_suffix('~'));
        let tags: Vec<String> = own.map(|tag| format!("W/\"{tag}\"")).collect();
        (!tags.is_empty()).then(|| tags.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(target: &str) -> Plan {
        plan(target).unwrap_or_else(|fault| panic!("{target}: {fault:?}")).unwrap_or_else(|| panic!("{target}"))
    }

    fn part(target: &str) -> Option<(u64, u64, Option<String>)> {
        planned(target).wanted?.slice.map(|slice| (slice.offset, slice.limit, slice.cursor))
    }

    #[test]
    fn what_is_cut_here_never_reaches_origin() {
        for (target, asked) in [
            ("/v1/home?fields=rails.id", "/v1/home"),
            ("/v1/home?x=1&fields=rails.id&limit=3", "/v1/home?x=1"),
            ("/v1/titles/heat?fields=id%2Cname", "/v1/titles/heat"),
            ("/v1/people/al?limit=5&cursor=~5", "/v1/people/al"),
            ("/v1/catalog?fields=items.id&genre=drama", "/v1/catalog?genre=drama"),
            ("/v1/catalog?limit=24", "/v1/catalog"),
            ("/v1/catalog?limit=3&cursor=AbC_-&genre=a", "/v1/catalog?genre=a&cursor=AbC_-"),
            ("/v1/catalog?limit=25", "/v1/catalog?limit=100"),
            ("/v1/search?q=heat&limit=100", "/v1/search?q=heat&limit=100"),
            ("/v1/me?fields=id", "/v1/me"),
        ] {
            assert_eq!(planned(target).target, asked, "{target}");
        }
        for untouched in ["/v1/home", "/v1/home?x=1", "/v1/titles/heat?limit=3", "/admin/v1/titles?fields=a&limit=3"] {
            assert_eq!(plan(untouched), Ok(None), "{untouched}");
        }
    }

    #[test]
    fn parts_of_origins_pages_are_cut_from_two_sizes_and_lead_on() {
        let own = |text: &str| Some(text.to_string());
        assert_eq!(part("/v1/catalog?limit=24"), None, "the page itself");
        assert_eq!(part("/v1/catalog?limit=100&cursor=C"), None, "the page itself");
        assert_eq!(part("/v1/catalog?limit=10"), Some((0, 10, own("~"))));
        assert_eq!(part("/v1/catalog?limit=10&cursor=C~10"), Some((10, 10, own("C~"))));
        assert_eq!(planned("/v1/catalog?limit=10&cursor=C~10").target, "/v1/catalog?cursor=C");
        assert_eq!(part("/v1/catalog?limit=10&cursor=C~20"), Some((20, 10, own("C~"))));
        assert_eq!(planned("/v1/catalog?limit=10&cursor=C~20").target, "/v1/catalog?cursor=C&limit=100");
        assert_eq!(part("/v1/catalog?limit=30&cursor=~90"), Some((90, 10, own("~"))), "not beyond the page");
        assert_eq!(part("/v1/home?limit=5"), Some((0, 5, None)));
        assert_eq!(part("/v1/collections/x?limit=5&cursor=~10"), Some((10, 5, own("~"))));
    }

    #[test]
    fn bad_parameters_are_named() {
        for (target, parameter) in [
            ("/v1/home?fields=", "fields"),
            ("/v1/home?fields", "fields"),
            ("/v1/home?fields=a&fields=b", "fields"),
            ("/v1/home?fields=%4", "fields"),
            ("/v1/home?fields=%ff", "fields"),
            ("/v1/home?limit=0", "limit"),
            ("/v1/home?limit=101", "limit"),
            ("/v1/home?limit=+1", "limit"),
            ("/v1/catalog?limit=ten", "limit"),
            ("/v1/catalog?limit=1&limit=2", "limit"),
            ("/v1/home?cursor=~1", "cursor"),
            ("/v1/people/al?cursor=abc", "cursor"),
            ("/v1/catalog?cursor=a%22b", "cursor"),
            ("/v1/catalog?cursor=a~100", "cursor"),
            ("/v1/catalog?cursor=", "cursor"),
            ("/v1/catalog?cursor=a~-1", "cursor"),
            ("/v1/catalog?cursor=a~99999999999999999999", "cursor"),
        ] {
            assert_eq!(plan(target).expect_err(target).parameter, parameter, "{target}");
        }
    }

    #[test]
    fn a_cut_has_tags_of_its_own_and_knows_no_others() {
        let wanted = planned("/v1/home?fields=rails(id,title)").wanted.unwrap();
        let same = planned("/v1/home?fields=rails.title,rails.id").wanted.unwrap();
        let other = planned("/v1/home?fields=rails.id").wanted.unwrap();
        let tag = wanted.etag("\"abc\"").unwrap();
        assert_eq!(same.etag("W/\"abc\""), Some(tag.clone()));
        assert_ne!(other.etag("\"abc\""), Some(tag.clone()));
        assert_eq!(wanted.if_none_match(&tag).as_deref(), Some("W/\"abc\""));
        assert_eq!(wanted.if_none_match(&format!("\"x\", \"abc\", {tag}, \"y,z\"")).as_deref(), Some("W/\"abc\""));
        assert_eq!(wanted.if_none_match("\"abc\""), None, "the whole document's");
        assert_eq!(other.if_none_match(&tag), None);
        assert_eq!(wanted.if_none_match("*").as_deref(), Some("*"));
        assert_eq!(wanted.etag("broken"), None);
    }
}
