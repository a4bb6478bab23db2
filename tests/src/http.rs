//! Asking and reading answers.
use kv_schemas::AsOf;
use kv_schemas::header::SURROGATE_AS_OF;
use reqwest::{Client, Method, RequestBuilder};
use std::io::Read;
use std::time::Duration;

/// Longer than any answer takes that is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Our member of `Cache-Status`.
    pub fn cache(&self) -> &str {
        self.header("cache-status").unwrap_or("")
    }

    pub fn is_hit(&self) -> bool {
        self.cache().contains("; hit") && self.cache().contains("detail=\"hit")
    }

    pub fn is_fresh_or_forwarded(&self) -> bool {
        !self.cache().contains("detail=\"stale")
    }

    /// The state of the purge log it was read at, or that it made.
    pub fn as_of(&self) -> Option<AsOf> {
        self.header(SURROGATE_AS_OF)?.parse().ok()
    }

    /// Of metrics, the value of a series; named with its labels, but for the isolate's number that the edge's end with.
    pub fn figure(&self, series: &str) -> Option<u64> {
        self.body.lines().find_map(|line| {
            let (named, value) = line.rsplit_once(' ')?;
            let plain = named.split_once("isolate=\"").map(|(before, _)| match before.strip_suffix(',') {
                Some(labels) => format!("{labels}}}"),
                None => before.trim_end_matches('{').to_string(),
            });
            (plain.as_deref().unwrap_or(named) == series).then(|| value.parse().ok())?
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The slug of a problem+json; fails on anything else.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        let kind = problem["type"].as_str().unwrap_or_default();
        kind.strip_prefix("urn:nextream:problem:").unwrap_or_else(|| panic!("{self:?}")).to_string()
    }
}

pub fn client() -> Client {
    // Redirects and compressed bodies are seen as they come.
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().timeout(ANSWER_MAX);
    client.build().expect("no client")
}

pub fn ask(method: Method, url: impl AsRef<str>) -> RequestBuilder {
    thread_local!(static CLIENT: Client = client());
    CLIENT.with(|client| client.request(method, url.as_ref()))
}

pub async fn send(request: RequestBuilder) -> Got {
    try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

/// Asks somebody who may be away: no answer, or half of one, is `None`.
pub async fn send_to(request: RequestBuilder) -> Option<Got> {
    try_send(request).await.ok()
}

async fn try_send(request: RequestBuilder) -> reqwest::Result<Got> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<(String, String)> =
        response.headers().iter().map(|(name, value)| (name.as_str().to_string(), text(value))).collect();
    let is_packed = headers.iter().any(|(name, value)| name == "content-encoding" && value == "gzip");
    let bytes = response.bytes().await?;
    let mut body = String::new();
    if !is_packed || flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut body).is_err() {
        body = String::from_utf8_lossy(&bytes).into_owned();
    }
    Ok(Got { status, headers, body })
}

pub async fn get(url: impl AsRef<str>) -> Got {
    send(ask(Method::GET, url)).await
}
