//! What breaks: processes killed at any point, connections cut, answers held back.
use e2e::eventually;
use e2e::gate::Mode;
use e2e::stack::{LEASE_OVER, Shape, Stack, is_accepted};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_survives_kill_9_of_origin_between_commit_and_delivery() {
    let mut stack = Stack::start().await;
    stack.get("/v1/titles/heat").await;
    // Committed and acknowledged, but the way to the edge is cut.
    stack.to_edge.set(Mode::Cut);
    let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": "Heat II"}))).await;
    assert_eq!(written.status, 200, "{written:?}");
    stack.kill_origin();
    tokio::time::sleep(LEASE_OVER).await;
    assert!(stack.get("/v1/titles/heat").await.is_hit(), "the edge cannot know yet");
    stack.to_edge.set(Mode::Open);
    stack.start_origin();
    eventually("the purge", || async { stack.get("/v1/titles/heat").await.body.contains("Heat II").then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_killed_again_and_again_under_writes_loses_no_purge() {
    let mut stack = Stack::start().await;
    let mut acknowledged = 0u32;
    for round in 0..5 {
        for n in 0..10 {
            let name = format!("Heat {round}.{n}");
            let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": name}))).await;
            acknowledged += u32::from(written.status == 200);
        }
        stack.kill_origin();
        stack.start_origin();
    }
    assert_eq!(acknowledged, 50);
    let head = stack.as_of().await.seq;
    eventually("the last purge is accepted", || async {
        let receipt = stack.admin(Method::GET, &format!("/admin/v1/purges/{head}"), None).await;
        is_accepted(&receipt.json()).then_some(())
    })
    .await;
    eventually("the last write", || async {
        stack.get("/v1/titles/heat").await.body.contains("Heat 4.9").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_begun_before_a_write_is_never_served_fresh_after_its_purge() {
    // What is held is waited for as long as the rest takes.
    let stack = Stack::of(Shape { origin_timeout_ms: 30_000, ..Shape::default() }).await;
    let answered = || stack.origin_count("/v1/titles/{id}");
    // Each is asked for for the first time: nobody has it.
    for title in ["heat", "ronin", "up"] {
        // The old answer is on its way, held at the gate, while the write commits and its purge lands.
        let before = answered().await;
        stack.get("/v1/genres").await;
        stack.to_origin.set(Mode::Hold);
        let page = format!("/v1/titles/{title}");
        let filling = tokio::spawn(e2e::http::get(stack.url(&page)));
        eventually("origin has answered", || async { (answered().await > before).then_some(()) }).await;
        let name = format!("{title} II");
        let path = format!("/admin/v1/titles/{title}?purge=hard");
        let written = stack.admin(Method::PATCH, &path, Some(json!({"name": name}))).await;
        assert_eq!(written.status, 200);
        stack.applied(&written).await;
        assert!(!filling.is_finished(), "{title}: nothing was under way");
        stack.to_origin.set(Mode::Open);
        let filled = filling.await.unwrap();
        assert!(filled.body.contains(&name), "not even who began it is shown the old page: {filled:?}");
        tokio::time::sleep(LEASE_OVER).await;
        let next = stack.get(&page).await;
        assert!(next.body.contains(&name), "{next:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_origin_down_everything_cached_goes_on_being_served() {
    let mut stack = Stack::start().await;
    let pages = ["/v1/home", "/v1/catalog", "/v1/titles/heat"];
    for page in pages {
        stack.get(page).await;
    }
    stack.kill_origin();
    for _ in 0..20 {
        for page in pages {
            let got = stack.get(page).await;
            assert!(got.status == 200 && got.is_hit(), "{page}: {got:?}");
        }
    }
    let uncached = stack.get("/v1/titles/ronin").await;
    assert_eq!((uncached.status, uncached.problem().as_str()), (502, "origin-unreachable"));
    let admin = stack.get("/admin/v1/titles").await;
    assert_eq!((admin.status, admin.problem().as_str()), (502, "origin-unreachable"));
    // Nor do they have to be fresh: purged softly, with nobody there to fetch them anew.
    stack.to_origin.set(Mode::Cut);
    stack.start_origin();
    let purged = stack.admin(Method::POST, "/admin/v1/purges", Some(json!({"all": true, "mode": "soft"}))).await;
    assert_eq!(purged.status, 202, "{purged:?}");
    stack.applied(&purged).await;
    stack.kill_origin();
    stack.to_origin.set(Mode::Open);
    // Past the bound in which they may be shown without asking.
    tokio::time::sleep(2 * LEASE_OVER).await;
    for _ in 0..20 {
        for page in pages {
            let got = stack.get(page).await;
            assert!(got.status == 200 && got.cache().contains("detail=\"stale-error"), "{page}: {got:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journals_process_dies_and_nothing_acknowledged_is_lost() {
    let mut stack = Stack::start().await;
    stack.get("/v1/titles/heat").await;
    stack.fleet.kill_global();
    let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": "Heat II"}))).await;
    assert_eq!(written.status, 200, "writes do not wait for the edge");
    tokio::time::sleep(LEASE_OVER).await;
    // With the purge state unknown origin is asked, so the new page is there even now.
    assert!(stack.get("/v1/titles/heat").await.body.contains("Heat II"));
    stack.fleet.start_global().unwrap();
    eventually("accepted", || async {
        let newest = stack.admin(Method::GET, "/admin/v1/purges?limit=1", None).await.json();
        is_accepted(&newest["items"][0]).then_some(())
    })
    .await;
    eventually("a hit again", || async { stack.get("/v1/titles/heat").await.is_hit().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_put_back_in_time_gets_a_new_log_and_purges_everything() {
    let mut stack = Stack::start().await;
    stack.kill_origin();
    let backup = stack.state().join("backup.sqlite");
    std::fs::copy(stack.database(), &backup).unwrap();
    for suffix in ["-wal", "-shm"] {
        let from = stack.state().join(format!("origin.sqlite{suffix}"));
        if from.exists() {
            std::fs::copy(from, stack.state().join(format!("backup.sqlite{suffix}"))).unwrap();
        }
    }
    stack.start_origin();
    let before = stack.as_of().await;
    for n in 0..3 {
        stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(json!({"name": format!("Heat {n}")}))).await;
    }
    eventually("the last write", || async { stack.get("/v1/titles/heat").await.body.contains("Heat 2").then_some(()) })
        .await;
    stack.kill_origin();
    for suffix in ["", "-wal", "-shm"] {
        let to = stack.state().join(format!("origin.sqlite{suffix}"));
        let _ = std::fs::remove_file(&to);
        let from = stack.state().join(format!("backup.sqlite{suffix}"));
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
    stack.start_origin();
    eventually("the log has a new identity", || async {
        let now = stack.as_of().await;
        (now.log_id != before.log_id).then_some(())
    })
    .await;
    eventually("the old state is served again, since it is the truth now", || async {
        let got = stack.get("/v1/titles/heat").await;
        (got.body.contains("\"Heat\"") && got.is_hit()).then_some(())
    })
    .await;
}
