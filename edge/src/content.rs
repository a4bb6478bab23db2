//! A request's content, read before any service hears of it: bounded in length and in time, so that who sends it slowly,
//! or sends too much, costs the services nothing.
use crate::drive::Call;
use crate::held::Share;
use crate::js::{self, Patience, ReadError, Whole};
use gateway_rules::services::Index;
use kv_schemas::Problem;

/// Longer contents, where a service takes them, go through as they come.
const TAKEN_BYTES_MAX: u64 = 1024 * 1024;

/// A client that sends nothing for so long has left; one that sends so slowly is kept from the memory of an isolate.
pub const PATIENCE: Patience = Patience { idle_ms: 10_000, total_ms: 60_000 };

/// The content, if the request has one that is to be taken; it is left where it is if it is long.
pub async fn take(call: &Call, service: Index) -> Result<Option<Whole>, Problem> {
    let Some(body) = call.request.body() else { return Ok(None) };
    let allowed = call.settings.services.get(service).map_or(0, |service| service.terms.request_bytes_max);
    match declared(call)? {
        length if length > allowed => Err(too_large(allowed)),
        length if length > TAKEN_BYTES_MAX => Ok(None),
        _ => read(&body, allowed.min(TAKEN_BYTES_MAX), PATIENCE, Share::Uploads).await.map(Some),
    }
}

/// Reads a content of at most so many bytes. Whoever breaks it off hears no answer, so what did not come was slow.
pub async fn read(
    body: &web_sys::ReadableStream,
    bytes_max: u64,
    patience: Patience,
    share: Share,
) -> Result<Whole, Problem> {
    js::read_all(body, bytes_max, patience, share).await.map_err(|error| match error {
        ReadError::TooLarge => too_large(bytes_max),
        ReadError::Crowded => {
            Problem::new(503, "overloaded", "Too many requests with content are under way; try again")
        }
        ReadError::Broken => Problem::new(408, "request-timeout", "The request's content did not arrive"),
    })
}

/// The length the client declares. Without one, nobody can say beforehand that it is too long.
fn declared(call: &Call) -> Result<u64, Problem> {
    let length = call.request.headers().get("content-length").ok().flatten();
    length
        .and_then(|length| length.parse().ok())
        .ok_or_else(|| Problem::new(411, "length-required", "A request's content needs a Content-Length"))
}

pub fn too_large(bytes_max: u64) -> Problem {
    Problem::new(413, "body-too-large", "The request's content is longer than is taken here")
        .detail(format!("at most {bytes_max} bytes"))
}
