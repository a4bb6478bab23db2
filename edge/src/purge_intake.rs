//! `/__edge/purges`: who may purge, and in what form; and who may see how far purges have come.
//!
//! Origin's dispatcher sends batches of its log, each signed with a short-lived token that carries the digest of the
//! body. An edge that keeps its own log takes purges by keys with a longer-lived token instead. Nothing reaches the
//! journal before token, digest and size are checked; form and limits are checked there.
use crate::drive::Call;
use crate::held::Share;
use crate::isolate::{self, now_ms};
use crate::journal_client::{self, Neighbours};
use crate::js::Patience;
use crate::settings::Mode;
use crate::{content, identity, respond};
use kv_schemas::claims::{AUDIENCE_EDGE, EdgeClaims, ISSUER, Scope, body_digest};
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::purge::BATCH_BYTES_MAX;
use kv_schemas::receipt::DryRun;
use kv_schemas::{Problem, PurgeRequest, SurrogateKey};
use std::rc::Rc;
use surrogate_cache::LogOwner;
use tokens::{Expect, TokenError, Unverified};
use wasm_bindgen::JsValue;

const JOURNAL_MS: u64 = 5_000;
const BODY_PATIENCE: Patience = Patience { idle_ms: 5_000, total_ms: 30_000 };

/// Checks the bearer token of a call to `/__edge/*`, which must be of one of these scopes.
pub async fn authorize(call: &Call, scopes: &[Scope]) -> Result<EdgeClaims, Problem> {
    let header = call.request.headers().get("authorization").ok().flatten().unwrap_or_default();
    let (scheme, token) = header.trim().split_once(' ').unwrap_or(("", ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::new(401, "token-missing", "Send Authorization: Bearer with a token for this edge"));
    }
    verify(call, token, scopes).await
}

/// Checks a token for the edge, which must be of one of these scopes.
pub async fn verify(call: &Call, token: &str, scopes: &[Scope]) -> Result<EdgeClaims, Problem> {
    let token = Unverified::read(token.trim()).map_err(|error| refused(&error))?;
    // What it says it is for decides how long it may live; only then is looked at whether it is true.
    let claims = token.claims::<EdgeClaims>().ok_or_else(|| refused(&TokenError::Claims))?;
    let lifetime_s_max = claims.scope.lifetime_s_max();
    let expect = Expect { issuer: ISSUER, audience: AUDIENCE_EDGE, lifetime_s_max };
    let mut keys = Rc::clone(&call.settings.keys);
    // Our origin's keys rotate; the settings have those of the beginning. Any other origin has no say in who may purge.
    if !keys.has(token.kid())
        && call.settings.mode == Mode::Gateway
        && let Some(published) = identity::keys_for(call, token.kid()).await
    {
        keys = published;
    }
    let verified = keys.verify::<EdgeClaims>(&token, expect, now_ms() / 1000).await;
    let (claims, _) = verified.map_err(|error| refused(&error))?;
    if !scopes.contains(&claims.scope) {
        return Err(Problem::new(403, "token-scope", "The token does not allow this call"));
    }
    Ok(claims)
}

fn refused(error: &TokenError) -> Problem {
    Problem::new(401, "token-refused", "The token was refused").detail(error.to_string())
}

/// Who may see how far purges have come.
const RECEIPT_SCOPES: [Scope; 2] = [Scope::PurgeReceipt, Scope::PurgeRequest];

/// `POST /__edge/purges`.
pub async fn take(call: &Call) -> Result<web_sys::Response, Problem> {
    let result = passed_on(call).await;
    // Whoever refuses it, this isolate or the journal.
    if result.as_ref().map_or(true, |response| response.status() != 200) {
        isolate::with(|isolate| isolate.purges_refused = isolate.purges_refused.saturating_add(1));
    }
    result
}

/// Passes a question about purges on to the journal.
pub async fn ask(call: &Call, path: &str) -> Result<web_sys::Response, Problem> {
    authorize(call, &RECEIPT_SCOPES).await?;
    let (status, text, _) = journal(call, path, &JsValue::NULL).await?;
    if status == 200 { Ok(respond::json(200, &text)) } else { refusal(status, &text) }
}

