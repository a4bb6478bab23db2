//! `fields=`, `limit=` and `cursor=`: what of a document a client wants, cut here from the one that is cached. The document
//! itself goes through the gateway as if it had been asked for whole, so that no cut has an entry, a key or a fill of its
//! own.
use crate::drive::Call;
use crate::respond::{self, fail, unpacked};
use crate::{gateway, isolate, js};
use gateway_rules::cut::Cutter;
use gateway_rules::wanted::{Fault, Plan, Wanted, plan};
use js_sys::Uint8Array;
use kv_schemas::Problem;
use surrogate_cache::Reason;
use surrogate_cache::encoding::{self, PACKED_BYTES_MIN};
use wasm_bindgen::JsValue;

/// Longer documents, unpacked, are not cut.
const DOCUMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A body that brings nothing for so long is given up.
const IDLE_MS: u64 = 15_000;

/// What said something of the document's bytes, and says nothing of the cut's.
const OF_THE_BYTES: [&str; 8] = [
    "content-length",
    "content-encoding",
    "content-digest",
    "content-md5",
    "repr-digest",
    "digest",
    "accept-ranges",
    "last-modified",
];

/// The answer to a request for a cut; `None` if it is none.
pub async fn handle(call: &Call, target: &str) -> Option<Result<web_sys::Response, JsValue>> {
    if !matches!(call.request.method().as_str(), "GET" | "HEAD") {
        return None;
    }
    match plan(target) {
        Ok(None) => None,
        Ok(Some(Plan { target, wanted: None })) => Some(gateway::dispatch(call, &target).await),
        Ok(Some(Plan { target, wanted: Some(wanted) })) => Some(answer(call, &target, &wanted).await),
        Err(Fault { parameter, message }) => {
            let problem = Problem::new(400, "query-invalid", "The query has faults").fault(parameter, message);
            Some(fail(&problem, Reason::Invalid))
        }
    }
}

async fn answer(call: &Call, target: &str, wanted: &Wanted) -> Result<web_sys::Response, JsValue> {
    let is_head = call.request.method() == "HEAD";
    let takes_packed = encoding::takes_packed(&js::fields(&call.request.headers()));
    let call = Call { request: of_the_document(&call.request, wanted)?, ..call.clone() };
    let whole = gateway::dispatch(&call, target).await?;
    let headers = whole.headers();
    let is_json = headers.get("content-type")?.is_some_and(|kind| kind.starts_with("application/json"));
    let is_cut = whole.status() == 200 && is_json;
    if is_cut || whole.status() == 304 {
        if let Some(tag) = headers.get("etag")?.and_then(|tag| wanted.etag(&tag)) {
            headers.set("etag", &tag)?;
        }
        headers.delete("last-modified")?;
    }
    if !is_cut {
        // The same answer, to a HEAD that was asked as a GET.
        return if is_head { js::without_body(&whole) } else { Ok(whole) };
    }
    // How the document came to be is how its cut did. While its bytes come, others count answers.
    let last = isolate::take_last();
    let bytes = cut(&whole, Some(wanted), DOCUMENT_BYTES_MAX).await?;
    isolate::with(|isolate| isolate.last = last);
    let Some(bytes) = bytes else {
        let problem = Problem::new(502, "document-broken", "The document could not be cut, or did not arrive whole");
        return fail(&problem, Reason::OriginFailed);
    };
    let headers = web_sys::Headers::new_with_headers(&headers)?;
    OF_THE_BYTES.iter().try_for_each(|name| headers.delete(name))?;
    send(&bytes, &headers, takes_packed, is_head)
}

/// A body of our own making, which the platform packs on its way to those who take it packed.
pub fn send(
    bytes: &[u8],
    headers: &web_sys::Headers,
    takes_packed: bool,
    is_head: bool,
) -> Result<web_sys::Response, JsValue> {
    respond::say_that_coding_varies(headers)?;
    if takes_packed && bytes.len() >= PACKED_BYTES_MIN {
        headers.set("content-encoding", "gzip")?;
    } else if is_head {
        headers.set("content-length", &bytes.len().to_string())?;
    }
    let body = if is_head { JsValue::NULL } else { Uint8Array::from(bytes).into() };
    js::respond(&body, 200, headers)
}

/// The same request for the whole document, and with its body: what a HEAD says depends on what a GET would send.
fn of_the_document(request: &web_sys::Request, wanted: &Wanted) -> Result<web_sys::Request, JsValue> {
    let headers = web_sys::Headers::new_with_headers(&request.headers())?;
    // The document's date says nothing about what is cut from it: tags alone are asked about.
    headers.delete("if-modified-since")?;
    if let Some(tags) = headers.get("if-none-match")? {
        match wanted.if_none_match(&tags) {
            Some(tags) => headers.set("if-none-match", &tags)?,
            None => headers.delete("if-none-match")?,
        }
    }
    let init = web_sys::RequestInit::new();
    init.set_method("GET");
    init.set_headers(&headers);
    web_sys::Request::new_with_request_and_init(request, &init)
}

/// A JSON answer's body, unpacked and cut, or whole if nothing is to be cut from it; `None` if it is no JSON, too long, or
/// breaks off.
pub async fn cut(
    response: &web_sys::Response,
    wanted: Option<&Wanted>,
    bytes_max: u64,
) -> Result<Option<Vec<u8>>, JsValue> {
    let Some(mut body) = response.body() else { return Ok(None) };
    if response.headers().get("content-encoding")?.is_some() {
        body = unpacked(&body)?;
    }
    let mut pieces = js::Pieces::of(&body);
    let selection = wanted.and_then(|wanted| wanted.selection.as_ref());
    let mut cutter = Cutter::new(selection, wanted.and_then(|wanted| wanted.slice.as_ref()));
    let mut left = bytes_max;
    loop {
        let Ok(piece) = pieces.next(IDLE_MS).await else { return Ok(None) };
        let Some(piece) = piece else { return Ok(cutter.finish().ok()) };
        match left.checked_sub(u64::from(piece.length())) {
            Some(rest) if cutter.feed(&piece.to_vec()).is_ok() => left = rest,
            _ => return Ok(None),
        }
    }
}
