//! Who asks: viewers' tokens, verified with the keys origin publishes and remembered until they expire; and how they
//! stand by the purge log, looked at on every use.
//!
//! The keys are an ordinary entry of the cache (`/.well-known/jwks.json`, purged by the key `jwks`). A token is remembered
//! for the very set of keys it was verified with: another set, and it is verified anew. A token that is not good is
//! refused, never taken for no token: who asks without one may see more than a child may.
use crate::drive::{self, Call};
use crate::held::Share;
use crate::isolate::{self, Body, now_ms};
use crate::js::{self, Patience};
use crate::origin_fetch::OriginRequest;
use crate::respond;
use crate::settings::Settings;
use crate::signatures::KeySet;
use crate::viewer::{Depends, Known};
use kv_schemas::claims::{AUDIENCE_VIEWER, ISSUER, VIEWER_LIFETIME_S_MAX, ViewerClaims};
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::key_class::{session_key, user_key, viewer_key};
use kv_schemas::surrogate_key::{KeyHash, hash};
use kv_schemas::viewer::{Dimensions, Locale};
use kv_schemas::{AsOf, Problem};
use std::collections::HashMap;
use std::rc::Rc;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::Stored;
use surrogate_cache::entry::{key_of, surrogate_keys};
use surrogate_cache::policy::Policy;
use surrogate_cache::view::{Standing, Verdict};
use surrogate_cache::{Answer, Engine, Fields, Lookup, Request};
use tokens::{Expect, TokenError, Unverified};
use wasm_bindgen::JsValue;

/// Tokens remembered, in two halves of which the older is dropped: some 4 MB.
const REMEMBERED_MAX: usize = 4_096;
const JWKS_TARGET: &str = "/.well-known/jwks.json";
const JWKS_BYTES_MAX: u64 = 64 * 1024;
const JWKS_PATIENCE: Patience = Patience { idle_ms: 5_000, total_ms: 10_000 };
/// How long after origin was asked for keys it is not asked again, however many tokens name keys nobody knows.
const JWKS_PAUSE_MS: u64 = 10_000;

/// A viewer, as a verified token tells.
#[derive(Debug)]
pub struct Viewer {
    pub claims: ViewerClaims,
    /// Surrogate keys whose hard purge revokes the token.
    keys: [KeyHash; 2],
    /// From this second on the token is refused.
    ends_s: u64,
    generation: u64,
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Who {
    Stranger,
    Viewer(Rc<Viewer>),
    /// Bears a token nobody can verify now: the keys cannot be had.
    Unverifiable,
}

/// A set of keys as origin published it.
struct Published {
    keys: Rc<KeySet>,
    text: Vec<u8>,
    /// By what it is purged, the state it was read at, and how long it is fresh: as of any entry.
    purged_by: Vec<KeyHash>,
    as_of: Option<AsOf>,
    policy: Policy,
}

impl Published {
    fn verdict(&self, engine: &Engine<Body>) -> Verdict {
        engine.view.judge(self.as_of.as_ref(), &self.purged_by)
    }
}

/// What an isolate knows of keys and tokens.
#[derive(Default)]
pub struct Identities {
    published: Option<Published>,
    /// Counts the sets of keys there have been.
    generation: u64,
    /// When keys were last looked for; when for one that nobody knew; and when none could be had.
    looked_ms: Option<u64>,
    asked_anew_ms: Option<u64>,
    failed_ms: Option<u64>,
    young: Remembered,
    old: Remembered,
    /// Who takes the short way (`hits`), by number.
    bearers: Vec<Rc<Viewer>>,
}

type Remembered = HashMap<KeyHash, (String, Rc<Viewer>)>;

impl Identities {
    /// The viewer of a token that was verified before; or that it is over.
    fn recall(&mut self, token: &str, now_ms: u64) -> Option<Result<Rc<Viewer>, Problem>> {
        let place = hash(token);
        let (text, viewer) = self.young.get(&place).or_else(|| self.old.get(&place))?;
        // Two tokens may share a hash; only the one that was verified is good.
        let viewer = (text == token && viewer.generation == self.generation).then(|| Rc::clone(viewer))?;
        if now_ms / 1000 >= viewer.ends_s {
            return Some(Err(refused(&TokenError::Expired)));
        }
        if !self.young.contains_key(&place)
            && let Some((text, viewer)) = self.old.remove(&place)
        {
            self.keep(place, text, viewer);
        }
        Some(Ok(viewer))
    }

