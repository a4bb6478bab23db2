//! Files of the old system, as they come: what is within a document arrives in the catalogue, what does not is in the report.
mod common;

use common::{Database, Service};
use origin::catalog::model::{Episode, ImageKind, SeasonInput, Title};
use origin::import::{self, Batch, Count, Report, mongo::Mapping};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mongo").join(name)
}

fn read(name: &str, mapping: &Mapping) -> Batch {
    let path = file(name);
    import::read_collection(&path, &std::fs::read_to_string(&path).unwrap(), None, mapping).unwrap()
}

async fn imported(name: &str, mapping: &Mapping) -> (Service, Report) {
    let service = Service::over(Database::fresh()).await;
    let report = import::write(&service.app.store, read(name, mapping), |_| {}).await.unwrap();
    (service, report)
}

async fn title(service: &Service, id: &str) -> Title {
    service.app.store.snapshot().await.unwrap().title(id).await.unwrap().unwrap()
}

async fn seasons(service: &Service, id: &str) -> Vec<(i64, SeasonInput)> {
    let seasons = service.app.store.snapshot().await.unwrap().seasons(id).await.unwrap();
    seasons.into_iter().map(|(number, season)| (number, season.input)).collect()
}

fn counts(of: &BTreeMap<impl AsRef<str>, Count>) -> Vec<(&str, usize)> {
    of.iter().map(|(what, count)| (what.as_ref(), count.count)).collect()
}

#[tokio::test]
async fn a_series_comes_with_its_seasons_and_episodes() {
    let (service, report) = imported("series.json", &Mapping::default()).await;
    let dark = seasons(&service, "dark").await;
    let names: Vec<_> = dark.iter().map(|(number, season)| (*number, season.name.as_str(), season.year)).collect();
    assert_eq!(names, [(1, "Season One", Some(2017)), (2, "Season 2", None)]);
    let [first, second] = &dark[0].1.episodes[..] else { panic!("{dark:?}") };
    let de = "de".parse().unwrap();
    let Episode { id, name, runtime_min, release_date, translations, images, .. } = first;
    assert_eq!((id.as_str(), name.as_str()), ("573a1390f29313caabcd5001", "Secrets"));
    assert_eq!((*runtime_min, release_date.as_deref()), (Some(51), Some("2017-12-01")));
    assert_eq!(translations[&de].name.as_deref(), Some("Geheimnisse"));
    assert_eq!((images[0].kind, images[0].url.as_str()), (ImageKind::Still, "https://img.example/s1e1.jpg"));
    // Without an id of its own it has one that no other series' episode has.
    assert_eq!((second.id.as_str(), second.name.as_str()), ("dark-1-2", "Episode 2"));
    assert_eq!(dark[1].1.episodes.len(), 1);
    let berlin: Vec<_> = seasons(&service, "573a1390f29313caabcd4002").await;
    let names: Vec<_> = berlin.iter().map(|(number, season)| (*number, season.name.as_str())).collect();
    assert_eq!(names, [(1, "Eins"), (2, "Zwei")], "an object of numbers does as well as a list");
    assert_eq!(report.others_written, 4);
    for reason in ["season without a number", "episode without a number"] {
        assert_eq!(report.refused[reason].count, 1, "{reason}");
    }
    let again = import::write(&service.app.store, read("series.json", &Mapping::default()), |_| {}).await.unwrap();
    assert_eq!((again.others_written, again.updated, again.purges), (0, 0, 0), "again: nothing is new");
}

#[tokio::test]
async fn what_is_said_in_other_languages_and_shown_of_a_title_is_taken_over() {
    let (service, report) = imported("series.json", &Mapping::default()).await;
    let dark = title(&service, "dark").await.input;
    let said: Vec<_> = dark.translations.iter().map(|(locale, said)| (locale.as_str(), said.name.as_deref())).collect();
    assert_eq!(said, [("de", Some("Dark")), ("fr", Some("Obscur"))]);
    let image = |n: usize| (dark.images[n].kind, dark.images[n].url.as_str(), dark.images[n].locale.is_some());
    assert_eq!(image(0), (ImageKind::Poster, "https://img.example/dark.jpg", false));
    assert_eq!(image(1), (ImageKind::Backdrop, "https://img.example/dark-wide.jpg", false));
    assert_eq!(image(2), (ImageKind::Logo, "https://img.example/dark-de.png", true));
    assert_eq!(dark.images.len(), 3);
    for (reason, count) in [
        ("a language of one country; taken for the language", 2),
        ("no language; what is said in it is left out", 1),
        ("an image of another kind; left out", 1),
        ("an image without an https address; left out", 1),
    ] {
        assert_eq!(report.mended[reason].count, count, "{reason}");
    }
}

