//! One viewer: a connection of her own that she keeps, and a thought of some seconds between one wish and the next. When a
//! wish is due does not depend on when the last was answered; if that comes late, so does the next, and that counts.
use super::World;
use super::line::{Answer, Line};
use super::scenario::{self, Page, Wish};
use super::tally::Took;
use bytes::Bytes;
use fastrand::Rng;
use http_body_util::Full;
use hyper::{Method, Request, header};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use xtask::fleet::PLATFORM_FIELD;

/// An answer that takes longer is an error.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pages a browser still has.
const KEPT: usize = 6;
/// Of so many answers that show titles in short, one is looked at.
const LOOKED_AT: u32 = 10;

pub struct Viewer {
    world: Arc<World>,
    /// Of the location she is sent to.
    port: u16,
    rng: Rng,
    country: &'static str,
    language: &'static str,
    /// Who is logged in has it from here, as refreshed.
    token: Option<watch::Receiver<String>>,
    kept: VecDeque<(String, String)>,
    following: Option<Wish>,
}

/// A request as a viewer's app sends it.
pub fn request(wish: &Wish, (country, language): (&str, &str), fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(&wish.method).uri(&wish.target).header(header::HOST, "edge.test");
    request = request.header(header::ACCEPT_ENCODING, "gzip").header(header::ACCEPT_LANGUAGE, language);
    request = request.header(PLATFORM_FIELD, format!(r#"{{"country":"{country}"}}"#));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    if wish.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    } else if wish.method != Method::GET {
        request = request.header(header::CONTENT_LENGTH, "0");
    }
    request.body(Full::from(wish.body.clone().unwrap_or_default())).expect("a wish is no request")
}

impl Viewer {
    pub fn new(world: &Arc<World>, n: usize, token: Option<watch::Receiver<String>>) -> Self {
        let mut rng = Rng::with_seed(world.seed.wrapping_mul(0x9e37_79b9).wrapping_add(n as u64));
        let (country, language) = scenario::place(&mut rng);
        let port = world.ports[rng.usize(0..world.ports.len())];
        Self { world: Arc::clone(world), port, rng, country, language, token, kept: VecDeque::new(), following: None }
    }

    /// Half a think time to one and a half, by the rate of now.
    fn thought(&mut self) -> Duration {
        Duration::from_secs_f64(self.world.think_s() * (0.5 + self.rng.f64()))
    }

    /// Opens the connection and lives until everybody stops.
    pub async fn live(mut self) {
        let mut stop = self.world.stopping();
        let opening = Instant::now();
        let mut line = match Line::open(self.port, &self.world.open).await {
            Ok(line) => line,
            Err(error) => return self.world.could_not_open(opening, error),
        };
        let mut due = Instant::now() + Duration::from_secs_f64(self.world.think_s() * self.rng.f64());
        loop {
            let was_idle = Instant::now() < due;
            tokio::select! {
                () = sleep_until(due.into()) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            if line.is_cut() {
                self.world.tally.failed(due, "a connection was cut while it was idle".into());
            } else {
                if was_idle {
                    self.world.tally.late(due, due.elapsed());
                }
                self.go_on(&mut line, due).await;
            }
            if line.is_cut() && !self.world.is_stopping() {
                match Line::open(self.port, &self.world.open).await {
                    Ok(new) => line = new,
                    Err(error) => self.world.tally.failed(due, format!("a new connection: {error}")),
                }
                self.world.tally.reopened();
            }
            due += self.thought();
        }
    }

    /// One wish, and what it is answered with.
    async fn go_on(&mut self, line: &mut Line, due: Instant) {
        let wish = match self.following.take() {
            Some(wish) => wish,
            None => scenario::next(&mut self.rng, &self.world.catalogue, self.token.is_some()),
        };
        let bearer = self.token.as_ref().map(|token| format!("Bearer {}", *token.borrow()));
        let mut fields: Vec<(&str, &str)> = Vec::new();
        fields.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        let kept = self.kept.iter().find(|(target, _)| wish.method == Method::GET && *target == wish.target);
        fields.extend(kept.map(|(_, etag)| ("if-none-match", etag.as_str())));
        let asks_if_changed = kept.is_some();
        let request = request(&wish, (self.country, self.language), &fields);
        let asked = Instant::now();
        let outcome = timeout(TIMEOUT, line.ask(request)).await;
        let (page, name) = (wish.page, wish.page.name());
        match outcome {
            Err(_) => {
                self.world.tally.failed(due, format!("{name}: no answer within {} s", TIMEOUT.as_secs()));
                // The answer may still come, and belongs to nobody.
                if let Ok(new) = Line::open(self.port, &self.world.open).await {
                    *line = new;
                }
            }
            Ok(Err(error)) => self.world.tally.failed(due, format!("{name}: {error}")),
            Ok(Ok(answer)) => {
                let not_modified = answer.status == 304 && asks_if_changed;
                if !not_modified && !(200..300).contains(&answer.status) {
                    let example = format!("{name}: status {}", answer.status);
                    return self.world.tally.failed(due, example);
                }
                let (way, detail, bytes) = (answer.way, answer.detail.as_str(), answer.bytes.len());
                self.world.tally.took(&Took { page, due, way, detail, not_modified, bytes });
                if !not_modified {
                    self.look(wish, &answer, asked);
                }
            }
        }
    }

    /// Keeps what a browser keeps, compares what may have been edited, and perhaps follows a link.
    fn look(&mut self, wish: Wish, answer: &Answer, asked: Instant) {
        let is_of_title = matches!(wish.page, Page::Title | Page::Series);
        let is_looked_at = match wish.page {
            Page::Title | Page::Series => title_of(&wish.target).is_some_and(|title| self.world.truth.is_edited(title)),
            Page::Own | Page::OwnWrite => false,
            _ => self.rng.u32(0..LOOKED_AT) == 0,
        };
        if is_looked_at && self.world.tally.is_counting() {
            let document = answer.json();
            let (compared, mut wrong) = self.world.truth.check(&document, asked);
            let own = wish.target.rsplit('/').next().unwrap_or_default();
            if is_of_title && document["id"] != own {
                wrong.push(format!("{} was answered with {}", wish.target, document["id"]));
            }
            self.world.tally.checked((compared, wrong));
        }
        self.following = scenario::follow(&mut self.rng, &wish, || answer.json());
        if let Some(etag) = &answer.etag {
            self.kept.retain(|(target, _)| *target != wish.target);
            self.kept.push_back((wish.target, etag.clone()));
            if self.kept.len() > KEPT {
                self.kept.pop_front();
            }
        }
    }
}

fn title_of(target: &str) -> Option<u64> {
    target.split("title-").nth(1)?.split('/').next()?.parse().ok()
}
