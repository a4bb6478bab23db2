//! What a write through the edge makes invalid, where the edge numbers its purges. The journal hears of the write before origin
//! does, and afterwards how it ended, together with its purge: whatever becomes of this isolate in between, what the write
//! changed is purged (`surrogate_cache::announced`).
use crate::drive::Call;
use crate::isolate::{self, Isolate};
use crate::journal_client::{self, Neighbours};
use crate::js::{self, CallError};
use crate::origin_fetch::OriginRequest;
use crate::{colo_cache, kv};
use kv_schemas::surrogate_key::{SurrogateKey, url_key};
use kv_schemas::{AsOf, PurgeMode, PurgeRequest};
use std::pin::pin;
use std::time::Duration;
use surrogate_cache::announced::{WriteEnd, WriteId};
use surrogate_cache::entry::key_of;
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::{Fields, LogOwner};
use worker::Delay;

/// What the journal waits for the end of a write beyond the time origin has: for the purge to come, which is tried again.
const GRACE_MS: u64 = 5_000;
/// Seconds between one attempt to purge and the next, while the journal cannot be reached: the platform lets work go on
/// for half a minute after the answer. From then on each answer of the journal's is an occasion.
const PAUSES_S: [u64; 4] = [1, 2, 4, 8];
/// Purges that the journal could not take yet: if there are more, everything is to be purged.
const OWED_MAX: usize = 64;

/// A purge that the journal is to take, and the write that ends with it, if it is one that ends.
pub type Owed = (PurgeRequest, Option<WriteId>);

/// A write of which the journal knows, unless it could not be reached.
pub struct Write {
    id: WriteId,
    /// Path and query, as clients ask for it here.
    target: String,
    /// The same at origin.
    url: String,
    reason: String,
    within_ms: u64,
}

impl Write {
    /// Tells the journal of a write before origin is asked. `None`: it is none, or origin has the log.
    pub async fn announce(call: &Call, origin: &OriginRequest, method: &str, target: &str) -> Option<Self> {
        if is_safe(method) || call.settings.engine.log_owner != LogOwner::Journal {
            return None;
        }
        let timeout_ms = call.settings.services.get(origin.service).map_or(0, |service| service.terms.timeout_ms);
        let write = Self {
            id: js::random(),
            target: target.to_string(),
            url: origin.url.clone(),
            reason: format!("{method} through the edge"),
            within_ms: timeout_ms.saturating_add(GRACE_MS),
        };
        write.say(call).await;
        Some(write)
    }

    fn purge(&self, targets: &[String]) -> PurgeRequest {
        let keys = targets.iter().map(|target| url_key(target)).collect();
        PurgeRequest { keys, all: false, mode: PurgeMode::Hard, reason: Some(self.reason.clone()) }
    }

    async fn say(&self, call: &Call) {
        let purge = self.purge(std::slice::from_ref(&self.target));
        if let Err(error) = journal_client::announce(&call.env, self.id, self.within_ms, &purge).await {
            // The write goes on: what is lost with this isolate then is an old page, until its lifetime ends.
            worker::console_warn!("journal: a write was not announced: {}", error.text());
        }
    }

    /// Has origin asked. A client that takes its time over the content is announced anew, so that its write does not count as done
    /// before it is.
    pub async fn see_through<T>(&self, call: &Call, asked: impl Future<Output = T>) -> T {
        let mut asked = pin!(asked);
        loop {
            let pause = Delay::from(Duration::from_millis(self.within_ms / 2));
            match futures_util::future::select(asked, pause).await {
                futures_util::future::Either::Left((answer, _)) => return answer,
                futures_util::future::Either::Right((_, still)) => asked = still,
            }
            self.say(call).await;
        }
    }

    /// Purges the URLs a write touched: its target, and those the answer names. The state that made, or nothing if there was
    /// nothing to purge or the journal could not be reached.
    pub async fn ended(
        self,
        call: &Call,
        answer: &Result<(ResponseHead, web_sys::Response), CallError>,
    ) -> Option<AsOf> {
        let (end, named) = end_of(answer);
        if !end.purges() {
            let call_ = call.clone();
            call.behind(async move {
                if let Err(error) = journal_client::end(&call_.env, self.id).await {
                    worker::console_warn!("journal: {}", error.text());
                }
            });
            return None;
        }
        let mut targets = vec![self.target.clone()];
        for name in ["location", "content-location"] {
            targets.extend(named.get(name).and_then(|reference| same_site(call, &self.url, reference)));
        }
        let purge = self.purge(&targets);
        let ends = end.is_last().then_some(self.id);
        if ends.is_none() {
            // It is to be purged once more later, even if the journal could not be reached before.
            self.say(call).await;
        }
        if let Ok(state) = append(call, &purge, ends).await {
            // What was purged is known here by now; what others have purged can wait.
            call.sync_behind(Neighbours::Ignored);
            return Some(state);
        }
        // Noted first: whatever follows may be cut off.
        isolate::with(|isolate| owe(&mut isolate.owed, (purge, ends)));
        let call_ = call.clone();
        call.behind(async move {
            for pause_s in PAUSES_S {
                Delay::from(Duration::from_secs(pause_s)).await;
                if pay(&call_).await {
                    break;
                }
            }
        });
        forget(call, targets).await;
        None
    }
}

