//! What viewers are shown: the rails that are for them now, their language, and only titles they may see.
use super::{ANYBODY, Catalogue, faults, ids_of, in_s};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// A rail of one title, with something more said of it.
async fn rail(catalogue: &Catalogue, id: &str, more: Value) {
    let mut body = json!({"title": id, "position": 1, "items": ["heat"]});
    origin::catalog::validate::merge_patch(&mut body, &more);
    catalogue.put(&format!("rails/{id}"), body).await;
}

async fn with_heat() -> Catalogue {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/heat", json!({"name": "Heat", "maturity": "G"})).await;
    catalogue
}

#[tokio::test]
async fn a_rail_is_shown_within_its_time_and_not_as_a_draft() {
    let catalogue = with_heat().await;
    rail(&catalogue, "now", json!({"from": in_s(-60), "until": in_s(3_600)})).await;
    rail(&catalogue, "open", json!({})).await;
    rail(&catalogue, "later", json!({"from": in_s(3_600)})).await;
    rail(&catalogue, "over", json!({"from": in_s(-7_200), "until": in_s(-3_600)})).await;
    rail(&catalogue, "draft", json!({"state": "draft"})).await;
    rail(&catalogue, "scheduled", json!({"state": "scheduled", "from": in_s(3_600)})).await;
    assert_eq!(catalogue.rail_ids(ANYBODY).await, ["now", "open"]);
}

#[tokio::test]
async fn a_rail_is_shown_in_its_regions_to_its_plans_and_its_ages_alone() {
    let catalogue = with_heat().await;
    rail(&catalogue, "all", json!({"position": 0})).await;
    rail(&catalogue, "de", json!({"regions": ["DE", "AT"]})).await;
    rail(&catalogue, "premium", json!({"plans": ["premium"]})).await;
    rail(&catalogue, "kids", json!({"maturity_to": 7})).await;
    rail(&catalogue, "adults", json!({"maturity_from": 18})).await;
    rail(&catalogue, "both", json!({"regions": ["DE"], "plans": ["premium"], "maturity_from": 13})).await;
    for (viewer, expected) in [
        (["ZZ", "en", "18", "none"], vec!["all", "adults"]),
        (["DE", "en", "16", "none"], vec!["all", "de"]),
        (["AT", "en", "7", "basic"], vec!["all", "de", "kids"]),
        (["DE", "en", "18", "premium"], vec!["all", "adults", "both", "de", "premium"]),
        (["DE", "en", "7", "premium"], vec!["all", "de", "kids", "premium"]),
        (["US", "en", "13", "premium"], vec!["all", "premium"]),
    ] {
        assert_eq!(catalogue.rail_ids(viewer).await, expected, "{viewer:?}");
    }
}

