//! What a search finds, what it never finds, and that nothing typed is syntax to either engine.
use super::{ANYBODY, Catalogue, faults, ids_of, in_s};
use axum::http::StatusCode;
use serde_json::json;

async fn library() -> Catalogue {
    let catalogue = Catalogue::start().await;
    for (id, body) in [
        (
            "dark-knight",
            json!({"name": "The Dark Knight", "translations": {"de": {"name": "Der dunkle Ritter"}},
            "people": [{"name": "Christopher Nolan", "role": "director"}], "votes": 9}),
        ),
        ("amelie", json!({"name": "Amélie", "people": [{"name": "Audrey Tautou", "role": "actor"}]})),
        ("casablanca", json!({"name": "Casablanca"})),
        ("and-or", json!({"name": "And Or Not"})),
    ] {
        catalogue.put(&format!("titles/{id}"), body).await;
    }
    catalogue
}

async fn found(catalogue: &Catalogue, q: &str) -> Vec<String> {
    catalogue.ids(&format!("/v1/search?q={q}"), ANYBODY).await
}

#[tokio::test]
async fn a_title_is_found_by_a_word_the_beginning_of_one_its_translation_and_its_people() {
    let catalogue = library().await;
    for q in
        ["knight", "DARK", "dark%20kni", "kni", "dunkle+ritter", "nolan", "christopher%20nol", "the%20dark%20knight"]
    {
        assert_eq!(found(&catalogue, q).await, ["dark-knight"], "{q}");
    }
    for q in ["amelie", "Am%C3%A9lie", "tautou"] {
        assert_eq!(found(&catalogue, q).await, ["amelie"], "{q}");
    }
}

#[tokio::test]
async fn a_misspelt_title_is_found_and_a_strange_word_finds_nothing() {
    let catalogue = library().await;
    for (q, id) in [("casblanca", "casablanca"), ("dark%20knihgt", "dark-knight")] {
        assert_eq!(found(&catalogue, q).await.first().map(String::as_str), Some(id), "{q}");
    }
    assert!(found(&catalogue, "zzyzx").await.is_empty());
}

#[tokio::test]
async fn an_exact_name_comes_before_one_that_only_has_the_word() {
    let catalogue = library().await;
    catalogue.put("titles/dark", json!({"name": "Dark"})).await;
    assert_eq!(found(&catalogue, "dark").await, ["dark", "dark-knight"]);
}

#[tokio::test]
async fn nothing_typed_is_syntax() {
    let catalogue = library().await;
    for q in [
        "%22knight%22",
        "%22knight",
        "knight*",
        "*knight",
        "knight%3A*",
        "name%3Aknight",
        "knight%20%26%20dark",
        "dark%20%26%26%20knight",
        "%21knight",
        "knight%20%3C-%3E%20dark",
        "%28knight",
        "knight%29",
        "%5Eknight",
        "-knight",
        "%27knight",
        "knight%27%3B--",
        "%5Cknight",
        "knight%7Cdark",
        "%2Bknight",
        "%7Bknight%7D%3A",
    ] {
        let ids = found(&catalogue, q).await;
        // `name` is a word like any other, and no title has it.
        assert!(ids == ["dark-knight"] || q.starts_with("name"), "{q}: {ids:?}");
    }
    for q in ["AND", "OR", "NOT", "and%20or%20not", "AND%20OR"] {
        assert_eq!(found(&catalogue, q).await, ["and-or"], "{q}");
    }
    for q in ["dark%20AND%20casablanca", "dark%20OR%20casablanca", "dark%20NEAR%20knight", "NEAR(dark%20knight,2)"] {
        let got = catalogue.page(&format!("/v1/search?q={q}"), ANYBODY).await;
        assert_eq!(got.status, StatusCode::OK, "{q}: {got:?}");
        assert!(!ids_of(&got.json()).contains(&"and-or".to_string()), "{q}: {got:?}");
    }
}