    fn keep(&mut self, place: KeyHash, token: String, viewer: Rc<Viewer>) {
        if self.young.len() >= REMEMBERED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place, (token, viewer));
    }

    /// Whether the keys are known well enough to rely on them without looking at what is stored.
    fn is_current(&self, engine: &Engine<Body>, now_ms: u64) -> bool {
        let is_good = self.published.as_ref().is_some_and(|published| {
            let is_fresh = published.policy.is_fresh(now_ms) || within(self.looked_ms, now_ms, JWKS_PAUSE_MS);
            is_fresh && published.verdict(engine) == Verdict::Clear
        });
        is_good || (within(self.failed_ms, now_ms, JWKS_PAUSE_MS) && !self.is_withdrawn(engine))
    }

    /// Whether the known set was purged so that nobody may rely on it.
    fn is_withdrawn(&self, engine: &Engine<Body>) -> bool {
        self.published.as_ref().is_some_and(|published| matches!(published.verdict(engine), Verdict::Hard(_)))
    }

    /// A number for a viewer, and what all are answered alike by who have it in common.
    pub fn enlist(&mut self, viewer: Rc<Viewer>, known: &Known) -> (usize, String) {
        let ViewerClaims { locale, maturity, plan, .. } = &viewer.claims;
        // Of the languages that are kept apart here: there would be no end to the others.
        let locale = locale.as_ref().and_then(|tag| known.locale(tag.as_str())).map_or("", Locale::as_str);
        let class = format!("{locale} {} {}", maturity.years(), plan.as_str());
        self.bearers.push(viewer);
        (self.bearers.len().saturating_sub(1), class)
    }

    pub fn dismiss(&mut self) {
        self.bearers.clear();
    }

    /// Whether a viewer's token is still good: not over, of the present keys, and not revoked.
    pub fn stands(&self, bearer: i32, engine: &Engine<Body>, now_ms: u64) -> bool {
        self.lasting(bearer, now_ms).is_some_and(|viewer| {
            self.is_current(engine, now_ms) && standing(engine, viewer, (now_ms, now_ms)) != Standing::Revoked
        })
    }

    /// Whether a number never stands again: its token has ended, or was verified by keys that have changed since.
    pub fn is_over(&self, bearer: i32, now_ms: u64) -> bool {
        self.lasting(bearer, now_ms).is_none()
    }

    fn lasting(&self, bearer: i32, now_ms: u64) -> Option<&Rc<Viewer>> {
        let viewer = self.bearers.get(usize::try_from(bearer).ok()?)?;
        (now_ms / 1000 < viewer.ends_s && viewer.generation == self.generation).then_some(viewer)
    }

    fn take(&mut self, found: Option<Published>, anew: bool, now_ms: u64) {
        if anew {
            self.asked_anew_ms = Some(now_ms);
        }
        let Some(found) = found else {
            self.failed_ms = Some(now_ms);
            return;
        };
        (self.looked_ms, self.failed_ms) = (Some(now_ms), None);
        if self.published.as_ref().is_none_or(|known| known.text != found.text) {
            self.generation = self.generation.saturating_add(1);
        }
        self.published = Some(found);
    }
}

/// Whether that was less than `ms` ago. After a clock that went back it was not.
fn within(then_ms: Option<u64>, now_ms: u64, ms: u64) -> bool {
    then_ms.and_then(|then_ms| now_ms.checked_sub(then_ms)).is_some_and(|ago_ms| ago_ms < ms)
}

/// The token of `Authorization: Bearer`, `None` without the field.
fn bearer(fields: &Fields) -> Option<Result<&str, Problem>> {
    let value = fields.get("authorization")?;
    let refused = || Problem::new(401, "token-refused", "Authorization is to be Bearer and one token");
    // Two of them may be read in two ways.
    if fields.all("authorization").nth(1).is_some() {
        return Some(Err(refused()));
    }
    let (scheme, token) = value.trim().split_once(' ').unwrap_or((value, ""));
    let token = token.trim();
    Some(if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() { Ok(token) } else { Err(refused()) })
}

