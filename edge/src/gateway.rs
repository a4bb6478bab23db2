//! One request from the outside: routed, answered, counted. Every answer leaves with a phase in `Cache-Status`, but for those
//! of `/__edge/*` and of an edge that is not configured, which are about no document; every error as problem+json.
use crate::drive::{self, Call, Outcome};
use crate::identity::{EDGE_DEBUG, Who};
use crate::isolate::{self, Body, IsolateError};
use crate::origin_fetch::OriginRequest;
use crate::pass::{makes_another_request, pass};
use crate::purge_intake::verify;
use crate::respond::{self, Forwarded, Shape, fail, refuse};
use crate::route::{self, Route};
use crate::settings::{Mode, Settings};
use crate::viewer::{self, Depends, locale_asked};
use crate::{access, batch, cut, identity, journal_client, js, limits, ops, private, web};
use gateway_rules::limits::Class;
use kv_schemas::claims::Scope;
use kv_schemas::header::{MIN_AS_OF, SEC_PURPOSE};
use kv_schemas::{AsOf, Problem};
use std::cell::Cell;
use std::rc::Rc;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::engine::Stored;
use surrogate_cache::entry::key_about;
use surrogate_cache::fields::remove_hop_by_hop;
use surrogate_cache::lookup::Show;
use surrogate_cache::{Answer, Fields, Lookup, Reason, Request, encoding};
use wasm_bindgen::JsValue;
use worker::{Context, Env, console_error};

/// Request fields the API's shared documents may depend on. What is not here reaches neither key nor origin, so it
/// can neither split nor poison an entry.
const FIELDS_OF_SHARED: [&str; 8] = [
    // Chooses between two forms of one stored body; origin is asked in one.
    "accept-encoding",
    "if-none-match",
    "if-modified-since",
    MIN_AS_OF,
    // What nobody looks at yet is not in use (origin's warming).
    SEC_PURPOSE,
    "traceparent",
    "tracestate",
    "x-request-id",
];

/// Those of them whose words origin gets to read.
const SENT_ON: [&str; 2] = [SEC_PURPOSE, "tracestate"];

pub async fn handle(
    request: web_sys::Request,
    env: Env,
    context: Context,
    begun: Option<u32>,
) -> Result<web_sys::Response, JsValue> {
    // Whatever becomes of it, what was begun ends here.
    let begun = begun.map(|number| isolate::with(|isolate| isolate.begun.take(number)).flatten());
    let settings = match isolate::start(&env) {
        Ok(settings) => settings,
        Err(error) => {
            let text = match error {
                IsolateError::Settings(text) => text,
                IsolateError::Busy => "the isolate is busy".into(),
            };
            console_error!("settings: {text}");
            let problem = Problem::new(500, "misconfigured", "The edge is not configured; its log says why");
            return respond::problem(&problem, None);
        }
    };
    let location = journal_client::location(&request, settings.location.as_deref());
    let before = begun.as_ref().and_then(|begun| begun.as_ref().map(|one| one.began_ms));
    let began_ms = before.unwrap_or_else(isolate::now_ms);
    let begun = begun.map(|begun| Rc::new(Cell::new(begun.and_then(|one| one.read))));
    let trace = access::context(&request);
    let call = Call { request, env, context: Rc::new(context), settings, location: location.into(), trace, begun };
    let mut url = call.request.url();
    if call.settings.mode == Mode::Proxy && !route::is_usual(route::target_of(&url)) {
        // Of any path the platform makes some URL.
        url = js::href(&format!("http://edge{}", route::target_of(&url)), &url).unwrap_or_default();
    }
    let target = route::target_of(&url);
    let answer = respond(&call, target).await?;
    web::tell(&call, target, &answer)?;
    access::end(&call, target, began_ms, &answer)?;
    Ok(answer)
}

/// The answer to a request, or to a member of a batch: the gateway's own comforts and limits, then the route.
pub async fn respond(call: &Call, target: &str) -> Result<web_sys::Response, JsValue> {
    if call.settings.mode == Mode::Proxy {
        return dispatch(call, target).await;
    }
    let is_preflight = web::is_preflight(call);
    // A preflight costs no service anything, whatever it asks for.
    let class = Class::of(target).map(|class| if is_preflight { Class::Reads } else { class });
    // What was begun before has been counted.
    if call.begun.is_none()
        && let Some(refusal) = limits::refusal(call, class).await
    {
        return refusal;
    }
    let path = target.split('?').next().unwrap_or(target);
    let answer = match path {
        batch::PATH if !is_preflight => batch::handle(call).await,
        _ => match cut::handle(call, target).await {
            Some(answer) => answer,
            None => dispatch(call, target).await,
        },
    }?;
    limits::note(&answer, class, call)?;
    Ok(answer)
}