/// What a purge would touch here, as far as that can be known.
pub async fn dry_run(call: &Call) -> Result<web_sys::Response, Problem> {
    authorize(call, &RECEIPT_SCOPES).await?;
    let request = PurgeRequest::read(&body(call, BATCH_BYTES_MAX).await?)?;
    let mut keys: Vec<_> = request.keys.iter().map(SurrogateKey::hash).collect();
    keys.sort_unstable();
    let known = isolate::with(|isolate| (isolate.engine.touched_by(&keys, request.all), isolate.engine.memory_len()));
    let (touched, held) = known.unwrap_or_default();
    let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
    let answer = DryRun { location: call.location.to_string(), touched: count(touched), held: count(held) };
    Ok(respond::json(200, &serde_json::to_string(&answer).unwrap_or_default()))
}

async fn journal(call: &Call, path: &str, body: &JsValue) -> Result<(u16, String, Option<String>), Problem> {
    journal_client::call(&call.env, path, body, JOURNAL_MS).await.map_err(|_| unreachable())
}

fn unreachable() -> Problem {
    Problem::new(503, "journal-unreachable", "The purge journal could not be reached; try again")
}

/// The journal's own problem+json, as it stands; anything else is for the log.
fn refusal(status: u16, text: &str) -> Result<web_sys::Response, Problem> {
    if matches!(status, 400 | 404 | 409 | 503) {
        return Ok(respond::plain(status, kv_schemas::header::PROBLEM_JSON, text));
    }
    worker::console_error!("journal answered {status}: {text}");
    Err(unreachable())
}

async fn passed_on(call: &Call) -> Result<web_sys::Response, Problem> {
    let owner = call.settings.engine.log_owner;
    // The token is checked before a byte of the body is read.
    let claims = match owner {
        LogOwner::Origin => authorize(call, &[Scope::PurgeBatch, Scope::PurgeRequest]).await?,
        LogOwner::Journal => authorize(call, &[Scope::PurgeRequest]).await?,
    };
    if owner == LogOwner::Origin && claims.scope == Scope::PurgeRequest {
        // Whoever may purge an edge with a log of its own is told where to purge this one.
        let title = "Purges of this edge come from its origin's log; purge at /admin/v1/purges";
        return Err(Problem::new(409, "log-from-origin", title));
    }
    let body = body(call, BATCH_BYTES_MAX).await?;
    let digest_required = owner == LogOwner::Origin;
    match &claims.body_sha256 {
        Some(digest) if *digest == body_digest(&body) => {}
        None if !digest_required => {}
        Some(_) => return Err(Problem::new(401, "token-digest", "The token was made for another body")),
        None => return Err(Problem::new(401, "token-digest", "The token must carry body_sha256")),
    }
    let path = match owner {
        LogOwner::Origin => "/batch",
        LogOwner::Journal => "/append",
    };
    // Passed on as it came: what it says the journal reads.
    match journal(call, path, &js_sys::Uint8Array::from(body.as_slice())).await? {
        (200, text, as_of) => {
            // The dispatcher's empty batches, one a second, bring news only to who missed some.
            let head = as_of.as_deref().and_then(|as_of| as_of.parse().ok());
            if isolate::with(|isolate| isolate.engine.view.newest()) != Some(head) {
                call.sync_behind(Neighbours::Ignored);
            }
            let response = respond::json(200, &text);
            if let Some(as_of) = as_of {
                let _ = response.headers().set(SURROGATE_AS_OF, &as_of);
            }
            Ok(response)
        }
        (status, text, _) => refusal(status, &text),
    }
}

/// The body of a call of at most so many bytes. Whose token was good waits for no stranger's content.
pub async fn body(call: &Call, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let Some(stream) = call.request.body() else { return Ok(Vec::new()) };
    let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    Ok(content::read(&stream, bytes_max, BODY_PATIENCE, Share::Exempt).await?.bytes.to_vec())
}
