//! The things of the catalogue as the service holds them. No I/O, no SQL, no HTTP.
use jiff::Timestamp;
use kv_schemas::viewer::{Locale, Maturity, Plan, Region};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Whatever an editor keeps: what may be written of it, and what the service adds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record<I> {
    pub id: String,
    pub version: i64,
    #[serde(flatten)]
    pub input: I,
    /// Whether viewers see it anywhere, as of its last write or the last change by schedule.
    pub visible: bool,
    /// The same for each region.
    #[serde(skip)]
    pub shown: Shown,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    /// Since when it is deleted; it can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_at_ms: Option<i64>,
}

pub type Title = Record<TitleInput>;
pub type Rail = Record<RailInput>;

/// Where something is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// In every region that is not named.
    pub elsewhere: bool,
    pub regions: BTreeMap<Region, bool>,
}

impl Shown {
    pub fn everywhere(shown: bool) -> Self {
        Self { elsewhere: shown, regions: BTreeMap::new() }
    }

    pub fn anywhere(&self) -> bool {
        self.elsewhere || self.regions.values().any(|shown| *shown)
    }

    pub fn is_in(&self, region: Region) -> bool {
        self.regions.get(&region).copied().unwrap_or(self.elsewhere)
    }

    fn differs(&self, other: &Self, how: impl Fn(bool, bool) -> bool) -> bool {
        let named = self.regions.keys().chain(other.regions.keys());
        how(self.elsewhere, other.elsewhere) || named.into_iter().any(|r| how(self.is_in(*r), other.is_in(*r)))
    }

    /// Whether some region sees a difference.
    pub fn changes_to(&self, after: &Self) -> bool {
        self.differs(after, |before, after| before != after)
    }

    /// Whether some region does not see any more what it saw.
    pub fn narrows_to(&self, after: &Self) -> bool {
        self.differs(after, |before, after| before && !after)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TitleKind {
    #[default]
    Film,
    Series,
}

impl TitleKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Film => "film",
            Self::Series => "series",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        [Self::Film, Self::Series].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// How far an editor has come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Draft,
    /// Published by itself at `publish_at`.
    Scheduled,
    #[default]
    Published,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Scheduled => "scheduled",
            Self::Published => "published",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        [Self::Draft, Self::Scheduled, Self::Published].into_iter().find(|state| state.as_str() == text)
    }
}

/// What is said in one language; what is missing is said in the original.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Translation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synopsis: Option<String>,
}

pub type Translations = BTreeMap<Locale, Translation>;

/// A name in a viewer's language, or as it is.
pub fn name_in<'a>(name: &'a str, translations: &'a Translations, locale: &Locale) -> &'a str {
    translations.get(locale).and_then(|said| said.name.as_deref()).unwrap_or(name)
}

/// A synopsis in a viewer's language, or as it is.
pub fn synopsis_in<'a>(synopsis: Option<&'a str>, all: &'a Translations, locale: &Locale) -> Option<&'a str> {
    all.get(locale).and_then(|said| said.synopsis.as_deref()).or(synopsis)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageKind {
    Poster,
    Backdrop,
    Still,
    Logo,
    Portrait,
}

impl ImageKind {
    pub const NAMES: [(&'static str, Self); 5] = [
        ("poster", Self::Poster),
        ("backdrop", Self::Backdrop),
        ("still", Self::Still),
        ("logo", Self::Logo),
        ("portrait", Self::Portrait),
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    pub kind: ImageKind,
    /// `https://…`, or a path below `/media/`.
    pub url: String,
    /// For viewers of this language; without it, for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub locale: Option<Locale>,
}

/// The image of a kind for a viewer: that of the language, or the first without one.
pub fn image_for<'a>(images: &'a [Image], kind: ImageKind, locale: &Locale) -> Option<&'a str> {
    let of_kind = || images.iter().filter(|image| image.kind == kind);
    let own = of_kind().find(|image| image.locale.as_ref() == Some(locale));
    own.or_else(|| of_kind().find(|image| image.locale.is_none())).map(|image| image.url.as_str())
}

/// Who took part in a title.
#[derive(Clone, Debug, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credit {
    /// The person's. Made from the name when not given.
    #[serde(default)]
    pub id: String,
    /// What the person's own record says: a write of either brings it up to date.
    pub name: String,
    pub role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub character: Option<String>,
}

