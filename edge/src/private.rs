//! What is a viewer's own (`/v1/me` and below): answered out of the isolate's memory to the bearer of a token that is known
//! to stand, under a key with that viewer's name in it, and to nobody else; in every other case origin decides.
//!
//! Such an answer is never written to a tier that is shared (`surrogate_cache::entry::viewer_of`), and browsers and caches
//! on the way are told to keep it private.
use crate::drive::{self, Call};
use crate::gateway::{self, FIELDS_OF_SHARED};
use crate::identity::{self, Viewer, Who};
use crate::isolate::{self, now_ms};
use crate::journal_client::Neighbours;
use crate::origin_fetch::OriginRequest;
use crate::pass::pass;
use crate::respond::{Shape, fail};
use crate::viewer::{self, Depends};
use kv_schemas::Problem;
use std::rc::Rc;
use std::time::Duration;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::entry::key_about;
use surrogate_cache::view::{Knowledge, Standing};
use surrogate_cache::{Fields, Lookup, Reason, Request, encoding};
use wasm_bindgen::JsValue;
use worker::Delay;

/// Longest identifier that stands in a key.
const ID_BYTES_MAX: usize = 64;

/// What answers to a viewer look like on the way.
pub const SHAPE: Shape = Shape {
    private: true,
    varies: &["authorization", "accept-language"],
    as_of: true,
    is_head: false,
    debug: false,
    cdn_policy: false,
    unpack: false,
};

/// Whose request goes to origin, and what it is told about them.
pub struct Own {
    /// `None`: the edge cannot verify the token now. Origin can.
    pub viewer: Option<Rc<Viewer>>,
    pub about: String,
}

/// Who asks for something of their own; a token is needed.
async fn own(call: &Call, all: &Fields) -> Result<Own, Problem> {
    catch_up(call).await;
    let who = identity::identify(call, all).await?;
    let about = viewer::about(
        Depends::EVERYTHING,
        &identity::dimensions(&call.settings, all, &who, Depends::EVERYTHING, (None, (&call.request, false))),
    );
    match who {
        Who::Stranger => {
            Err(Problem::new(401, "token-missing", "Log in, and send Authorization: Bearer with the token"))
        }
        Who::Viewer(viewer) => Ok(Own { viewer: Some(viewer), about }),
        Who::Unverifiable => Ok(Own { viewer: None, about }),
    }
}

pub async fn read(call: &Call, target: &str, all: Fields) -> Result<web_sys::Response, JsValue> {
    let own = match own(call, &all).await {
        Ok(own) => own,
        Err(problem) => return fail(&problem, Reason::Authorization),
    };
    let viewer = match &own.viewer {
        Some(viewer) if is_clean(call, viewer).await && names(viewer) => viewer,
        _ => return pass(call, target, Reason::Authorization, Some(&own)).await,
    };
    let (sub, sid) = (&viewer.claims.sub, &viewer.claims.sid);
    let about = format!(";viewer={sub};session={sid}{}", own.about);
    let is_head = call.request.method() == "HEAD";
    let min_as_of = match gateway::min_as_of(&all) {
        Ok(min_as_of) => min_as_of,
        Err(problem) => return fail(&problem, Reason::RequestDirective),
    };
    let mut fields = all.clone();
    // The key says whose it is; to the engine it is an answer like any other.
    fields.retain(|name| FIELDS_OF_SHARED.contains(&name));
    let mut told = fields.clone();
    viewer::tell(&mut told, &own.about);
    told.set("authorization", all.get("authorization").unwrap_or_default());
    let origin = OriginRequest::of(call, target, is_head, told);
    let key = key_about(&about, target);
    let takes_packed = encoding::takes_packed(&fields);
    let request = Request { key: key.clone(), is_head, fields, directives: RequestDirectives::default(), min_as_of };
    let outcome = drive::answer(call, &origin, Lookup::new(request)).await;
    let unpack = !takes_packed && outcome.as_ref().is_some_and(|outcome| gateway::may_unpack(&outcome.answer));
    gateway::respond_to(call, &origin, outcome, &key, Shape { unpack, ..SHAPE })
}

/// A write: what is remembered of its viewer is forgotten with it (`pass`).
pub async fn write(call: &Call, target: &str, all: &Fields) -> Result<web_sys::Response, JsValue> {
    match own(call, all).await {
        Ok(own) => pass(call, target, Reason::Method, Some(&own)).await,
        Err(problem) => fail(&problem, Reason::Authorization),
    }
}

/// Whether a token is known not to be revoked. Verifying it may have taken longer than knowledge lasts.
async fn is_clean(call: &Call, viewer: &Viewer) -> bool {
    let arrived_ms = now_ms();
    catch_up(call).await;
    let standing = isolate::with(|isolate| identity::standing(&isolate.engine, viewer, (arrived_ms, now_ms())));
    standing == Some(Standing::Clean)
}

/// An isolate whose knowledge of purges is too old asks first, as it would for a page, before it looks at a token: the token
/// may have been revoked since, or the key it was signed with withdrawn. Whether or not that succeeds, it ends.
pub async fn catch_up(call: &Call) {
    let arrived_ms = now_ms();
    loop {
        let next = isolate::with(|isolate| {
            let (engine, now_ms) = (&mut isolate.engine, now_ms());
            // What was asked for since the request came is good for it, however slowly the answer came.
            let asked_since = engine.view.confirmed_ms().is_some_and(|confirmed_ms| arrived_ms <= confirmed_ms);
            if asked_since || engine.knowledge(now_ms) != Knowledge::Unknown {
                Next::Done
            } else if engine.claim_sync(now_ms) {
                Next::Sync
            } else if engine.is_syncing(now_ms) && now_ms.saturating_sub(arrived_ms) < SYNC_MS_MAX {
                Next::Wait
            } else {
                Next::Done
            }
        });
        match next {
            Some(Next::Sync) => call.sync(Neighbours::Heard).await,
            Some(Next::Wait) => Delay::from(Duration::from_millis(WAIT_MS)).await,
            Some(Next::Done) | None => return,
        }
    }
}

enum Next {
    Sync,
    /// Another request asks.
    Wait,
    Done,
}

const WAIT_MS: u64 = 8;
const SYNC_MS_MAX: u64 = 1_000;

/// Whether the viewer's names can stand in a key; no others are ever issued.
fn names(viewer: &Viewer) -> bool {
    [&viewer.claims.sub, &viewer.claims.sid]
        .into_iter()
        .all(|name| !name.is_empty() && name.len() <= ID_BYTES_MAX && name.bytes().all(crate::query::is_unreserved))
}