#[tokio::test]
async fn a_search_for_nothing_is_refused_and_one_for_no_word_finds_nothing() {
    let catalogue = library().await;
    for path in ["/v1/search", "/v1/search?q=", "/v1/search?q=%20%20", "/v1/search?limit=5"] {
        let got = catalogue.page(path, ANYBODY).await;
        assert_eq!((got.status, faults(&got)), (StatusCode::BAD_REQUEST, vec!["q".to_string()]), "{path}");
    }
    assert!(catalogue.ids("/v1/search?q=%22*%3A%21%26%28%29", ANYBODY).await.is_empty());
}

#[tokio::test]
async fn what_a_viewer_may_not_see_takes_no_place_among_what_is_found() {
    let catalogue = Catalogue::start().await;
    // More than one search looks at, all of them better finds than the one a child may see.
    for chunk in 0..5 {
        let lines: String = (0..80)
            .map(|n| {
                format!("{{\"type\":\"title\",\"id\":\"r{chunk}-{n}\",\"name\":\"River\",\"maturity\":\"NC-17\"}}\n")
            })
            .collect();
        origin::import::text(&catalogue.app.store, &lines).await.unwrap();
    }
    let body = json!({"name": "The long story of a small stream that met a river far from home", "maturity": "G"});
    catalogue.put("titles/stream", body).await;
    for q in ["river", "rivver"] {
        let path = format!("/v1/search?q={q}");
        assert_eq!(catalogue.ids(&path, ["ZZ", "en", "7", "none"]).await, ["stream"], "{q}");
    }
}

#[tokio::test]
async fn a_short_word_is_found_with_one_letter_wrong_missing_too_many_or_swapped() {
    let catalogue = Catalogue::start().await;
    for (id, name) in [("heat", "Heat"), ("alien", "Alien"), ("dune", "Dune: Part Two"), ("speed", "Speed")] {
        catalogue.put(&format!("titles/{id}"), json!({"name": name})).await;
    }
    for (q, id) in [
        ("haet", "heat"),
        ("hest", "heat"),
        ("heatt", "heat"),
        ("hewat", "heat"),
        ("eat", "heat"),
        ("alein", "alien"),
        ("alian", "alien"),
        ("alin", "alien"),
        ("allien", "alien"),
        ("dnue", "dune"),
        ("dume", "dune"),
        ("dunne", "dune"),
        ("dume%20part", "dune"),
        ("part%20tow", "dune"),
        ("spede", "speed"),
        ("sped", "speed"),
    ] {
        assert_eq!(found(&catalogue, q).await, [id], "{q}");
    }
    for q in ["zzyx", "hxxt", "oval"] {
        assert!(found(&catalogue, q).await.is_empty(), "{q}");
    }
    catalogue.put("titles/hear", json!({"name": "Hear"})).await;
    assert_eq!(found(&catalogue, "heat").await[0], "heat", "what was typed comes first");
}

#[tokio::test]
async fn a_search_that_is_too_long_or_no_text_is_refused() {
    let catalogue = library().await;
    let (longest, longer) = ("é".repeat(100), "é".repeat(101));
    let encoded = |text: &str| text.replace('é', "%C3%A9");
    assert_eq!(catalogue.page(&format!("/v1/search?q={}", encoded(&longest)), ANYBODY).await.status, StatusCode::OK);
    for query in [format!("q={}", encoded(&longer)), "q=%ff".into(), "q=a&q=b".into()] {
        let got = catalogue.page(&format!("/v1/search?{query}"), ANYBODY).await;
        assert_eq!((got.status.as_u16(), got.problem(), faults(&got)), (400, "query-invalid".into(), vec!["q".into()]));
    }
    let got = catalogue.page("/v1/search?q=a&limit=101&cursor=x", ANYBODY).await;
    assert_eq!((got.status.as_u16(), faults(&got)), (400, vec!["cursor".into(), "limit".into()]));
}

