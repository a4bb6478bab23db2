//! What is a viewer's own (`/v1/me` and below): answered out of the isolate's memory to the bearer of a token that is known
//! to stand, under a key with that viewer's name in it, and to nobody else; in every other case origin decides.
//!
//! Such an answer is never written to a tier that is shared (`surrogate_cache::entry::viewer_of`), and browsers and caches
//! on the way are told to keep it private.
use crate::drive::Call;
use crate::identity::{self, Viewer, Who};
use crate::isolate::{self, now_ms};
use crate::journal_client::Neighbours;
use crate::pass::pass;
use crate::respond::{Shape, fail};
use crate::viewer::{self, Depends};
use crate::{gateway, limits};
use kv_schemas::Problem;
use std::rc::Rc;
use std::time::Duration;
use surrogate_cache::engine::{CatchUp, Waits};
use surrogate_cache::view::Standing;
use surrogate_cache::{Fields, Reason};
use wasm_bindgen::JsValue;
use worker::Delay;

/// Longest identifier that stands in a key.
const ID_BYTES_MAX: usize = 64;

/// What answers to a viewer look like on the way.
pub const SHAPE: Shape = Shape {
    private: true,
    // `private` says that it depends on the token.
    varies: &["accept-language"],
    as_of: true,
    is_head: false,
    debug: false,
    proxied: false,
    web: false,
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
    if let Some(refusal) = limits::fields_refused(call, &all) {
        return refusal;
    }
    let own = match own(call, &all).await {
        Ok(own) => own,
        Err(problem) => return fail(&problem, Reason::Authorization),
    };
    let viewer = match &own.viewer {
        Some(viewer) if is_clean(call, viewer).await && names(viewer) => viewer,
        _ => return pass(call, target, Reason::Authorization, Some(&own)).await,
    };
    let (sub, sid) = (&viewer.claims.sub, &viewer.claims.sid);
    // The key says whose it is; to the engine it is an answer like any other.
    let about = format!(";viewer={sub};session={sid}{}", own.about);
    let credentials = all.get("authorization").unwrap_or_default().to_string();
    gateway::look_up(call, (target, &about), all, Some(&credentials), SHAPE).await
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
    let (arrived_ms, mut waits) = (Some(now_ms()), Waits::default());
    loop {
        match isolate::with(|isolate| isolate.engine.catch_up((arrived_ms, false), &mut waits, now_ms())) {
            Some(CatchUp::Sync) => call.sync(Neighbours::Heard).await,
            Some(CatchUp::Wait { ms }) => Delay::from(Duration::from_millis(ms)).await,
            Some(CatchUp::Ended) | None => return,
        }
    }
}

/// Whether the viewer's names can stand in a key; no others are ever issued.
fn names(viewer: &Viewer) -> bool {
    [&viewer.claims.sub, &viewer.claims.sid]
        .into_iter()
        .all(|name| !name.is_empty() && name.len() <= ID_BYTES_MAX && name.bytes().all(crate::query::is_unreserved))
}