#[tokio::test]
async fn windows_of_regions_are_taken_over_and_one_that_cannot_be_read_refuses_its_document() {
    let (service, report) = imported("series.json", &Mapping::default()).await;
    let (de, us, gb) = ("DE".parse().unwrap(), "US".parse().unwrap(), "GB".parse().unwrap());
    let dark = title(&service, "dark").await;
    assert!(dark.input.regions[&us].blocked && !dark.shown.is_in(us) && dark.shown.is_in(de));
    assert_eq!(dark.input.regions[&de].until.unwrap().to_string(), "2030-01-01T00:00:00Z");
    let berlin = title(&service, "573a1390f29313caabcd4002").await;
    assert!(!berlin.shown.is_in(us) && !berlin.shown.is_in(gb) && berlin.shown.is_in(de));
    let faults = &report.refused["document with faults"];
    assert_eq!((faults.count, report.created), (3, 2), "{faults:?}");
    assert!(faults.examples.iter().all(|example| example.contains("/regions")), "{faults:?}");
}

#[tokio::test]
async fn fields_that_become_nothing_are_counted_by_their_place() {
    let (_, report) = imported("series.json", &Mapping::default()).await;
    let expected = [
        ("__v", 1),
        ("availability[].licence", 1),
        ("awards", 2),
        ("cast[].as", 1),
        ("genres[].weight", 1),
        ("imdb.id", 1),
        ("regions", 1),
        ("seasons[].episodes[].director", 1),
        ("seasons[].trailer", 1),
        ("translations.*.tagline", 1),
    ];
    assert_eq!(counts(&report.left_out), expected);
    assert_eq!(report.left_out["awards"].examples, ["document 1", "document 2"]);
    let said = report.to_string();
    assert!(said.contains("left out    2  awards (such as in document 1; document 2)"), "{said}");
}