/// The answer to a request for this path and query.
pub async fn dispatch(call: &Call, target: &str) -> Result<web_sys::Response, JsValue> {
    match route::classify(call.settings.mode, &call.request.method(), target) {
        Route::OwnWrite { .. } | Route::Pass { .. } if web::is_preflight(call) => web::preflight(),
        Route::Edge(path) => ops::handle(call, &path).await,
        Route::Cached { target: document, depends } => cached(call, &document, depends, locale_asked(target)).await,
        Route::Own { target } => private::read(call, &target, js::fields(&call.request.headers())).await,
        Route::OwnWrite { target } => private::write(call, &target, &js::fields(&call.request.headers())).await,
        Route::Pass { target } => pass(call, &target, Reason::Route, None).await,
        Route::Invalid(problem) => fail(&problem, Reason::Invalid),
        Route::NotFound => refuse(404, "not-found", "There is nothing at this path", Reason::Route),
        Route::TooLong => refuse(414, "uri-too-long", "Path and query are longer than this edge serves", Reason::Route),
    }
}

/// A GET or HEAD that may be answered from the cache.
async fn cached(
    call: &Call,
    target: &str,
    depends: Depends,
    locale: Option<&str>,
) -> Result<web_sys::Response, JsValue> {
    let all = js::fields(&call.request.headers());
    if call.settings.mode == Mode::Proxy {
        if let Some(refusal) = limits::fields_refused(call, &all) {
            return refusal;
        }
        // Preconditions that guard writes are origin's business.
        if all.has("if-match") || all.has("if-unmodified-since") {
            return pass(call, target, Reason::Precondition, None).await;
        }
        // RFC 9110 section 9.3.1: content in a GET "has no generally defined semantics". Origin may have defined some, and
        // no key has it.
        if call.request.body().is_some() && all.get("content-length") != Some("0") {
            return pass(call, target, Reason::Method, None).await;
        }
    }
    let debug = all.get(EDGE_DEBUG);
    if let Some(token) = debug
        && let Err(problem) = verify(call, token, &[Scope::Debug]).await
    {
        return fail(&problem, Reason::Authorization);
    }
    let debug = debug.is_some();
    let who = match who(call, &all, depends).await {
        Ok(who) => who,
        Err(problem) => return fail(&problem, Reason::Authorization),
    };
    let region = (&call.request, debug);
    let about = viewer::about(depends, &identity::dimensions(&call.settings, &all, &who, depends, (locale, region)));
    let (private, varies) = (matches!(who, Who::Viewer(_)), viewer::varies(&about));
    look_up(call, (target, &about), all, None, Shape { debug, private, varies, ..Shape::default() }).await
}

/// The answer to a request for this path and query, which depends on `about`. `credentials`: what origin is to see of them.
pub async fn look_up(
    call: &Call,
    (target, about): (&str, &str),
    all: Fields,
    credentials: Option<&str>,
    shape: Shape,
) -> Result<web_sys::Response, JsValue> {
    let is_head = call.request.method() == "HEAD";
    let request = match prepare(&call.settings, target, about, all, is_head) {
        Ok(request) => request,
        Err(problem) => return fail(&problem, Reason::Invalid),
    };
    let mut told = request.fields.clone();
    if call.settings.mode == Mode::Gateway {
        viewer::tell(&mut told, about);
    }
    if let Some(credentials) = credentials {
        told.set("authorization", credentials);
    }
    let origin = OriginRequest::of(call, target, is_head, told);
    let key = request.key.clone();
    let takes_packed = encoding::takes_packed(&request.fields);
    let outcome = drive::answer(call, &origin, Lookup::new(request)).await;
    let unpack = !takes_packed && outcome.as_ref().is_some_and(|outcome| may_unpack(&outcome.answer));
    respond_to(call, &origin, outcome, &key, Shape { unpack, ..shape })
}

/// Who asks for a document that depends on it; most of the time without a promise.
async fn who(call: &Call, all: &Fields, depends: Depends) -> Result<Who, Problem> {
    if depends == Depends::NOTHING {
        return Ok(Who::Stranger);
    }
    if all.has("authorization") {
        private::catch_up(call).await;
    }
    let who = match identity::known(all) {
        Some(known) => known,
        None => identity::identify(call, all).await,
    };
    match who? {
        // A stranger may see more than a child: nobody is taken for one.
        Who::Unverifiable => {
            Err(Problem::new(503, "keys-unavailable", "The keys that verify tokens cannot be had; try again"))
        }
        who => Ok(who),
    }
}