#[tokio::test]
async fn a_search_whose_letters_become_many_more_is_answered_like_any_other() {
    let catalogue = library().await;
    // Each becomes fifteen letters, of which one word is made, or several.
    let (one, several) = ("%F0%9F%85%AD".repeat(100), ["%F0%9F%85%AD".repeat(11).as_str()].repeat(8).join("+"));
    for q in [&one, &several] {
        assert!(found(&catalogue, q).await.is_empty());
    }
    let long = "Donaudampfschifffahrtsgesellschaft";
    catalogue.put("titles/steamers", json!({"name": format!("{long} in Wien")})).await;
    catalogue.put("titles/licence", json!({"name": "\u{1f16d}".repeat(12)})).await;
    for (q, id) in [
        (format!("{long}%20wien"), "steamers"),
        (format!("wien%20{long}"), "steamers"),
        (one, "licence"),
        (several, "licence"),
    ] {
        assert_eq!(found(&catalogue, &q).await, [id], "{q}");
    }
}

#[tokio::test]
async fn drafts_and_what_is_not_for_the_viewer_are_not_found() {
    let catalogue = Catalogue::start().await;
    for (id, more) in [
        ("open", json!({})),
        ("draft", json!({"state": "draft"})),
        ("scheduled", json!({"state": "scheduled", "publish_at": in_s(3_600)})),
        ("early", json!({"available_from": in_s(3_600)})),
        ("late", json!({"available_until": in_s(-3_600)})),
        ("blocked", json!({"regions": {"DE": {"blocked": true}}})),
        ("adult", json!({"maturity": "NC-17"})),
        ("unrated", json!({"maturity": null})),
        ("deleted", json!({})),
    ] {
        let mut body = json!({"name": format!("River {id}"), "maturity": "G"});
        origin::catalog::validate::merge_patch(&mut body, &more);
        catalogue.put(&format!("titles/{id}"), body).await;
    }
    catalogue.edit("DELETE", "titles/deleted", serde_json::Value::Null).await;
    for (viewer, expected) in [
        (["ZZ", "en", "18", "none"], vec!["adult", "blocked", "open", "unrated"]),
        (["DE", "en", "18", "none"], vec!["adult", "open", "unrated"]),
        (["DE", "en", "13", "premium"], vec!["open"]),
        (["US", "en", "0", "none"], vec!["blocked", "open"]),
    ] {
        // Found by a word, and by a misspelt one.
        for q in ["river", "rivver"] {
            let mut ids = catalogue.ids(&format!("/v1/search?q={q}"), viewer).await;
            ids.sort_unstable();
            assert_eq!(ids, expected, "{q} {viewer:?}");
        }
    }
}

#[tokio::test]
async fn a_release_that_knows_short_words_finds_those_that_were_there_before() {
    let catalogue = library().await;
    catalogue.app.store.close().await;
    let before = "DELETE FROM search_word; UPDATE derived SET form = 1";
    catalogue.database.sql(before, before).await;
    let store = origin::store::Store::connect(&catalogue.database.settings).await.unwrap();
    let mut snapshot = store.snapshot().await.unwrap();
    let eye = origin::store::Eye { region: "ZZ".parse().unwrap(), maturity: 18, now_ms: 0 };
    let (found, _) = snapshot.search(&origin::store::words_of("nloan"), eye, None, 10).await.unwrap();
    assert_eq!(found.iter().map(|found| found.card.id.as_str()).collect::<Vec<_>>(), ["dark-knight"]);
    let seq = snapshot.as_of.seq;
    let purge = snapshot.purges_after(seq - 1, 1).await.unwrap().remove(0);
    assert_eq!(purge.keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["search"]);
}

#[tokio::test]
async fn what_a_search_finds_follows_an_edit() {
    let catalogue = library().await;
    catalogue.edit("PATCH", "titles/casablanca", json!({"name": "Rick's Café"})).await;
    assert_eq!(found(&catalogue, "ricks").await, ["casablanca"]);
    assert!(found(&catalogue, "casablanca").await.is_empty());
}