#[tokio::test]
async fn a_mapping_says_where_parts_stand_and_is_told_what_they_cannot_have() {
    let mapping = Mapping::read(&std::fs::read_to_string(file("serien-mapping.json")).unwrap()).unwrap();
    let (service, report) = imported("serien.json", &mapping).await;
    let tatort = title(&service, "tatort").await.input;
    let urls: Vec<_> = tatort.images.iter().map(|image| image.url.as_str()).collect();
    assert_eq!(urls, ["/media/tatort.jpg", "/media/logo.png"]);
    assert_eq!(tatort.translations[&"en".parse().unwrap()].synopsis.as_deref(), Some("A corpse."));
    assert!(tatort.regions[&"AT".parse().unwrap()].blocked);
    let seasons = seasons(&service, "tatort").await;
    assert_eq!((seasons[0].0, seasons[0].1.episodes[0].images[0].url.as_str()), (1970, "/media/taxi.jpg"));
    let left = ["bild.breit", "bilder[].breite", "inhalt.staffeln[].folgen[].ort", "sprachen.*.von"];
    assert_eq!(counts(&report.left_out), left.map(|place| (place, 1)));
    for (wrong, named) in [
        (r#"{"a":{"becomes":"films","fields":{},"seasons":{"at":["s"]}}}"#, "films have no seasons"),
        (r#"{"a":{"becomes":"viewers","fields":{},"images":{"at":["s"]}}}"#, "viewers have no"),
        (
            r#"{"a":{"becomes":"series","fields":{},"regions":{"fields":{"colour":["c"]}}}}"#,
            "regions have no field colour",
        ),
        (
            r#"{"a":{"becomes":"series","fields":{},"seasons":{"episodes":{"fields":{"votes":["v"]}}}}}"#,
            "episodes have no field votes",
        ),
    ] {
        let error = Mapping::read(wrong).unwrap_err();
        assert!(error.contains(named), "{wrong}: {error}");
    }
}

/// Of one film with these fields besides its name.
fn film(fields: &str) -> Batch {
    let text = format!(r#"{{"_id":"film","title":"Film",{fields}}}"#);
    import::mongo::read(&text, "movies", &Mapping::default()).unwrap()
}

#[test]
fn rights_that_cannot_be_read_refuse_their_title_whatever_their_form() {
    for fields in [
        // Regions by themselves.
        r#""blockedRegions":[{"code":"US"}]"#,
        r#""blockedRegions":["US",{"code":"GB"}]"#,
        r#""blockedRegions":{"US":true}"#,
        r#""blockedRegions":[840]"#,
        r#""blockedRegions":840"#,
        r#""blockedRegions":true"#,
        r#""blockedRegions":["US",null]"#,
        r#""blockedRegions":[["US"]]"#,
        r#""blockedRegions":{"$numberDouble":"NaN"}"#,
        r#""blockedRegions":["US"],"blockedCountries":[840]"#,
        // Windows.
        r#""availability":"DE""#,
        r#""availability":true"#,
        r#""availability":{"US":null}"#,
        r#""availability":[null]"#,
        r#""availability":[{"country":["US"],"blocked":true}]"#,
        r#""availability":{"$numberInt":"x"}"#,
        r#""regions":[],"availability":"DE""#,
        r#""regions":{"US":{"blocked":true}},"availability":{"US":{"blocked":false}}"#,
        r#""availability":{"US":{"from":[{"day":1}]}}"#,
        r#""availability":{"US":{"from":{"$date":"9999-12-31T00:00:00Z"}}}"#,
        r#""availability":{"US":{"until":{"$date":{"$numberLong":"9223372036854775807"}}}}"#,
        r#""availability":{"US":{"blocked":{"$code":"true"}}}"#,
        // The title's own.
        r#""availableFrom":{"$date":"9999-12-31T00:00:00Z"}"#,
        r#""availableUntil":{"$date":"soon"}"#,
        r#""availableFrom":{"$timestamp":{"t":1,"i":1}}"#,
        r#""availableFrom":[{"day":1}]"#,
    ] {
        let batch = film(fields);
        assert!(batch.titles.is_empty(), "{fields}: {:?}", batch.titles);
        assert_eq!(counts(&batch.report.refused), [("document with faults", 1)], "{fields}");
    }
}

#[test]
fn rights_of_all_places_count() {
    for (fields, blocked) in [
        (r#""regions":[],"availability":[{"country":"US","blocked":true}]"#, "US"),
        (r#""regions":null,"availability":{"us":{"blocked":true}}"#, "US"),
        (r#""regions":{"GB":{"blocked":true}},"availability":[{"country":"US","blocked":true}]"#, "GB US"),
        (r#""regions":{"US":{"blocked":true}},"availability":[{"country":"US","blocked":true}]"#, "US"),
        (r#""blockedRegions":[],"blockedCountries":["US"]"#, "US"),
        (r#""blockedRegions":"GB","blockedCountries":"us, GB""#, "GB US"),
        (r#""blockedRegions":null,"availability":null"#, ""),
        (r#""blockedRegions":"","availability":{}"#, ""),
    ] {
        let batch = film(fields);
        let [(_, film)] = &batch.titles[..] else { panic!("{fields}: {:?}", batch.report) };
        let regions: Vec<_> =
            film.regions.iter().map(|(region, window)| (region.to_string(), window.blocked)).collect();
        let expected: Vec<_> = blocked.split_whitespace().map(|region| (region.to_string(), true)).collect();
        assert_eq!(regions, expected, "{fields}");
    }
}

#[test]
fn what_cannot_be_read_and_decides_nothing_is_dropped() {
    let fields = r#""imdb":{"rating":{"$numberDouble":"NaN"},"votes":{"$numberLong":"x"}},
        "released":{"$date":"9999-12-31T00:00:00Z"},"year":{"$undefined":true},"genres":["Drama",{"$minKey":1}]"#;
    let batch = film(&fields.replace('\n', ""));
    let (_, film) = &batch.titles[0];
    assert_eq!((film.rating, film.votes, film.release_date.as_deref(), film.year), (None, None, None, None));
    assert_eq!(film.genres, ["Drama"]);
    assert!(batch.report.left_out.is_empty(), "{:?}", batch.report);
}

#[test]
fn a_mapping_reaches_blocked_regions_within_a_list() {
    let mapping = r#"{"filme":{"becomes":"films","fields":{"id":["id"],"name":["name"],"blocked_regions":["rights.blocked[].code"],
        "available_from":["rights.from"]}}}"#;
    let mapping = Mapping::read(mapping).unwrap();
    let read = |rights: &str| {
        let text = format!(r#"{{"id":"film","name":"Film","rights":{rights}}}"#);
        import::mongo::read(&text, "filme", &mapping).unwrap()
    };
    let batch = read(r#"{"blocked":[{"code":"US"},{"code":"gb"}],"from":{"$date":"2030-01-01T00:00:00Z"}}"#);
    assert_eq!(batch.titles[0].1.regions.len(), 2);
    assert!(batch.titles[0].1.available_from.is_some());
    assert!(read("{}").titles[0].1.regions.is_empty());
    for rights in [
        r#"{"blocked":[{"code":"US"},{"name":"GB"}]}"#,
        r#"{"blocked":["US"]}"#,
        r#"{"blocked":{"code":"US"}}"#,
        r#"["US"]"#,
        r#""none""#,
    ] {
        assert!(read(rights).titles.is_empty(), "{rights}");
    }
}

#[test]
fn countries_are_taken_by_their_names_of_iso_3166() {
    for (fields, blocked) in [
        (r#""blockedRegions":["UK","el","DE"]"#, ["DE", "GB", "GR"].as_slice()),
        (r#""availability":{"uk":{"blocked":true}}"#, &["GB"]),
        (r#""availability":[{"country":"EL","blocked":true}]"#, &["GR"]),
        (r#""blockedRegions":"GB, UK""#, &["GB"]),
    ] {
        let batch = film(fields);
        let [(_, film)] = &batch.titles[..] else { panic!("{fields}: {:?}", batch.report) };
        assert!(film.regions.values().all(|window| window.blocked), "{fields}");
        let regions: Vec<_> = film.regions.keys().map(|region| region.to_string()).collect();
        assert_eq!(regions, blocked, "{fields}");
        let mended = counts(&batch.report.mended);
        assert_eq!(mended.len(), 1, "{fields}: {mended:?}");
        assert!(mended[0].0.contains("ISO 3166"), "{fields}: {mended:?}");
    }
    for fields in [
        r#""blockedRegions":["DE","EU"]"#,
        r#""blockedRegions":"QQ""#,
        r#""availability":{"XX":{"blocked":true}}"#,
        // Two windows for one country contradict each other.
        r#""availability":{"UK":{"blocked":true},"GB":{"blocked":false}}"#,
    ] {
        let batch = film(fields);
        assert!(batch.titles.is_empty(), "{fields}: {:?}", batch.titles);
        assert_eq!(counts(&batch.report.refused), [("document with faults", 1)], "{fields}");
    }
}

#[tokio::test]
async fn imported_again_after_their_time_titles_are_what_they_were() {
    let service = Service::over(Database::fresh()).await;
    let past = "2020-01-31T22:00:00.123456789Z";
    let lines = format!(
        r#"{{"type":"title","id":"heat","name":"Heat","state":"scheduled","publish_at":"{past}"}}
{{"type":"title","id":"up","name":"Up","available_from":"{past}","available_until":"2099-01-31T22:00:00.0009Z","regions":{{"DE":{{"from":"{past}"}}}}}}
{{"type":"rail","id":"top","title":"Top","position":1,"items":["heat"],"from":"{past}"}}"#
    );
    import::text(&service.app.store, &lines).await.unwrap();
    origin::schedule::turn(&service.app.store).await.unwrap();
    let before = service.app.store.snapshot().await.unwrap().as_of;
    assert!(title(&service, "heat").await.visible);
    let again = import::text(&service.app.store, &lines).await.unwrap();
    assert_eq!((again.unchanged, again.updated, again.purges), (2, 0, 0), "{again}");
    assert_eq!(service.app.store.snapshot().await.unwrap().as_of, before);
}

#[tokio::test]
async fn names_of_viewers_are_such_as_they_could_choose_themselves() {
    let users = concat!(
        r#"{"_id":"a","email":"a@example.org","name":"A\u0000da\tL"}"#,
        "\n",
        r#"{"_id":"b","email":"b@example.org","name":"NNN"}"#,
        "\n",
        r#"{"_id":"c","email":"c@example.org","name":" Grace "}"#
    );
    let users = users.replace("NNN", &"é".repeat(90));
    let batch = import::mongo::read(&users, "users", &Mapping::default()).unwrap();
    assert_eq!(batch.report.mended["a name that nobody could choose; mended"].examples, ["a", "b"]);
    let service = Service::over(Database::fresh()).await;
    let report = import::write(&service.app.store, batch, |_| {}).await.unwrap();
    assert_eq!(report.viewers_created, 3, "{report}");
    let listed = common::text(service.call("GET", "/admin/v1/users", "").await).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Ada L", &"é".repeat(80), "Grace"]);
}
