//! `POST /__edge/warm`: has documents fetched ahead of viewers. Each goes through an ordinary lookup, so that what is
//! stored is what origin answers, under the key viewers ask for, and by the rule of all stores.
//!
//! Who may: a token of the scope `warm`, short-lived, made for this very body.
use crate::drive::{self, Call};
use crate::isolate;
use crate::origin_fetch::OriginRequest;
use crate::purge_intake::{authorize, body};
use crate::respond;
use crate::route::{self, Route};
use crate::settings::Mode;
use crate::viewer;
use gateway_rules::wanted::{Plan, plan};
use kv_schemas::claims::{Scope, body_digest};
use kv_schemas::viewer::Dimensions;
use kv_schemas::warm::{DOCUMENTS_MAX, Outcome, WARM_BYTES_MAX, WarmAnswer, WarmDocument, WarmRequest, Warmed};
use kv_schemas::{AsOf, Problem};
use std::cell::{Cell, RefCell};
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::entry::key_about;
use surrogate_cache::{Answer, Fields, Lookup, Phase, Request};

/// A document that is to be fetched: its key, and how origin is asked.
struct Wanted {
    key: String,
    origin: OriginRequest,
}

pub async fn handle(call: &Call) -> Result<web_sys::Response, Problem> {
    // The token is checked before a byte of the body is read.
    let claims = authorize(call, &[Scope::Warm]).await?;
    let body = body(call, WARM_BYTES_MAX).await?;
    if claims.body_sha256.as_deref() != Some(&body_digest(&body)) {
        return Err(Problem::new(401, "token-digest", "The token was made for another body, or for none"));
    }
    let request: WarmRequest = serde_json::from_slice(&body).map_err(|error| invalid().detail(error.to_string()))?;
    if request.documents.is_empty() || request.documents.len() > DOCUMENTS_MAX {
        return Err(invalid().fault("/documents", format!("1 to {DOCUMENTS_MAX} documents in one call")));
    }
    let mut faults = invalid();
    let mut wanted = Vec::with_capacity(request.documents.len());
    for (place, document) in request.documents.iter().enumerate() {
        match want(call, document) {
            Some(one) => wanted.push(one),
            None => faults = faults.fault(format!("/documents/{place}/target"), "no shared document is at this path"),
        }
    }
    if !faults.errors.is_empty() {
        return Err(faults);
    }
    let results: RefCell<Vec<Option<(Outcome, u16)>>> = RefCell::new(vec![None; wanted.len()]);
    let next = Cell::new(0);
    // As many at once as leaves room for the rest of the request's connections.
    let lane = || async {
        loop {
            let place = next.get();
            let Some(one) = wanted.get(place) else { return };
            next.set(place.saturating_add(1));
            let result = warm(call, one, &request.min_as_of).await;
            if let Some(slot) = results.borrow_mut().get_mut(place) {
                *slot = Some(result);
            }
        }
    };
    futures_util::future::join3(lane(), lane(), lane()).await;
    let documents = request.documents.into_iter().zip(results.into_inner()).map(|(document, result)| {
        let (outcome, status) = result.unwrap_or((Outcome::Failed, 500));
        Warmed { target: document.target, outcome, status }
    });
    let answer = WarmAnswer { documents: documents.collect() };
    Ok(respond::json(200, &serde_json::to_string(&answer).unwrap_or_default()))
}

fn invalid() -> Problem {
    Problem::new(400, "warm-invalid", "This is not a list of shared documents")
}

/// What a viewer of these dimensions would ask for; `None` if that is no shared document.
fn want(call: &Call, document: &WarmDocument) -> Option<Wanted> {
    if call.settings.mode != Mode::Gateway {
        return None;
    }
    // As for viewers: of a cut, nothing is stored; a page of the one size or the other is a document.
    let target = match plan(&document.target) {
        Ok(None) => document.target.clone(),
        Ok(Some(Plan { target, wanted: None })) => target,
        Ok(Some(Plan { wanted: Some(_), .. })) | Err(_) => return None,
    };
    let Route::Cached { target, depends } = route::classify(Mode::Gateway, "GET", &target) else { return None };
    let known = &call.settings.known;
    let stranger = Dimensions::default();
    let locale = document.locale.as_ref().and_then(|locale| known.locale(locale.as_str())).cloned();
    let dimensions = Dimensions {
        region: known.region(document.region.as_ref().map(|region| region.as_str())),
        locale: locale.unwrap_or_else(|| known.negotiated(None)),
        maturity: document.maturity.unwrap_or(stranger.maturity),
        plan: document.plan.unwrap_or(stranger.plan),
    };
    let about = viewer::about(depends, &dimensions);
    let fields = viewer::fields_of(&about).collect();
    Some(Wanted { key: key_about(&about, &target), origin: OriginRequest::of(call, &target, false, fields).ahead() })
}

async fn warm(call: &Call, wanted: &Wanted, min_as_of: &AsOf) -> (Outcome, u16) {
    let request = Request {
        key: wanted.key.clone(),
        is_head: false,
        fields: Fields::new(),
        directives: RequestDirectives::default(),
        min_as_of: Some(min_as_of.clone()),
    };
    let Some(mut outcome) = drive::answer(call, &wanted.origin, Lookup::new(request)).await else {
        return (Outcome::Failed, 500);
    };
    let phase = outcome.answer.status().phase;
    let (result, status) = match &outcome.answer {
        Answer::Stored { entry, .. } if phase == Phase::Hit => (Outcome::Fresh, entry.head.status),
        Answer::Stored { entry, .. } if phase == Phase::Revalidated => (Outcome::Stored, entry.head.status),
        Answer::Stored { entry, .. } => (Outcome::Failed, entry.head.status),
        Answer::Forwarded { head, store: None, .. } => (Outcome::NotStored, head.status),
        Answer::Forwarded { head, .. } => (Outcome::Stored, head.status),
        Answer::Failed { failure, .. } => (Outcome::Failed, failure.problem().0),
    };
    // Its body is read to the end and written to the tiers, and whatever else stands behind the answer is done.
    drive::finish_unheard(call, &mut outcome).await;
    // Not recalled: nobody has asked for it yet.
    let is_held = || isolate::with(|isolate| isolate.engine.has(&wanted.key)) == Some(true);
    if result == Outcome::Stored && !is_held() { (Outcome::NotStored, status) } else { (result, status) }
}
