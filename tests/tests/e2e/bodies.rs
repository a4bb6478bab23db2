//! Bodies on their way: streamed, broken off, too large, packed.
use e2e::http::{ask, send};
use e2e::raw::{Act, Raw, body, head};
use e2e::stack::{LEASE_OVER, Proxy, Shape, Stack};
use kv_schemas::entry::EntryHead;
use reqwest::Method;
use serde_json::json;
use std::io::{Read, Write};

const FRESH: (&str, &str) = ("cache-control", "max-age=600");

#[tokio::test(flavor = "multi_thread")]
async fn the_client_has_the_beginning_before_origin_has_sent_the_end() {
    let raw = Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    let answer = head("HTTP/1.1 200 OK\ncontent-length: 11\ncache-control: max-age=60");
    raw.script("/slow", vec![answer, body("begin"), Act::Wait, body(",  end")]);
    let mut response = ask(Method::GET, proxy.url("/slow")).send().await.unwrap();
    let mut seen = String::new();
    while seen.len() < 5 {
        let chunk = response.chunk().await.unwrap().expect("the beginning comes");
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(seen, "begin", "origin has not sent more, and waits");
    raw.go_on(true);
    while let Some(chunk) = response.chunk().await.unwrap() {
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert_eq!(seen, "begin,  end");
    let stored = e2e::eventually("the whole is stored", || async {
        Some(proxy.get("/slow").await).filter(e2e::http::Got::is_hit)
    })
    .await;
    assert_eq!((stored.body.as_str(), raw.count("/slow")), ("begin,  end", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_never_stored_as_whole() {
    let raw = Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    let table = [
        ("/short", vec![head("HTTP/1.1 200 OK\ncontent-length: 100\ncache-control: max-age=60"), body("half")]),
        (
            "/reset",
            vec![head("HTTP/1.1 200 OK\ncontent-length: 100\ncache-control: max-age=60"), body("half"), Act::HangUp],
        ),
        (
            "/chunked",
            vec![head("HTTP/1.1 200 OK\ntransfer-encoding: chunked\ncache-control: max-age=60"), body("4\r\nhalf\r\n")],
        ),
        (
            "/part",
            vec![
                head(
                    "HTTP/1.1 206 Partial Content\ncontent-range: bytes 0-99/200\ncontent-length: 100\ncache-control: max-age=60",
                ),
                body("half"),
            ],
        ),
    ];
    for (path, acts) in table {
        raw.script(path, acts);
        for asked in 1..=2 {
            let request = ask(Method::GET, proxy.url(path)).header("range", "bytes=0-99");
            let request = if path == "/part" { request } else { ask(Method::GET, proxy.url(path)) };
            let response = request.send().await.unwrap();
            let read = response.bytes().await;
            assert!(read.is_err(), "{path}: the client must see that it is not whole: {read:?}");
            tokio::time::sleep(LEASE_OVER).await;
            assert_eq!(raw.count(path), asked, "{path}: nothing was stored, so origin is asked each time");
        }
        raw.script(path, vec![head("HTTP/1.1 200 OK\ncontent-length: 5\ncache-control: max-age=60"), body("whole")]);
        assert_eq!(proxy.get(path).await.body, "whole", "{path}: nor does the failure stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_a_length_over_the_limit_passes_whole_and_unstored() {
    let raw = Raw::start().await;
    let proxy = Proxy::before_port(raw.port).await;
    // More than the eight MiB an entry may have, and nothing says so beforehand.
    let part = "x".repeat(1_000_000);
    let mut acts = vec![head("HTTP/1.1 200 OK\nconnection: close\ncache-control: max-age=60")];
    acts.extend((0..9).map(|_| body(&part)));
    raw.script("/endless", acts);
    for asked in 1..=2 {
        assert_eq!(proxy.get("/endless").await.body.len(), 9_000_000);
        tokio::time::sleep(LEASE_OVER).await;
        assert_eq!(raw.count("/endless"), asked);
    }
}

fn packed(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn one_packed_body_serves_those_who_take_it_and_those_who_do_not() {
    let proxy = Proxy::start().await;
    let text = "the same words, ".repeat(200);
    let fields = [
        FRESH,
        ("content-encoding", "gzip"),
        ("vary", "accept-encoding"),
        ("etag", "\"a\""),
        ("content-type", "text/plain"),
    ];
    proxy.upstream.bytes("/packed", 200, &fields, &packed(&text));
    for round in 0..3 {
        for accepted in [Some("gzip, br"), Some("br"), Some("identity"), Some("gzip;q=0"), None] {
            let request = ask(Method::GET, proxy.url("/packed"));
            let request =
                accepted.map_or(request.try_clone().unwrap(), |value| request.header("accept-encoding", value));
            let response = request.send().await.unwrap();
            let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_string());
            let takes = accepted == Some("gzip, br");
            assert_eq!(field("content-encoding").as_deref(), takes.then_some("gzip"), "{accepted:?}");
            assert_eq!(field("etag").as_deref(), Some(if takes { "\"a\"" } else { "W/\"a\"" }), "{accepted:?}");
            assert!(field("vary").is_some_and(|vary| vary.contains("accept-encoding")), "{accepted:?}");
            let bytes = response.bytes().await.unwrap();
            let got = if takes { unpacked(&bytes) } else { String::from_utf8(bytes.to_vec()).unwrap() };
            assert!(got == text, "round {round}, {accepted:?}: other words");
        }
    }
    assert_eq!(proxy.upstream.count("/packed"), 1, "one URL, one stored body");
    assert_eq!(proxy.upstream.last().headers["accept-encoding"], "gzip", "everybody asks in one form");
    let range = ask(Method::GET, proxy.url("/packed")).header("range", "bytes=0-3");
    let got = send(range.try_clone().unwrap()).await;
    assert_eq!((got.status, got.body == text), (200, true), "places in what is unpacked on the way are not known");
    let got = range.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!((got.status().as_u16(), &got.bytes().await.unwrap()[..]), (206, &packed(&text)[..4]));
    let conditional = ask(Method::GET, proxy.url("/packed")).header("if-none-match", "W/\"a\"");
    assert_eq!(send(conditional).await.status, 304, "the weak tag comes back for the strong one");
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_documents_come_packed_are_stored_so_once_and_go_out_in_either_form() {
    let ids: Vec<String> = (0..40).map(|n| format!("title-{n}")).collect();
    let title = |id: &String| json!({"type": "title", "id": id, "name": format!("The {id}"), "genres": ["Drama"]});
    let rail = json!({"type": "rail", "id": "top", "title": "Top", "position": 1, "size": 40, "items": ids});
    let lines: Vec<_> = ids.iter().map(title).chain([rail]).map(|line| format!("{line}\n")).collect();
    let stack = Stack::of(Shape { catalogue: lines.concat(), ..Shape::default() }).await;
    let before = stack.to_origin.asked();
    let takes = async || {
        let request = ask(Method::GET, stack.url("/v1/home")).header("accept-encoding", "gzip");
        let response = request.send().await.unwrap();
        let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_string());
        let fields = ["content-encoding", "etag", "cache-status"].map(|name| field(name).unwrap_or_default());
        (fields, response.bytes().await.unwrap())
    };
    let ([coding, etag, _], bytes) = takes().await;
    assert_eq!((coding.as_str(), etag.ends_with("-gzip\"")), ("gzip", true), "{etag}");
    let ([coding, again, status], same) = takes().await;
    assert_eq!((coding.as_str(), again, &same), ("gzip", etag.clone(), &bytes));
    assert!(status.contains("; hit"), "{status}");
    let plain = stack.get("/v1/home").await;
    assert!(plain.is_hit(), "{plain:?}");
    assert_eq!((plain.header("content-encoding"), plain.header("etag")), (None, Some(format!("W/{etag}").as_str())));
    assert_eq!((&plain.body, plain.json()["rails"][0]["items"].as_array().unwrap().len()), (&unpacked(&bytes), 40));
    assert_eq!(stack.to_origin.asked() - before, 1, "one form for both");
    let stored = e2e::eventually("home in KV", || e2e::kv::ending_in(&stack.fleet, " /v1/home")).await;
    let (_, body) = EntryHead::split(&stored).unwrap();
    assert_eq!(body, &bytes[..]);
    assert!(stored.len() < plain.body.len(), "{} of {}", stored.len(), plain.body.len());
    // A client that has the weak tag of the unpacked form has what origin says is not modified.
    let held = ask(Method::GET, stack.url("/v1/home")).header("if-none-match", format!("W/{etag}"));
    assert_eq!(send(held).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_packed_body_goes_out_as_it_came_and_only_to_who_takes_it() {
    let proxy = Proxy::start().await;
    let whole = packed(&"the same words, ".repeat(200));
    let part = format!("bytes 4-9/{}", whole.len());
    let fields = [FRESH, ("content-encoding", "gzip"), ("content-range", part.as_str()), ("etag", "\"a\"")];
    proxy.upstream.bytes("/packed", 206, &fields, &whole[4..10]);
    let request = ask(Method::GET, proxy.url("/packed")).header("range", "bytes=4-9");
    let plain = send(request.try_clone().unwrap()).await;
    assert_eq!((plain.status, plain.problem().as_str()), (502, "origin-invalid"), "an origin that insists on the part");
    assert_eq!(proxy.upstream.count("/packed"), 2, "the whole was asked for");
    assert!(!proxy.upstream.last().headers.contains_key("range"), "{:?}", proxy.upstream.last());
    let response = request.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 206);
    for (name, value) in [("content-encoding", "gzip"), ("content-range", part.as_str()), ("etag", "\"a\"")] {
        assert_eq!(response.headers().get(name).map(|value| value.to_str().unwrap()), Some(value));
    }
    assert_eq!(&response.bytes().await.unwrap()[..], &whole[4..10]);
}

/// Fields an answer has of these.
async fn present(request: reqwest::RequestBuilder, names: &[&str]) -> Vec<String> {
    let response = request.send().await.unwrap();
    names.iter().filter(|name| response.headers().contains_key(**name)).map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_goes_out_only_with_the_bytes_it_is_of() {
    let proxy = Proxy::start().await;
    let of_the_content = [("content-digest", "sha-256=:AA==:"), ("content-md5", "AA==")];
    let of_the_whole = [("repr-digest", "sha-256=:AA==:"), ("digest", "sha-256=AA==")];
    let fields: Vec<_> = [FRESH, ("etag", "\"a\"")].into_iter().chain(of_the_content).chain(of_the_whole).collect();
    let coded: Vec<_> = fields.iter().copied().chain([("content-encoding", "gzip")]).collect();
    proxy.upstream.bytes("/packed", 200, &coded, &packed("words"));
    proxy.upstream.bytes("/plain", 200, &fields, b"words");
    let all = ["content-digest", "content-md5", "repr-digest", "digest"];
    for round in 0..2 {
        let request = |path: &str| ask(Method::GET, proxy.url(path));
        let takes = request("/packed").header("accept-encoding", "gzip");
        assert_eq!(present(takes, &all).await, all, "round {round}: as it came");
        assert!(present(request("/packed"), &all).await.is_empty(), "round {round}: unpacked");
        assert_eq!(present(request("/plain"), &all).await, all, "round {round}: whole");
        let cut = request("/plain").header("range", "bytes=1-2");
        assert_eq!(present(cut, &all).await, all[2..], "round {round}: cut");
        tokio::time::sleep(LEASE_OVER).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_transformed_is_not_unpacked() {
    let proxy = Proxy::start().await;
    let bytes = packed("words");
    let fields = [("cache-control", "max-age=600, No-Transform"), ("content-encoding", "gzip"), ("etag", "\"a\"")];
    proxy.upstream.bytes("/packed", 200, &fields, &bytes);
    for round in 0..2 {
        for accepted in ["gzip", "identity"] {
            let request = ask(Method::GET, proxy.url("/packed")).header("accept-encoding", accepted);
            let response = request.send().await.unwrap();
            let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_string());
            assert_eq!(field("content-encoding").as_deref(), Some("gzip"), "round {round}, {accepted}");
            assert_eq!(field("etag").as_deref(), Some("\"a\""), "round {round}, {accepted}");
            assert_eq!(&response.bytes().await.unwrap()[..], &bytes[..], "round {round}, {accepted}");
        }
    }
}