/// Who asks, as far as this isolate can tell without asking anybody: `None` if it has to.
pub fn known(fields: &Fields) -> Option<Result<Who, Problem>> {
    let token = match bearer(fields) {
        None => return Some(Ok(Who::Stranger)),
        Some(Err(problem)) => return Some(Err(problem)),
        Some(Ok(token)) => token,
    };
    isolate::with(|isolate| {
        let now_ms = now_ms();
        if !isolate.identities.is_current(&isolate.engine, now_ms) {
            return None;
        }
        let viewer = isolate.identities.recall(token, now_ms)?;
        Some(viewer.and_then(|viewer| stands(&isolate.engine, viewer, now_ms)))
    })
    .flatten()
}

/// A viewer whose token has been revoked is none.
fn stands(engine: &Engine<Body>, viewer: Rc<Viewer>, now_ms: u64) -> Result<Who, Problem> {
    match standing(engine, &viewer, (now_ms, now_ms)) {
        Standing::Revoked => Err(Problem::new(401, "token-revoked", "This token has ended; refresh it, or log in")),
        Standing::Clean | Standing::Unknown => Ok(Who::Viewer(viewer)),
    }
}

/// How a viewer's token stands, for a request that came at `arrived_ms`.
pub fn standing(engine: &Engine<Body>, viewer: &Viewer, (arrived_ms, now_ms): (u64, u64)) -> Standing {
    engine.standing(&viewer.claims.as_of, &viewer.keys, arrived_ms, now_ms)
}

/// Who asks.
pub async fn identify(call: &Call, fields: &Fields) -> Result<Who, Problem> {
    if let Some(known) = known(fields) {
        return known;
    }
    let Some(token) = bearer(fields).transpose()? else { return Ok(Who::Stranger) };
    let expect = Expect { issuer: ISSUER, audience: AUDIENCE_VIEWER, lifetime_s_max: VIEWER_LIFETIME_S_MAX };
    let unverified = Unverified::read(token).map_err(|error| refused(&error))?;
    let Some(keys) = keys_for(call, unverified.kid()).await else { return Ok(Who::Unverifiable) };
    // Of the keys it is verified with: others may come while the platform verifies.
    let generation = isolate::with(|isolate| isolate.identities.generation).unwrap_or_default();
    let verified = keys.verify::<ViewerClaims>(&unverified, expect, now_ms() / 1000).await;
    let (claims, ends_s) = verified.map_err(|error| refused(&error))?;
    let keys = [hash(&session_key(&claims.sid)), hash(&user_key(&claims.sub))];
    isolate::with(|isolate| {
        let viewer = Rc::new(Viewer { claims, keys, ends_s, generation });
        isolate.identities.keep(hash(token), token.into(), Rc::clone(&viewer));
        stands(&isolate.engine, viewer, now_ms())
    })
    .unwrap_or(Ok(Who::Unverifiable))
}

/// Whether origin may be asked for keys because of a token: that is anybody's to send.
fn may_ask_anew() -> Option<bool> {
    isolate::with(|isolate| {
        let identities = &mut isolate.identities;
        let now_ms = now_ms();
        let may = !within(identities.asked_anew_ms, now_ms, JWKS_PAUSE_MS)
            && !within(identities.failed_ms, now_ms, JWKS_PAUSE_MS);
        if may {
            // Whoever comes next while this one asks need not.
            identities.asked_anew_ms = Some(now_ms);
        }
        may
    })
}

pub fn refused(error: &TokenError) -> Problem {
    let slug = if *error == TokenError::Expired { "token-expired" } else { "token-refused" };
    Problem::new(401, slug, "The token was refused").detail(error.to_string())
}

/// The keys for a token; if none of those known here has its name, perhaps one that was published a moment ago.
pub async fn keys_for(call: &Call, kid: &str) -> Option<Rc<KeySet>> {
    let known = keys(call, false).await?;
    if known.has(kid) || may_ask_anew() != Some(true) {
        return Some(known);
    }
    keys(call, true).await
}

/// The keys tokens are verified with: those origin publishes; as long as it has never published any, those of the settings.
/// `None`: the published ones were withdrawn, and new ones cannot be had.
async fn keys(call: &Call, anew: bool) -> Option<Rc<KeySet>> {
    let is_current = isolate::with(|isolate| isolate.identities.is_current(&isolate.engine, now_ms()))?;
    if anew || !is_current {
        let found = look_up(call, anew).await;
        isolate::with(|isolate| isolate.identities.take(found, anew, now_ms()));
    }
    isolate::with(|isolate| match &isolate.identities.published {
        None => Some(Rc::clone(&call.settings.keys)),
        Some(_) if isolate.identities.is_withdrawn(&isolate.engine) => None,
        Some(published) => Some(Rc::clone(&published.keys)),
    })
    .flatten()
}

