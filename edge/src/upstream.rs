//! The services behind the edge, as this isolate sees them: each with a breaker and a retry budget of its own, so that
//! one that fails costs nothing but itself. A proxy's one origin is asked as it is: a stranger's URLs may fail for
//! reasons of their own.
use crate::exposition::Exposition;
use crate::isolate::now_ms;
use crate::js::{self, CallError};
use crate::settings::{Mode, Settings};
use gateway_rules::breaker::{Breaker, Config, Pass, State};
use gateway_rules::retry::RetryBudget;
use gateway_rules::services::{Index, Services};
use std::cell::RefCell;

struct Upstream {
    breaker: Breaker,
    budget: RetryBudget,
    retries: u64,
    left_alone: u64,
}

thread_local! {
    /// In the order of the table, made when first used.
    static UPSTREAMS: RefCell<Vec<Upstream>> = const { RefCell::new(Vec::new()) };
}

/// What a request has for content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    None,
    /// Read from the client to its end already.
    Taken,
    /// Still on its way.
    Streamed,
}

fn with<T>(services: &Services, index: Index, work: impl FnOnce(&mut Upstream) -> T) -> Option<T> {
    UPSTREAMS.with(|cell| {
        let mut upstreams = cell.try_borrow_mut().ok()?;
        if upstreams.is_empty() {
            // A probe that outlives its service's timeout by a second was lost.
            upstreams.extend(services.iter().map(|service| Upstream {
                breaker: Breaker::new(Config {
                    probe_ms: service.terms.timeout_ms.saturating_add(1_000),
                    ..Config::default()
                }),
                budget: RetryBudget::default(),
                retries: 0,
                left_alone: 0,
            }));
        }
        upstreams.get_mut(index).map(work)
    })
}

fn begin(services: &Services, index: Index) -> Result<Option<Pass>, CallError> {
    let begun = with(services, index, |upstream| {
        let begun = upstream.breaker.begin(now_ms());
        match begun {
            Ok(_) => upstream.budget.earn(),
            Err(_) => upstream.left_alone = upstream.left_alone.saturating_add(1),
        }
        begun
    });
    match begun {
        Some(Err(refused)) => Err(CallError::LeftAlone { retry_after_ms: refused.retry_after_ms }),
        Some(Ok(pass)) => Ok(Some(pass)),
        None => Ok(None),
    }
}

/// Whether an outcome speaks against the upstream. A 500 is about one request and a 503 may be what a client asked for
/// (`Min-As-Of`), so that strangers could open the breaker with them; these say that nobody is there.
fn is_failure(answer: &Result<web_sys::Response, CallError>) -> bool {
    match answer {
        Ok(response) => matches!(response.status(), 502 | 504),
        Err(_) => true,
    }
}

/// Whether a failure may as well be the client's: it broke its content off, was slow to send it, or sent what made the service
/// hang up before it had read it all.
fn is_of_client(answer: &Result<web_sys::Response, CallError>, content: Content) -> bool {
    matches!(answer, Err(CallError::Unsent(_))) || (answer.is_err() && content == Content::Streamed)
}

/// Sends a request to a service, unless that is left alone. A read whose connection broke before the answer began is
/// sent once more if the budget allows, within the same time.
pub async fn ask(
    settings: &Settings,
    index: Index,
    request: &web_sys::Request,
    content: Content,
) -> Result<web_sys::Response, CallError> {
    let services = &settings.services;
    let Some(terms) = services.get(index).map(|service| service.terms) else { return Err(CallError::Timeout) };
    if settings.mode == Mode::Proxy {
        return js::send(request, terms.timeout_ms, terms.body_timeout_ms).await;
    }
    let may_repeat = content == Content::None && matches!(request.method().as_str(), "GET" | "HEAD");
    let due_ms = now_ms().saturating_add(terms.timeout_ms);
    let mut pass = begin(services, index)?;
    let mut is_second = false;
    loop {
        let left_ms = due_ms.saturating_sub(now_ms());
        let answer = js::send(request, left_ms, terms.body_timeout_ms).await;
        let repeat = with(services, index, |upstream| {
            match pass {
                Some(pass) if is_of_client(&answer, content) => upstream.breaker.forget(pass),
                Some(pass) => upstream.breaker.end(pass, !is_failure(&answer), now_ms()),
                None => {}
            }
            let broke = matches!(answer, Err(CallError::Refused(_)));
            let repeat = may_repeat && broke && !is_second && due_ms > now_ms() && upstream.budget.spend();
            upstream.retries = upstream.retries.saturating_add(u64::from(repeat));
            repeat
        });
        if repeat != Some(true) {
            return answer;
        }
        match begin(services, index) {
            Ok(begun) => pass = begun,
            Err(_) => return answer,
        }
        is_second = true;
    }
}

/// For `/__edge/metrics`.
pub fn metrics(services: &Services, text: &mut Exposition) {
    type Figure = fn(&Upstream) -> u64;
    let figures: [(&'static str, Figure); 4] = [
        ("edge_breaker_open", |upstream| u64::from(upstream.breaker.state() != State::Closed)),
        ("edge_breaker_opened_total", |upstream| upstream.breaker.times_opened),
        ("edge_upstream_retries_total", |upstream| upstream.retries),
        ("edge_upstream_left_alone_total", |upstream| upstream.left_alone),
    ];
    for &(name, figure) in &figures {
        text.metric(name);
        for (index, service) in services.iter().enumerate() {
            if let Some(value) = with(services, index, |upstream| figure(upstream)) {
                text.series(&[("service", &service.name)], value);
            }
        }
    }
}