/// The name belongs to the person: another name makes no other credit.
impl PartialEq for Credit {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.role, &self.character) == (&other.id, &other.role, &other.character)
    }
}

/// When viewers may see a title: from (inclusive) and until (exclusive); open where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Window {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Never.
    #[serde(default)]
    pub blocked: bool,
}

impl Window {
    fn is_open_at(&self, now_ms: i64) -> bool {
        let has_begun = self.from.is_none_or(|from| from.as_millisecond() <= now_ms);
        let has_ended = self.until.is_some_and(|until| until.as_millisecond() <= now_ms);
        !self.blocked && has_begun && !has_ended
    }
}

/// What "for ever" is in `gone_ms`.
pub const FOR_EVER_MS: i64 = i64::MAX;

/// What an editor may write of a title.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TitleInput {
    pub kind: TitleKind,
    pub name: String,
    /// What lists are ordered by, in every language.
    pub sort_name: String,
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
    pub year: Option<i64>,
    /// `YYYY-MM-DD`
    pub release_date: Option<String>,
    pub synopsis: Option<String>,
    /// The rating board's mark, such as `PG-13`.
    pub maturity: Option<String>,
    pub runtime_min: Option<i64>,
    /// 0 to 10.
    pub rating: Option<f64>,
    pub votes: Option<i64>,
    pub distributor: Option<String>,
    /// Names, in order.
    pub genres: Vec<String>,
    pub people: Vec<Credit>,
    pub images: Vec<Image>,
    pub state: State,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub publish_at: Option<Timestamp>,
    /// The window of every region that has none of its own.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub available_from: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub available_until: Option<Timestamp>,
    #[schema(value_type = BTreeMap<String, Window>)]
    pub regions: BTreeMap<Region, Window>,
}

impl TitleInput {
    /// The age class its board's mark stands for.
    pub fn age(&self) -> Maturity {
        super::maturity::class_of(self.maturity.as_deref())
    }

    fn is_published_at(&self, now_ms: i64) -> bool {
        match self.state {
            State::Draft => false,
            State::Scheduled => self.publish_at.is_some_and(|at| at.as_millisecond() <= now_ms),
            State::Published => true,
        }
    }

    fn elsewhere(&self) -> Window {
        Window { from: self.available_from, until: self.available_until, blocked: false }
    }

    /// Where viewers see it at a moment.
    pub fn shown_at(&self, now_ms: i64) -> Shown {
        let published = self.is_published_at(now_ms);
        let regions = self.regions.iter().map(|(region, window)| (*region, published && window.is_open_at(now_ms)));
        Shown { elsewhere: published && self.elsewhere().is_open_at(now_ms), regions: regions.collect() }
    }

    /// Until when those see it who see it now: 0 for nobody. Once for all other regions, once for each that is named.
    pub fn gone_ms(&self, shown: &Shown) -> (i64, Vec<(Region, i64)>) {
        let until = |shown: bool, window: &Window| match (shown, window.until) {
            (false, _) => 0,
            (true, None) => FOR_EVER_MS,
            (true, Some(until)) => until.as_millisecond(),
        };
        let regions = self.regions.iter().map(|(region, window)| (*region, until(shown.is_in(*region), window)));
        (until(shown.elsewhere, &self.elsewhere()), regions.collect())
    }

