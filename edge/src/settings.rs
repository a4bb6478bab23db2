//! What an operator sets in `wrangler.toml`: read once for each isolate, with a clear error for each value that
//! cannot be right. Nothing else in the Worker reads variables.
use crate::held::FILLS_BYTES_MAX;
use crate::journal_client;
use crate::signatures::KeySet;
use crate::viewer::Known;
use gateway_rules::access::Wish;
use gateway_rules::limits::Limits;
use gateway_rules::services::{Services, Terms};
use gateway_rules::web::WebOrigins;
use kv_schemas::edge_secret::EdgeSecret;
use platform::{lease_and_bound_ms, number, text};
use std::rc::Rc;
use surrogate_cache::{Config, LogOwner, Rules};
use worker::Env;

/// What stands behind the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nextream's API: a route table, and nothing that is not on it.
    Gateway,
    /// Any HTTP origin: all methods and paths pass, RFC 9111 decides.
    Proxy,
}

#[derive(Debug)]
pub struct Settings {
    pub mode: Mode,
    /// Where requests go.
    pub services: Services,
    pub location: Option<String>,
    /// Which of the deployments it is that may share a zone, and its Cache API with it.
    pub deployment: String,
    /// How often one client may ask.
    pub limits: Limits,
    /// Which web apps on other origins may use the API.
    pub web_origins: WebOrigins,
    /// How long a batch's members may take.
    pub batch_timeout_ms: u64,
    pub access_log: Wish,
    pub keys: Rc<KeySet>,
    /// What edge and origin share: with it origin is told where a request comes from.
    pub edge_secret: Option<EdgeSecret>,
    /// Whether `/__edge/panic` is there, for the tests of what comes after one.
    pub panics: bool,
    /// Regions and locales answers are kept apart by.
    pub known: Known,
    pub engine: Config,
}

const MIB: u64 = 1024 * 1024;

fn switch(env: &Env, name: &str) -> Result<bool, String> {
    match text(env, name).as_deref() {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(other) => Err(format!("{name} must be on or off, not '{other}'")),
    }
}

/// Each isolate's lease is up to a tenth shorter: so one of a location is the first to ask the journal, and the others
/// find what it was told.
fn spread(lease_ms: u64) -> u64 {
    let spread_ms = (lease_ms / 10).saturating_add(1);
    lease_ms.saturating_sub(crate::js::random().checked_rem(spread_ms).unwrap_or(0))
}

impl Settings {
    pub fn read(env: &Env) -> Result<Self, String> {
        let mode = match text(env, "MODE").as_deref() {
            Some("gateway") | None => Mode::Gateway,
            Some("proxy") => Mode::Proxy,
            Some(other) => return Err(format!("MODE must be gateway or proxy, not '{other}'")),
        };
        let log_owner = if platform::journal_numbers(env)? { LogOwner::Journal } else { LogOwner::Origin };
        let origin_url = text(env, "ORIGIN_URL").ok_or("ORIGIN_URL is not set")?;
        // A proxy passes on what its origin sends, however long that takes.
        let (body_timeout_ms, request_bytes_max) = if mode == Mode::Gateway { (30_000, MIB) } else { (0, u64::MAX) };
        let terms = Terms {
            timeout_ms: number(env, "ORIGIN_TIMEOUT_MS", 10_000)?,
            body_timeout_ms: number(env, "BODY_TIMEOUT_MS", body_timeout_ms)?,
            request_bytes_max: number(env, "REQUEST_BYTES_MAX", request_bytes_max)?,
        };
        let table = text(env, "SERVICES").unwrap_or_default();
        let limits = text(env, "LIMITS").unwrap_or_default();
        let web_origins = text(env, "WEB_ORIGINS").unwrap_or_default();
        for (value, fault) in [
            (&table, "SERVICES is for MODE=gateway; a proxy has one origin, ORIGIN_URL"),
            (&limits, "LIMITS is for MODE=gateway; a proxy knows no classes of routes and counts nobody"),
            (&web_origins, "WEB_ORIGINS is for MODE=gateway; a proxy's origin says that itself"),
        ] {
            if mode == Mode::Proxy && !value.is_empty() {
                return Err(fault.into());
            }
        }
        let web_origins =
            WebOrigins::read(&web_origins).ok_or("WEB_ORIGINS must be *, or at most 16 of scheme://host[:port]")?;
        let services =
            Services::read(&table, &origin_url, terms).map_err(|fault| format!("ORIGIN_URL, SERVICES: {fault}"))?;
        let edge_secret = text(env, "EDGE_SECRET").map(|secret| EdgeSecret::new(&secret)).transpose();
        let edge_secret = edge_secret.map_err(|e| format!("EDGE_SECRET: {e}"))?;
        let keys = text(env, "TOKEN_KEYS").ok_or("TOKEN_KEYS is not set")?;
        let keys = Rc::new(KeySet::from_jwks(&keys).map_err(|e| format!("TOKEN_KEYS: {e}"))?);
        let known = Known::read(
            text(env, "REGIONS").as_deref().unwrap_or_default(),
            text(env, "LOCALES").as_deref().unwrap_or_default(),
        )?;
        let default = Config::default();
        let (lease_ms, bound_ms) = lease_and_bound_ms(env, default.lease_ms)?;
        let engine = Config {
            log_owner,
            lease_ms: spread(lease_ms),
            bound_ms,
            // The API's promise to editors: an edited page is not shown later than this, unless origin fails. In front of
            // other origins their own stale-while-revalidate decides.
            soft_window_ms_max: if mode == Mode::Gateway { bound_ms } else { u64::MAX },
            memory_bytes_max: number(env, "MEMORY_BYTES_MAX", default.memory_bytes_max)?,
            memory_own_bytes_max: number(env, "MEMORY_OWN_BYTES_MAX", default.memory_own_bytes_max)?,
            body_bytes_max: number(env, "BODY_BYTES_MAX", default.body_bytes_max)?,
            rules: Rules {
                heuristic_freshness: switch(env, "HEURISTIC_FRESHNESS")?,
                store_set_cookie: switch(env, "STORE_SET_COOKIE")?,
            },
            ..default
        };
        if engine.body_bytes_max > FILLS_BYTES_MAX {
            return Err(format!("BODY_BYTES_MAX must be at most {}: more is not held", FILLS_BYTES_MAX));
        }
        let panics = switch(env, "TEST_PANICS")?;
        let limits = Limits::read(&limits).map_err(|fault| format!("LIMITS: {fault}"))?;
        let access_log = text(env, "ACCESS_LOG");
        // A proxy's paths are its origin's; a gateway's lines name routes.
        let default = if mode == Mode::Gateway { "all" } else { "off" };
        let access_log =
            Wish::read(access_log.as_deref().unwrap_or(default)).map_err(|fault| format!("ACCESS_LOG: {fault}"))?;
        let batch_timeout_ms = number(env, "BATCH_TIMEOUT_MS", 5_000)?;
        let location = text(env, "LOCATION");
        Ok(Self {
            mode,
            services,
            location,
            deployment: journal_client::id(env).unwrap_or_default(),
            limits,
            web_origins,
            batch_timeout_ms,
            access_log,
            keys,
            edge_secret,
            known,
            panics,
            engine,
        })
    }
}
