//! One viewer's connection: opened once, kept open, and counted for as long as it is. What comes over it is read whole.
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;

/// How the edge came by an answer, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Hit,
    /// Out of the cache, and being fetched anew behind it.
    Stale,
    /// Waited for a service, or for another request's fetch.
    Forwarded,
    /// Never answered from the cache.
    Passed,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Hit, Self::Stale, Self::Forwarded, Self::Passed];

    fn of(cache_status: &str) -> Self {
        let is_hit = cache_status.contains("; hit");
        match (is_hit, cache_status.contains("detail=\"stale"), cache_status.contains("fwd=bypass")) {
            (_, true, _) => Self::Stale,
            (true, ..) => Self::Hit,
            (_, _, true) => Self::Passed,
            _ if cache_status.is_empty() => Self::Passed,
            _ => Self::Forwarded,
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub way: Way,
    /// What the edge says of how it came by it.
    pub detail: String,
    pub etag: Option<String>,
    is_gzip: bool,
    pub bytes: Bytes,
}

impl Answer {
    /// Unpacked. Nothing, if it is no text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let read = match self.is_gzip {
            true => flate2::read::GzDecoder::new(&*self.bytes).read_to_string(&mut text),
            false => (&*self.bytes).read_to_string(&mut text),
        };
        read.map(|_| text).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text()).unwrap_or_default()
    }
}

/// How many are open right now.
#[derive(Clone, Debug, Default)]
pub struct Open(Arc<AtomicUsize>);

impl Open {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

pub struct Line {
    sender: SendRequest<Full<Bytes>>,
}

impl Line {
    pub async fn open(port: u16, open: &Open) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| format!("connecting: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let open = open.clone();
        open.0.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // However it ends: who asks next is told.
            let _ = connection.await;
            open.0.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(Self { sender })
    }

    pub fn is_cut(&self) -> bool {
        self.sender.is_closed()
    }

    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(String::from);
        let (status, etag) = (answer.status().as_u16(), text(header::ETAG.as_str()));
        let cache_status = text("cache-status").unwrap_or_default();
        let way = Way::of(&cache_status);
        let detail = cache_status.split("detail=\"").nth(1).and_then(|rest| rest.split('"').next());
        let detail = detail.unwrap_or_default().to_string();
        let is_gzip = text(header::CONTENT_ENCODING.as_str()).as_deref() == Some("gzip");
        let bytes = answer.into_body().collect().await?.to_bytes();
        Ok(Answer { status, way, detail, etag, is_gzip, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_edge_says_of_an_answer_is_read_as_it_is_meant() {
        for (status, way) in [
            (r#"nextream-edge; hit; ttl=299; detail="hit memory""#, Way::Hit),
            (r#"nextream-edge; hit; ttl=-3; detail="stale memory purged-soft""#, Way::Stale),
            (r#"nextream-edge; fwd=stale; detail="stale-error journal-unreachable""#, Way::Stale),
            (r#"nextream-edge; fwd=uri-miss; fwd-status=200; stored; detail="miss not-stored""#, Way::Forwarded),
            (r#"nextream-edge; fwd=bypass; detail="pass method""#, Way::Passed),
            ("", Way::Passed),
        ] {
            assert_eq!(Way::of(status), way, "{status}");
        }
    }
}