/// RFC 9110 section 9.2.1.
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

static NO_FIELDS: Fields = Fields::NONE;

/// RFC 9111 section 4.4: "A cache MUST invalidate the target URI when it receives a non-error status code in response to an
/// unsafe request method". Where no answer came, origin may have done what it was asked to, unless it was not asked at all, or
/// not to the end.
fn end_of(answer: &Result<(ResponseHead, web_sys::Response), CallError>) -> (WriteEnd, &Fields) {
    match answer {
        Ok((head, _)) if head.status < 400 => (WriteEnd::Done, &head.fields),
        // Somebody in front of it says that it did not answer.
        Ok((head, _)) if matches!(head.status, 502 | 504) => (WriteEnd::Unknown, &NO_FIELDS),
        Ok(_) | Err(CallError::LeftAlone { .. } | CallError::Unsent(_)) => (WriteEnd::Refused, &NO_FIELDS),
        Err(CallError::Timeout | CallError::Refused(_)) => (WriteEnd::Unknown, &NO_FIELDS),
    }
}

/// The path with its query of a URI origin names, as clients ask for it here; if it is one of this site. RFC 9111 section
/// 4.4: "a cache MUST NOT trigger an invalidation [...] if the origin [...] of the URI to be invalidated differs from the
/// origin of the target URI". Origin may know the site by its own name, with the path it is below, or by the edge's.
pub fn same_site(call: &Call, url: &str, reference: &str) -> Option<String> {
    let named = js::href(reference, url)?;
    let below = |base: &str, url: &str| {
        let base = js::href(base, url)?;
        let target = named.strip_prefix(base.trim_end_matches('/'))?;
        target.starts_with('/').then(|| target.split('#').next().unwrap_or(target).to_string())
    };
    let origin_url = call.settings.services.default_url();
    below(origin_url, url).or_else(|| below("/", &call.request.url()))
}

/// Has the journal take a purge, which is known here then: before the writer has the answer, and should the sync that
/// follows fail, too.
async fn append(call: &Call, purge: &PurgeRequest, ends: Option<WriteId>) -> Result<AsOf, CallError> {
    let appended = journal_client::append(&call.env, purge, ends).await;
    match &appended {
        Ok(state) => {
            let keys: Vec<_> = purge.keys.iter().map(SurrogateKey::hash).collect();
            isolate::with(|isolate| isolate.engine.learn_written(state, &keys));
        }
        Err(error) => worker::console_warn!("journal: {}", error.text()),
    }
    appended
}

/// What can be found here of what was changed is forgotten at once. The other locations and tiers learn of it when the journal
/// is back.
async fn forget(call: &Call, targets: Vec<String>) {
    for target in targets {
        isolate::with(|isolate| isolate.engine.forget_target(&target));
        let key = key_of(&target);
        colo_cache::delete(&key).await;
        kv::delete(&call.env, &key).await;
    }
}

fn owe(owed: &mut Vec<Owed>, purge: Owed) {
    if owed.len() < OWED_MAX {
        owed.push(purge);
        return;
    }
    // Of which the journal was told are purged by itself when they are due.
    let reason = Some("writes through the edge while the journal was away".into());
    *owed = vec![(PurgeRequest { keys: Vec::new(), all: true, mode: PurgeMode::Hard, reason }, None)];
}

/// Has the journal take what it could not take before. Whether that is all of it.
async fn pay(call: &Call) -> bool {
    let mut is_news = false;
    // Each stays until it is taken: this may be cut off at any moment, and to purge twice is to purge.
    while let Some(next) = isolate::with(|isolate| isolate.owed.first().cloned()).flatten() {
        let (purge, ends) = &next;
        if append(call, purge, *ends).await.is_err() {
            return false;
        }
        isolate::with(|isolate| isolate.owed.retain(|owed| *owed != next));
        is_news = true;
    }
    if is_news {
        // Of a purge of everything nothing was noted here. Nobody waits.
        call.sync(Neighbours::Ignored).await;
    }
    true
}

/// If the journal has answered a question asked since then, it can take what it could not take before.
pub fn pay_behind(call: &Call, since_ms: u64) {
    let is_due = |isolate: &mut Isolate| {
        !isolate.owed.is_empty() && isolate.engine.view.confirmed_ms().is_some_and(|at_ms| at_ms >= since_ms)
    };
    if isolate::with(is_due) == Some(true) {
        let call_ = call.clone();
        call.behind(async move {
            pay(&call_).await;
        });
    }
}