/// The state the client demands.
fn min_as_of(all: &Fields) -> Result<Option<AsOf>, Problem> {
    let Some(text) = all.joined(MIN_AS_OF) else { return Ok(None) };
    text.parse::<AsOf>().map(Some).map_err(|error| {
        Problem::new(400, "min-as-of-invalid", "Min-As-Of is not of the form a write answers with")
            .fault("Min-As-Of", error.to_string())
    })
}

/// Whether an answer's body can be unpacked, and may be. If not, it goes out as it is and says so in `Content-Encoding`,
/// even to who does not list the coding: RFC 9110 section 12.5.3 says that a server SHOULD then send none, which yields to
/// a MUST NOT; and who sends no `Accept-Encoding` is taken to accept any.
fn may_unpack(answer: &Answer<Body>) -> bool {
    let fields = answer.fields();
    // A piece of a gzip stream unpacks to nothing, and `Content-Range` counts the packed bytes.
    let is_part = match answer {
        Answer::Stored { show, .. } => matches!(show, Show::Range(_)),
        Answer::Forwarded { head, .. } => head.status == 206,
        Answer::Failed { .. } => false,
    };
    // RFC 9110 section 7.7: "A proxy MUST NOT transform the content of a response message that contains a no-transform
    // cache directive".
    let directives = fields.joined("cache-control").unwrap_or_default();
    encoding::is_packed(fields) && !is_part && !respond::has_member(&directives, &["no-transform"])
}

/// The request as the engine sees it.
pub fn prepare(settings: &Settings, target: &str, about: &str, all: Fields, is_head: bool) -> Result<Request, Problem> {
    let min_as_of = min_as_of(&all)?;
    let mut fields = all;
    let directives = match settings.mode {
        Mode::Proxy => {
            remove_hop_by_hop(&mut fields);
            // They are not in the key, so what they make of the page would be everybody's.
            fields.retain(|name| !makes_another_request(name));
            RequestDirectives::of(&fields)
        }
        Mode::Gateway => {
            fields.retain(|name| FIELDS_OF_SHARED.contains(&name));
            if fields.bytes() > limits::FIELDS_BYTES_MAX {
                // A hit is answered without a look at them. To refuse others would be to answer by the way they take.
                fields.retain(|name| !SENT_ON.contains(&name));
            }
            // Viewers have no say over the cache: `no-cache` from many of them is how an origin is brought down.
            RequestDirectives::default()
        }
    };
    Ok(Request { key: key_about(about, target), is_head, fields, directives, min_as_of })
}

/// Gives an outcome the form clients get, and does what follows it.
pub fn respond_to(
    call: &Call,
    origin: &OriginRequest,
    outcome: Option<Outcome>,
    key: &str,
    shape: Shape,
) -> Result<web_sys::Response, JsValue> {
    let lost = || refuse(500, "edge-failed", "The edge could not serve this request", Reason::EdgeFailed);
    let Some(Outcome { answer, response, retry_after_s }) = outcome else { return lost() };
    let (proxied, web) = (call.settings.mode == Mode::Proxy, call.settings.web_origins.is_on());
    let shape = &Shape { is_head: origin.is_head, proxied, web, ..shape };
    isolate::count(answer.status());
    match answer {
        Answer::Stored { entry, show, age_ms, status, behind } => {
            let answer = respond::stored(&entry, &show, age_ms, &status, shape)?;
            let stored = (!behind.write.is_empty()).then(|| Rc::new(Stored { entry, marker: None }));
            drive::do_behind(call, origin, behind, stored);
            Ok(answer)
        }
        Answer::Forwarded { head, not_modified, status, store, behind } => {
            let Some(response) = response else { return lost() };
            let wanted = !shape.is_head && !not_modified;
            let body = drive::split_for_store(call, origin, &response, store, wanted, behind);
            let body = body.map(JsValue::from);
            let forwarded = Forwarded { response: &response, head: &head, body, not_modified, key };
            respond::forwarded(forwarded, &status, shape)
        }
        Answer::Failed { failure, status, behind } => {
            drive::do_behind(call, origin, behind, None);
            let (http_status, slug, title) = failure.problem();
            let answer = respond::problem(&Problem::new(http_status, slug, title), Some(&status))?;
            if let Some(retry_after_s) = retry_after_s {
                answer.headers().set("retry-after", &retry_after_s.to_string())?;
            }
            Ok(answer)
        }
    }
}