#[tokio::test]
async fn rails_stand_by_position_and_pinned_titles_before_what_fills_the_rest() {
    let catalogue = with_heat().await;
    for (id, rating) in [("a", 5), ("b", 9), ("c", 7)] {
        catalogue.put(&format!("titles/{id}"), json!({"name": id, "rating": rating, "genres": ["War"]})).await;
    }
    rail(&catalogue, "second", json!({"position": 2, "items": ["heat", "c"]})).await;
    let fill = json!({"position": 1, "items": ["a"], "size": 3, "fill": {"sort": "rating", "genre": "war"}});
    rail(&catalogue, "first", fill).await;
    let row = |id: &str, items: &[&str]| (id.to_string(), items.iter().map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(catalogue.rails(ANYBODY).await, [row("first", &["a", "b", "c"]), row("second", &["heat", "c"])]);
}

#[tokio::test]
async fn a_rail_shows_no_title_its_viewer_may_not_see_and_none_is_no_rail() {
    let catalogue = with_heat().await;
    catalogue.put("titles/adult", json!({"name": "Adult", "maturity": "NC-17"})).await;
    catalogue.put("titles/not-us", json!({"name": "N", "maturity": "G", "regions": {"US": {"blocked": true}}})).await;
    rail(&catalogue, "mixed", json!({"items": ["adult", "not-us", "nobody", "heat"]})).await;
    rail(&catalogue, "only-adult", json!({"position": 2, "items": ["adult"]})).await;
    let shown = catalogue.rails(["US", "en", "13", "none"]).await;
    assert_eq!(shown, [("mixed".to_string(), vec!["heat".to_string()])]);
}

#[tokio::test]
async fn what_is_not_said_in_a_viewers_language_is_said_in_the_original() {
    let catalogue = Catalogue::start().await;
    let said = json!({"name": "Heat", "synopsis": "A thief.", "genres": ["Crime"],
        "translations": {"de": {"name": "Hitze"}, "fr": {"synopsis": "Un voleur."}},
        "images": [{"kind": "poster", "url": "/media/plain"}, {"kind": "poster", "url": "/media/de", "locale": "de"}]});
    catalogue.put("titles/heat", said).await;
    catalogue.edit("PATCH", "genres/crime", json!({"translations": {"de": {"name": "Krimi"}}})).await;
    for (locale, name, synopsis, poster, genre) in [
        ("en", "Heat", "A thief.", "/media/plain", "Crime"),
        ("de", "Hitze", "A thief.", "/media/de", "Krimi"),
        ("fr", "Heat", "Un voleur.", "/media/plain", "Crime"),
        ("ja", "Heat", "A thief.", "/media/plain", "Crime"),
    ] {
        let viewer = ["ZZ", locale, "18", "none"];
        let page = catalogue.shown("/v1/titles/heat", viewer).await;
        assert_eq!((&page["name"], &page["synopsis"]), (&json!(name), &json!(synopsis)), "{locale}");
        assert_eq!((&page["poster"], &page["genres"][0]["name"]), (&json!(poster), &json!(genre)), "{locale}");
        assert_eq!(catalogue.shown("/v1/catalog", viewer).await["items"][0]["name"], name, "{locale}");
        assert_eq!(catalogue.shown("/v1/genres", viewer).await["genres"][0]["name"], genre, "{locale}");
    }
}

#[tokio::test]
async fn a_season_page_has_its_episodes_in_order_and_is_there_for_who_may_see_the_series() {
    let catalogue = Catalogue::start().await;
    let wire = json!({"name": "The Wire", "kind": "series", "maturity": "TV-MA", "regions": {"US": {"blocked": true}}});
    catalogue.put("titles/wire", wire).await;
    let episode = |id: &str, number: i64| {
        json!({"id": id, "number": number, "name": format!("No. {number}"),
        "translations": {"de": {"name": format!("Nr. {number}")}}})
    };
    let season = json!({"name": "One", "episodes": [episode("w2", 2), episode("w1", 1)]});
    catalogue.put("series/wire/seasons/1", season).await;
    catalogue.put("series/wire/seasons/10", json!({"name": "Ten"})).await;
    catalogue.put("series/wire/seasons/2", json!({"name": "Two"})).await;
    let page = catalogue.shown("/v1/series/wire/seasons/1", ["ZZ", "de", "18", "none"]).await;
    assert_eq!((&page["series"]["name"], &page["name"]), (&json!("The Wire"), &json!("One")));
    assert_eq!((&page["episodes"][0]["name"], &page["episodes"][1]["name"]), (&json!("Nr. 1"), &json!("Nr. 2")));
    let series = catalogue.shown("/v1/series/wire", ANYBODY).await;
    let numbers: Vec<i64> =
        series["seasons"].as_array().unwrap().iter().map(|season| season["number"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 10]);
    for path in ["/v1/series/wire", "/v1/series/wire/seasons/1"] {
        for viewer in [["US", "en", "18", "none"], ["ZZ", "en", "16", "none"]] {
            assert_eq!(catalogue.page(path, viewer).await.status, StatusCode::NOT_FOUND, "{path} {viewer:?}");
        }
    }
    for path in ["/v1/series/wire/seasons/3", "/v1/series/wire/seasons/01", "/v1/series/nobody/seasons/1"] {
        assert_eq!(catalogue.page(path, ANYBODY).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    catalogue.edit("PATCH", "titles/wire", json!({"state": "draft"})).await;
    assert_eq!(catalogue.page("/v1/series/wire/seasons/1", ANYBODY).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_film_has_no_series_page_and_no_seasons() {
    let catalogue = with_heat().await;
    assert_eq!(catalogue.page("/v1/series/heat", ANYBODY).await.status, StatusCode::NOT_FOUND);
    let put = catalogue.staff_asks("ed", "PUT", "series/heat/seasons/1", &json!({"name": "One"}), &[]).await;
    assert_eq!(put.status.as_u16(), 422, "{put:?}");
}

/// Titles of Ann's, each seen by another few.
async fn of_ann() -> Catalogue {
    let catalogue = Catalogue::start().await;
    for (id, year, more) in [
        ("old", 1990, json!({})),
        ("new", 2020, json!({})),
        ("adult", 2010, json!({"maturity": "NC-17"})),
        ("not-us", 2000, json!({"regions": {"US": {"blocked": true}}})),
        ("draft", 2021, json!({"state": "draft"})),
        ("late", 2022, json!({"available_until": in_s(-60)})),
    ] {
        let mut body = json!({"name": id, "year": year, "maturity": "G", "genres": ["War"],
            "people": [{"name": "Ann", "role": "actor", "character": "X"}]});
        origin::catalog::validate::merge_patch(&mut body, &more);
        catalogue.put(&format!("titles/{id}"), body).await;
    }
    while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
    catalogue
}

#[tokio::test]
async fn a_persons_page_shows_newest_first_the_titles_its_viewer_may_see_and_no_other() {
    let catalogue = of_ann().await;
    for (viewer, expected) in [
        (["ZZ", "en", "18", "none"], vec!["new", "adult", "not-us", "old"]),
        (["US", "en", "18", "none"], vec!["new", "adult", "old"]),
        (["US", "en", "7", "none"], vec!["new", "old"]),
    ] {
        let page = catalogue.shown("/v1/people/ann", viewer).await;
        let ids: Vec<&str> =
            page["credits"].as_array().unwrap().iter().map(|part| part["title"]["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{viewer:?}");
        assert!(!page.to_string().contains("draft") && !page.to_string().contains("late"), "{page}");
    }
}

#[tokio::test]
async fn a_title_too_old_for_a_persons_page_purges_it_when_it_becomes_newer() {
    let catalogue = Catalogue::start().await;
    let title = |n: i64| {
        let people = json!([{"name": "Ann", "role": "actor"}]);
        json!({"type": "title", "id": format!("t{n}"), "name": "T", "year": 1800 + n, "people": people}).to_string()
    };
    // A page shows 200 of them.
    let lines: Vec<String> = (100..301).map(title).collect();
    let report = origin::import::text(&catalogue.app.store, &lines.join("\n")).await.unwrap();
    assert_eq!(report.created, 201, "{report}");
    let page = catalogue.page("/v1/people/ann", ANYBODY).await;
    assert_eq!(page.json()["credits"].as_array().unwrap().len(), 200);
    assert!(!page.body.contains("\"t100\""), "the oldest is not shown");
    catalogue.edit("PATCH", "titles/t100", json!({"year": 2101})).await;
    let purge = catalogue.last_purge().await;
    let carries = |key: &str| page.header("surrogate-key").split(' ').any(|carried| carried == key);
    assert!(purge.keys.iter().any(|key| carries(key.as_str())), "{:?}", purge.keys);
    let page = catalogue.shown("/v1/people/ann", ANYBODY).await;
    assert_eq!(page["credits"][0]["title"]["id"], "t100");
}

#[tokio::test]
async fn similar_titles_are_those_that_share_something_and_may_be_seen() {
    let catalogue = of_ann().await;
    catalogue.put("titles/stranger", json!({"name": "Stranger", "genres": ["Comedy"], "maturity": "G"})).await;
    while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
    let path = "/v1/titles/new/similar";
    assert_eq!(catalogue.ids(path, ["US", "en", "7", "none"]).await, ["old"]);
    let mut all = catalogue.ids(path, ANYBODY).await;
    all.sort_unstable();
    assert_eq!(all, ["adult", "not-us", "old"]);
    assert!(catalogue.ids("/v1/titles/stranger/similar", ANYBODY).await.is_empty());
    for path in ["/v1/titles/adult/similar", "/v1/titles/draft/similar", "/v1/titles/nobody/similar"] {
        assert_eq!(catalogue.page(path, ["ZZ", "en", "13", "none"]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn sharing_a_person_comes_before_sharing_a_genre_among_similar_titles() {
    let catalogue = Catalogue::start().await;
    let title =
        |genre: &str, who: &str| json!({"name": who, "genres": [genre], "people": [{"name": who, "role": "actor"}]});
    catalogue.put("titles/heat", title("Crime", "Ann")).await;
    catalogue.put("titles/same-genre", title("Crime", "Bob")).await;
    catalogue.put("titles/same-person", title("War", "Ann")).await;
    while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
    assert_eq!(catalogue.ids("/v1/titles/heat/similar", ANYBODY).await, ["same-person", "same-genre"]);
}

/// Reads a whole list by cursor, doing something to the catalogue after each page.
async fn walked(catalogue: &Catalogue, query: &str, mut between: impl AsyncFnMut(&Catalogue, usize)) -> Vec<String> {
    let mut seen = Vec::new();
    let mut path = format!("/v1/catalog?limit=2&{query}");
    for page_no in 0..20 {
        let page = catalogue.shown(&path, ANYBODY).await;
        seen.extend(ids_of(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { return seen };
        path = format!("/v1/catalog?limit=2&{query}&cursor={cursor}");
        between(catalogue, page_no).await;
    }
    panic!("{query} never ends: {seen:?}");
}

/// Names, years, ratings and the order they were added in agree. Ratings have thirds; two share each.
async fn six() -> Catalogue {
    let catalogue = Catalogue::start().await;
    for n in 0..6 {
        let rating = 1.1 + f64::from(n / 2) / 3.0;
        let body = json!({"name": format!("M{n}"), "year": 1990 + n / 2, "rating": rating, "genres": ["War"]});
        catalogue.put(&format!("titles/t{n}"), body).await;
    }
    catalogue
}

#[tokio::test]
async fn every_order_of_the_catalogue_has_each_title_once_over_its_pages() {
    let catalogue = six().await;
    let up: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
    let down: Vec<String> = up.iter().rev().cloned().collect();
    for sort in ["name", "year", "rating", "added"] {
        assert_eq!(walked(&catalogue, &format!("sort={sort}"), async |_, _| {}).await, up, "{sort}");
        assert_eq!(walked(&catalogue, &format!("genre=war&sort=-{sort}"), async |_, _| {}).await, down, "-{sort}");
    }
}

#[tokio::test]
async fn titles_inserted_edited_or_deleted_between_pages_move_no_other_in_the_list() {
    for sort in ["name", "-name", "year", "-rating"] {
        let catalogue = six().await;
        let seen = walked(&catalogue, &format!("sort={sort}"), async |catalogue, page_no| {
            // What stands before the place that is reached, on either way, is put there, edited and taken away.
            let (first, year) = if sort.starts_with('-') { ("Z", 2020) } else { ("A", 1900) };
            let rating = if sort.starts_with('-') { 9.9 } else { 0.1 };
            let body = json!({"name": format!("{first}{page_no}"), "year": year, "rating": rating});
            catalogue.put(&format!("titles/new-{page_no}"), body).await;
            let shown = if sort.starts_with('-') { "t5" } else { "t0" };
            if page_no == 0 {
                catalogue.edit("PATCH", &format!("titles/{shown}"), json!({"synopsis": "Another."})).await;
            } else {
                catalogue.edit("DELETE", &format!("titles/{shown}"), Value::Null).await;
            }
        })
        .await;
        let mut expected: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
        if sort.starts_with('-') {
            expected.reverse();
        }
        assert_eq!(seen, expected, "{sort}");
    }
}

#[tokio::test]
async fn a_cursor_outlives_the_title_it_was_made_at() {
    let catalogue = six().await;
    let page = catalogue.shown("/v1/catalog?limit=2", ANYBODY).await;
    catalogue.edit("DELETE", "titles/t1", Value::Null).await;
    let next = format!("/v1/catalog?limit=2&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(catalogue.ids(&next, ANYBODY).await, ["t2", "t3"]);
}

#[tokio::test]
async fn a_cursor_of_another_list_or_made_up_is_refused() {
    let catalogue = six().await;
    let page = catalogue.shown("/v1/catalog?limit=2&sort=year", ANYBODY).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    for query in [
        format!("sort=-year&cursor={cursor}"),
        format!("sort=name&cursor={cursor}"),
        format!("sort=year&genre=war&cursor={cursor}"),
        "cursor=made-up".into(),
        "cursor=".into(),
    ] {
        let got = catalogue.page(&format!("/v1/catalog?{query}"), ANYBODY).await;
        assert_eq!((got.status.as_u16(), faults(&got)), (400, vec!["cursor".into()]), "{query}");
    }
}

#[tokio::test]
async fn counts_of_genres_follow_every_way_a_title_comes_and_goes() {
    let catalogue = Catalogue::start().await;
    let counts = async || {
        let page = catalogue.shown("/v1/genres", ANYBODY).await;
        let genres = page["genres"].as_array().unwrap().iter();
        genres
            .map(|genre| format!("{} {}", genre["slug"].as_str().unwrap_or_default(), genre["titles"]))
            .collect::<Vec<_>>()
            .join(", ")
    };
    catalogue.put("titles/heat", json!({"name": "Heat", "genres": ["Crime", "Drama"]})).await;
    catalogue.put("titles/up", json!({"name": "Up", "genres": ["Drama"]})).await;
    assert_eq!(counts().await, "crime 1, drama 2");
    catalogue.edit("PATCH", "titles/heat", json!({"genres": ["Crime", "War"]})).await;
    assert_eq!(counts().await, "crime 1, drama 1, war 1");
    catalogue.edit("PATCH", "titles/heat", json!({"rating": 8})).await;
    catalogue.edit("PATCH", "titles/up", json!({"state": "draft"})).await;
    assert_eq!(counts().await, "crime 1, war 1");
    catalogue.edit("DELETE", "titles/heat", json!(null)).await;
    assert_eq!(counts().await, "");
    catalogue.edit("POST", "titles/heat/restore", json!({})).await;
    catalogue.edit("PATCH", "titles/up", json!({"state": "published"})).await;
    assert_eq!(counts().await, "crime 1, drama 1, war 1");
}

/// More than candidates are looked at.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_kept_a_title_as_like_itself_finds_out_that_it_is_no_more() {
    const KEEPERS: usize = 130;
    let catalogue = Catalogue::start().await;
    let top = |genre: &str| json!({"name": "Top", "genres": [genre], "rating": 10});
    catalogue.put("titles/a-top", top("Drama")).await;
    for n in 0..KEEPERS {
        catalogue.put(&format!("titles/t{n:03}"), json!({"name": "T", "genres": ["Drama"]})).await;
    }
    while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
    let keepers = async || {
        let mut snapshot = catalogue.app.store.snapshot().await.unwrap();
        let mut count = 0;
        for n in 0..KEEPERS {
            count += usize::from(snapshot.similar(&format!("t{n:03}")).await.unwrap().contains(&"a-top".to_string()));
        }
        count
    };
    assert_eq!(keepers().await, KEEPERS);
    let mut write = catalogue.app.store.write().await.unwrap();
    let mut marked = Vec::new();
    for _ in 0..4 {
        marked.push(write.mark_keepers("a-top", 50).await.unwrap());
    }
    assert_eq!(marked, [false, false, true, true], "as many at once as are asked for, until all are");
    drop(write);
    for (method, body) in [("PATCH", json!({"genres": ["War"]})), ("DELETE", Value::Null)] {
        catalogue.edit("PATCH", "titles/a-top", json!({"genres": ["Drama"]})).await;
        while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
        catalogue.edit(method, "titles/a-top", body).await;
        while origin::similar::turn(&catalogue.app.store).await.unwrap() {}
        assert_eq!(keepers().await, 0, "{method}");
    }
}

/// During each update of the service there are two.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_jobs_at_once_the_slower_one_writes_nothing_older() {
    // Whether the slower one looks at a title that was edited itself, or at one that is near such a one.
    for is_near in [false, true] {
        let catalogue = Catalogue::start().await;
        let store = &catalogue.app.store;
        let of = |genre: &str| json!({"name": "T", "genres": [genre]});
        let (edited, other) = if is_near { ("heat", "ronin") } else { ("ronin", "heat") };
        for (id, genre) in [("up", "Family"), (edited, "Drama"), (other, "War")] {
            catalogue.put(&format!("titles/{id}"), of(genre)).await;
        }
        while origin::similar::turn(store).await.unwrap() {}
        catalogue.edit("PATCH", &format!("titles/{edited}"), json!({"genres": ["War"]})).await;
        if is_near {
            assert!(origin::similar::turn(store).await.unwrap(), "the edited one, which marks what is near");
        }
        let slow = origin::similar::find(store).await.unwrap().unwrap();
        catalogue.edit("PATCH", "titles/up", json!({"genres": ["War"]})).await;
        while origin::similar::turn(store).await.unwrap() {}
        let kept = async || store.snapshot().await.unwrap().similar("ronin").await.unwrap();
        assert_eq!(kept().await.len(), 2);
        slow.keep(store).await.unwrap();
        while origin::similar::turn(store).await.unwrap() {}
        assert_eq!(kept().await.len(), 2, "near: {is_near}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_marked_while_it_is_looked_at_is_looked_at_again() {
    let catalogue = Catalogue::start().await;
    let store = &catalogue.app.store;
    for id in ["heat", "ronin"] {
        catalogue.put(&format!("titles/{id}"), json!({"name": "T", "genres": ["War"]})).await;
    }
    // First what was edited, then what is near it, which stays so.
    for is_near in [false, true] {
        let looked = origin::similar::find(store).await.unwrap().unwrap();
        let mut write = store.write().await.unwrap();
        match is_near {
            true => assert!(write.mark_keepers("heat", 10).await.unwrap()),
            false => write.mark_near(&["heat", "ronin"].map(String::from).into()).await.unwrap(),
        }
        write.commit().await.unwrap();
        looked.keep(store).await.unwrap();
        let left = origin::similar::find(store).await.unwrap().expect("it is due");
        left.keep(store).await.unwrap();
        assert!(origin::similar::find(store).await.unwrap().is_none());
        catalogue.edit("PATCH", "titles/heat", json!({"rating": 5})).await;
        origin::similar::turn(store).await.unwrap();
    }
}