/// The published keys, out of the cache or from origin; `anew`: not without asking origin.
async fn look_up(call: &Call, anew: bool) -> Option<Published> {
    let key = key_of(JWKS_TARGET);
    let directives = RequestDirectives { no_cache: anew, ..RequestDirectives::default() };
    let request = Request { key: key.clone(), is_head: false, fields: Fields::new(), directives, min_as_of: None };
    let origin = OriginRequest::of(call, JWKS_TARGET, false, Fields::new());
    let outcome = drive::answer(call, &origin, Lookup::new(request)).await?;
    let (head, as_of, purged_by, body) = match outcome.answer {
        Answer::Stored { entry, behind, .. } => {
            let stored = (!behind.write.is_empty()).then(|| Rc::new(Stored { entry: entry.clone(), marker: None }));
            drive::do_behind(call, &origin, behind, stored);
            let body = JsValue::from(entry.body.bytes.clone());
            (entry.head.clone(), entry.as_of.clone(), entry.keys.clone(), body)
        }
        Answer::Forwarded { head, store, behind, .. } => {
            let response = outcome.response?;
            let body = drive::split_for_store(call, &origin, &response, store, true, behind)?;
            let as_of = head.fields.get(SURROGATE_AS_OF).and_then(|text| text.parse().ok());
            let purged_by = surrogate_keys(&key, &head.fields).ok()?;
            (head, as_of, purged_by, JsValue::from(body))
        }
        Answer::Failed { behind, .. } => {
            drive::do_behind(call, &origin, behind, None);
            return None;
        }
    };
    let stream = if head.fields.has("content-encoding") { respond::unpacked(&body) } else { respond::stream_of(&body) };
    let text = js::read_all(&stream.ok()?, JWKS_BYTES_MAX, JWKS_PATIENCE, Share::Exempt).await.ok()?.bytes.to_vec();
    if head.status != 200 {
        return None;
    }
    let keys = match std::str::from_utf8(&text).ok().map(KeySet::from_jwks)? {
        Ok(keys) => keys.checked().await,
        Err(error) => Err(error),
    };
    match keys {
        Ok(keys) => {
            let policy = Policy::of(&head, call.settings.engine.rules);
            Some(Published { keys: Rc::new(keys), text, purged_by, as_of, policy })
        }
        Err(error) => {
            worker::console_error!("{JWKS_TARGET}: {error}");
            None
        }
    }
}

/// What about who asks may change an answer. The region is the platform's word; a debug token may say another one.
pub fn dimensions(
    settings: &Settings,
    fields: &Fields,
    who: &Who,
    depends: Depends,
    (locale, (request, is_debug)): (Option<&str>, (&web_sys::Request, bool)),
) -> Dimensions {
    let known = &settings.known;
    let mut dimensions = Dimensions::default();
    if depends.region {
        // Where no regions are kept apart there is nothing to ask the platform.
        let named = fields.get(EDGE_REGION).filter(|_| is_debug).map(str::to_string);
        dimensions.region = known.region(named.or_else(|| js::place_word(request, "country")).as_deref());
    }
    let mut locale = locale.and_then(|tag| known.locale(tag)).cloned();
    if let Who::Viewer(viewer) = who {
        let claims = &viewer.claims;
        (dimensions.maturity, dimensions.plan) = (claims.maturity, claims.plan);
        // The account's language may be one that is not kept apart here.
        locale = claims.locale.as_ref().and_then(|tag| known.locale(tag.as_str())).cloned().or(locale);
    }
    if depends.locale {
        dimensions.locale = locale.unwrap_or_else(|| known.negotiated(fields.joined("accept-language").as_deref()));
    }
    dimensions
}

/// Request field, with a debug token alone: the region to answer for.
pub const EDGE_REGION: &str = "edge-region";
/// The token of who may say that, and is told more.
pub const EDGE_DEBUG: &str = "edge-debug";

/// What a viewer's write means here: what was read for this viewer before it is gone, at once and in this isolate; the
/// purge in the log does the rest.
pub fn forget_viewer(viewer: &str, as_of: Option<&AsOf>) {
    isolate::with(|isolate| {
        isolate.engine.forget_viewer(viewer);
        if let Some(as_of) = as_of {
            isolate.engine.view.learn(as_of, hash(&viewer_key(viewer)));
        }
    });
}