#[tokio::test]
async fn a_person_with_more_titles_than_a_statement_takes_has_the_new_name_in_all_of_them() {
    let catalogue = Catalogue::start().await;
    let film = |n: u32| {
        let people = json!([{"name": "Ann Onym", "role": "actor"}, {"name": "Bob", "role": "director"}]);
        let state = if n == 449 { "draft" } else { "published" };
        json!({"type": "title", "id": format!("f{n}"), "name": format!("Film {n}"), "state": state, "people": people})
            .to_string()
    };
    let lines: Vec<String> = (0..450).map(film).collect();
    origin::import::text(&catalogue.app.store, &lines.join("\n")).await.unwrap();
    catalogue.edit("PATCH", "people/ann-onym", json!({"name": "Ann Wellknown"})).await;

    assert!(found(&catalogue, "onym").await.is_empty());
    let mut write = catalogue.app.store.write().await.unwrap();
    for n in 0..450 {
        let title = write.title(&format!("f{n}")).await.unwrap().unwrap();
        let names: Vec<_> = title.input.people.iter().map(|credit| credit.name.as_str()).collect();
        assert_eq!(names, ["Ann Wellknown", "Bob"], "f{n}");
    }
    drop(write);
    for n in [0, 199, 200, 448] {
        assert_eq!(found(&catalogue, &format!("wellknown+{n}")).await.first(), Some(&format!("f{n}")));
    }
    assert!(!found(&catalogue, "wellknown+449").await.contains(&"f449".to_string()), "still a draft");
    catalogue.edit("PATCH", "titles/f449", json!({"state": "published"})).await;
    assert_eq!(found(&catalogue, "wellknown+449").await.first(), Some(&"f449".to_string()));
}

#[tokio::test]
async fn the_pages_of_a_search_have_each_title_once_while_others_come_and_go() {
    let catalogue = Catalogue::start().await;
    for n in 0..6 {
        catalogue.put(&format!("titles/river-{n}"), json!({"name": format!("River {n}"), "votes": n})).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/search?q=river&limit=2".to_string();
    loop {
        let page = catalogue.shown(&path, ANYBODY).await;
        seen.extend(ids_of(&page));
        // Above what was shown, and already shown.
        catalogue.put(&format!("titles/new-{}", seen.len()), json!({"name": "River new", "votes": 99})).await;
        if seen.len() == 2 {
            catalogue.edit("DELETE", "titles/river-5", serde_json::Value::Null).await;
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/search?q=river&limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [5, 4, 3, 2, 1, 0].map(|n| format!("river-{n}")));
}

#[tokio::test]
async fn a_cursor_of_another_search_is_refused() {
    let catalogue = library().await;
    catalogue.put("titles/dark", json!({"name": "Dark"})).await;
    let page = catalogue.shown("/v1/search?q=dark&limit=1", ANYBODY).await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let got = catalogue.page(&format!("/v1/search?q=knight&cursor={cursor}"), ANYBODY).await;
    assert_eq!((got.status.as_u16(), faults(&got)), (400, vec!["cursor".into()]));
}

#[tokio::test]
async fn a_name_that_is_just_what_was_typed_is_found_among_hundreds_with_more_votes() {
    let catalogue = Catalogue::start().await;
    for chunk in 0..5 {
        let line = |n: u32| {
            format!("{{\"type\":\"title\",\"id\":\"r{chunk}-{n}\",\"name\":\"Lost River {chunk}{n}\",\"votes\":9}}\n")
        };
        origin::import::text(&catalogue.app.store, &(0..80).map(line).collect::<String>()).await.unwrap();
    }
    catalogue.put("titles/river", json!({"name": "River"})).await;
    assert_eq!(found(&catalogue, "river").await.first().map(String::as_str), Some("river"));
}

#[tokio::test]
async fn words_typed_as_one_or_apart_or_one_too_many_are_found() {
    let catalogue = Catalogue::start().await;
    catalogue.put("titles/spider", json!({"name": "Spider Man"})).await;
    catalogue.put("titles/ironclad", json!({"name": "Ironclad"})).await;
    for (q, id) in [("spiderman", "spider"), ("iron%20clad", "ironclad"), ("spider%20man%20zzyzx", "spider")] {
        assert_eq!(found(&catalogue, q).await.first().map(String::as_str), Some(id), "{q}");
    }
}