    /// Whether there are viewers who see it less long than they would have by what it was before.
    pub fn ends_sooner_than(&self, shown: &Shown, before: &Self, was: &Shown) -> bool {
        let until = |input: &Self, shown: &Shown| {
            let (elsewhere, regions) = input.gone_ms(shown);
            (elsewhere, regions.into_iter().collect::<BTreeMap<_, _>>())
        };
        let ((was_elsewhere, was), (is_elsewhere, is)) = (until(before, was), until(self, shown));
        let in_region =
            |elsewhere: i64, own: &BTreeMap<Region, i64>, region| own.get(region).copied().unwrap_or(elsewhere);
        is_elsewhere < was_elsewhere
            || was
                .keys()
                .chain(is.keys())
                .any(|region| in_region(is_elsewhere, &is, region) < in_region(was_elsewhere, &was, region))
    }

    /// The next moment after this at which somebody begins or ceases to see it.
    pub fn next_change_ms(&self, now_ms: i64) -> Option<i64> {
        if self.state == State::Draft {
            return None;
        }
        let windows = self.regions.values().copied().chain([self.elsewhere()]).filter(|window| !window.blocked);
        let publish = self.publish_at.filter(|_| self.state == State::Scheduled);
        let moments = windows.flat_map(|window| [window.from, window.until]).chain([publish]).flatten();
        moments.map(Timestamp::as_millisecond).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// As it is once the schedule has been there.
    pub fn due_at(&self, now_ms: i64) -> Self {
        let mut input = self.clone();
        if input.state == State::Scheduled && input.is_published_at(now_ms) {
            input.state = State::Published;
        }
        input
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonInput {
    pub name: String,
    #[serde(default)]
    pub biography: Option<String>,
    /// `YYYY-MM-DD`
    #[serde(default)]
    pub born: Option<String>,
    #[serde(default)]
    pub died: Option<String>,
    /// `synopsis` is the biography.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
    #[serde(default)]
    pub images: Vec<Image>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GenreInput {
    pub name: String,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CollectionInput {
    pub name: String,
    #[serde(default)]
    pub synopsis: Option<String>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
    /// Title ids in order; what is not seen is not shown.
    pub items: Vec<String>,
    #[serde(default)]
    pub images: Vec<Image>,
    #[serde(default)]
    pub state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Episode {
    pub id: String,
    pub number: i64,
    pub name: String,
    #[serde(default)]
    pub synopsis: Option<String>,
    #[serde(default)]
    pub runtime_min: Option<i64>,
    #[serde(default)]
    pub release_date: Option<String>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
    #[serde(default)]
    pub images: Vec<Image>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeasonInput {
    pub name: String,
    #[serde(default)]
    pub synopsis: Option<String>,
    #[serde(default)]
    pub year: Option<i64>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
    #[serde(default)]
    pub episodes: Vec<Episode>,
}

/// The id of a season's record.
pub fn season_id(series: &str, number: i64) -> String {
    format!("{series}/{number}")
}

/// By what a list is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SortBy {
    #[default]
    Name,
    Year,
    Rating,
    Added,
}

impl SortBy {
    pub const ALL: [Self; 4] = [Self::Name, Self::Year, Self::Rating, Self::Added];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Year => "year",
            Self::Rating => "rating",
            Self::Added => "added",
        }
    }

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }
}

/// What fills a rail behind its pinned items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Fill {
    /// Slug; without it, the whole catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genre: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TitleKind>,
    /// Highest first, but names from the beginning.
    pub sort: SortBy,
}

/// A row of titles on the home page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RailInput {
    pub title: String,
    pub position: i64,
    /// Pinned titles' ids in order; what is not seen is not shown.
    pub items: Vec<String>,
    /// `name` is the row's title.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Translation>)]
    pub translations: Translations,
    /// Where it is shown; everywhere when empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub regions: Vec<Region>,
    /// For viewers of these plans; for all when empty.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub plans: Vec<Plan>,
    /// For viewers who may see from this class …
    #[serde(default = "youngest")]
    #[schema(value_type = u8)]
    pub maturity_from: Maturity,
    /// … to this one.
    #[serde(default = "oldest")]
    #[schema(value_type = u8)]
    pub maturity_to: Maturity,
    #[serde(default)]
    pub fill: Option<Fill>,
    /// How many titles it shows at the most.
    #[serde(default = "rail_size")]
    pub size: i64,
    #[serde(default)]
    pub state: State,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub from: Option<Timestamp>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

fn youngest() -> Maturity {
    Maturity::All
}

fn oldest() -> Maturity {
    Maturity::From18
}

pub const RAIL_SIZE_DEFAULT: i64 = 12;

fn rail_size() -> i64 {
    RAIL_SIZE_DEFAULT
}

impl RailInput {
    pub fn of(title: impl Into<String>, position: i64, items: Vec<String>) -> Self {
        Self {
            title: title.into(),
            position,
            items,
            translations: Translations::new(),
            regions: Vec::new(),
            plans: Vec::new(),
            maturity_from: youngest(),
            maturity_to: oldest(),
            fill: None,
            size: RAIL_SIZE_DEFAULT,
            state: State::Published,
            from: None,
            until: None,
        }
    }

    fn window(&self) -> Window {
        Window { from: self.from, until: self.until, blocked: self.state == State::Draft }
    }

    pub fn shown_at(&self, now_ms: i64) -> bool {
        self.window().is_open_at(now_ms)
    }

    pub fn gone_ms(&self, shown: bool) -> i64 {
        if shown { self.until.map_or(FOR_EVER_MS, Timestamp::as_millisecond) } else { 0 }
    }

    pub fn next_change_ms(&self, now_ms: i64) -> Option<i64> {
        let moments = [self.from, self.until].into_iter().flatten().map(Timestamp::as_millisecond);
        moments.filter(|at_ms| self.state != State::Draft && *at_ms > now_ms).min()
    }
}

/// The part of a name that can stand in ids, keys and URLs: `a-z`, `0-9`, `-`.
pub fn slug(name: &str) -> String {
    let slug = slug::slugify(name);
    slug.chars().take(60).collect::<String>().trim_end_matches('-').to_string()
}

/// The order people expect in a list: articles at the front do not count, nor do case and accents.
pub fn sort_name(name: &str) -> String {
    let plain = slug::slugify(name).replace('-', " ");
    let stripped = ["the ", "a ", "an "].iter().find_map(|article| plain.strip_prefix(article));
    let sorted = stripped.filter(|rest| !rest.is_empty()).unwrap_or(&plain);
    if sorted.is_empty() { name.to_lowercase() } else { sorted.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records, the audit log and exports hold them for years: whoever renames a member has to bring along what is stored.
    #[test]
    fn records_are_stored_as_they_always_were() {
        fn check<T: Serialize + serde::de::DeserializeOwned>(text: &str) {
            let read: T = serde_json::from_str(text).unwrap();
            let text: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), text);
        }
        check::<TitleInput>(
            r#"{"kind":"series","name":"Dark","sort_name":"Dark","translations":{"de":{"name":"Dunkel","synopsis":"Winden."}},
            "year":2017,"release_date":"2017-12-01","synopsis":"A town.","maturity":"TV-MA","runtime_min":53,"rating":8.7,
            "votes":12,"distributor":"N","genres":["Drama"],
            "people":[{"id":"a-b","name":"A B","role":"actor","character":"C"}],
            "images":[{"kind":"poster","url":"/media/a.jpg","locale":"de"},{"kind":"backdrop","url":"/b"},
              {"kind":"still","url":"/s"},{"kind":"logo","url":"/l"},{"kind":"portrait","url":"/p"}],
            "state":"scheduled","publish_at":"2027-01-01T00:00:00Z","available_from":"2027-01-02T00:00:00Z",
            "available_until":"2028-01-01T00:00:00Z",
            "regions":{"US":{"from":"2027-02-01T00:00:00Z","until":"2027-03-01T00:00:00Z","blocked":true}}}"#,
        );
        check::<PersonInput>(
            r#"{"name":"A B","biography":"c","born":"1950-01-01","died":"2020-01-01",
            "translations":{"de":{"synopsis":"d"}},"images":[]}"#,
        );
        check::<GenreInput>(r#"{"name":"Crime","translations":{"de":{"name":"Krimi"}}}"#);
        check::<CollectionInput>(
            r#"{"name":"n","synopsis":"s","translations":{},"items":["dark"],"images":[],"state":"draft"}"#,
        );
        check::<SeasonInput>(
            r#"{"name":"Season 1","synopsis":"s","year":2017,"translations":{},"episodes":[{"id":"dark-1-1","number":1,
            "name":"Secrets","synopsis":"s","runtime_min":51,"release_date":"2017-12-01","translations":{},"images":[]}]}"#,
        );
        check::<RailInput>(
            r#"{"title":"New","position":3,"items":["dark"],"translations":{"de":{"name":"Neu"}},"regions":["US"],
            "plans":["basic"],"maturity_from":7,"maturity_to":16,"fill":{"genre":"drama","kind":"film","sort":"added"},
            "size":20,"state":"published","from":"2027-01-01T00:00:00Z","until":"2028-01-01T00:00:00Z"}"#,
        );
    }

    #[test]
    fn slugs_are_plain_and_short() {
        assert_eq!(slug("Amélie: le fabuleux destin!"), "amelie-le-fabuleux-destin");
        assert!(slug(&"x ".repeat(200)).len() <= 60);
        assert_eq!(slug("???"), "");
    }

    #[test]
    fn a_window_opens_inclusively_and_closes_exclusively() {
        let mut input = crate::catalog::validate::title(&serde_json::json!({"name": "Heat",
            "available_from": "1970-01-01T00:00:10Z", "available_until": "1970-01-01T00:00:20+00:00"}))
        .unwrap();
        let at = |ms| (input.shown_at(ms).anywhere(), input.next_change_ms(ms));
        assert_eq!([at(9_999), at(10_000)], [(false, Some(10_000)), (true, Some(20_000))]);
        assert_eq!([at(19_999), at(20_000)], [(true, Some(20_000)), (false, None)]);
        input.state = State::Draft;
        assert_eq!((input.shown_at(15_000).anywhere(), input.next_change_ms(15_000)), (false, None));
    }

    #[test]
    fn a_region_with_a_window_of_its_own_goes_by_that_alone() {
        let input = crate::catalog::validate::title(&serde_json::json!({"name": "Heat",
            "available_until": "1970-01-01T00:00:20Z",
            "regions": {"DE": {"from": "1970-01-01T00:00:30Z"}, "US": {"blocked": true}}}))
        .unwrap();
        let (de, us) = ("DE".parse().unwrap(), "US".parse().unwrap());
        let at = |ms: i64| {
            let shown = input.shown_at(ms);
            (shown.elsewhere, shown.is_in(de), shown.is_in(us), input.next_change_ms(ms))
        };
        assert_eq!(at(0), (true, false, false, Some(20_000)));
        assert_eq!(at(20_000), (false, false, false, Some(30_000)));
        assert_eq!(at(30_000), (false, true, false, None));
        let (before, after) = (input.shown_at(0), input.shown_at(30_000));
        assert!(before.changes_to(&after) && before.narrows_to(&after) && after.narrows_to(&before));
        assert_eq!(input.gone_ms(&before), (20_000, vec![(de, 0), (us, 0)]));
    }

    #[test]
    fn what_is_scheduled_is_published_at_its_time() {
        let input = crate::catalog::validate::title(&serde_json::json!({"name": "Heat", "state": "scheduled",
            "publish_at": "1970-01-01T00:00:10Z"}))
        .unwrap();
        assert_eq!((input.shown_at(9_999).anywhere(), input.next_change_ms(9_999)), (false, Some(10_000)));
        assert!(input.shown_at(10_000).anywhere());
        assert_eq!((input.due_at(9_999).state, input.due_at(10_000).state), (State::Scheduled, State::Published));
    }

    #[test]
    fn articles_do_not_count_in_order() {
        assert_eq!(sort_name("The Matrix"), "matrix");
        assert_eq!(sort_name("A"), "a");
        assert_eq!(sort_name("Éclair"), "eclair");
        assert_eq!(sort_name("???"), "???");
    }
}
