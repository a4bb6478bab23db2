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
use platform::{lease_and_bound_ms, number};
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

fn switch(text: &impl Fn(&str) -> Option<String>, name: &str) -> Result<bool, String> {
    match text(name).as_deref() {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(other) => Err(format!("{name} must be on or off, not '{other}'")),
    }
}

/// Each isolate's lease is up to a tenth shorter: so one of a location is the first to ask the journal, and the others
/// find what it was told.
fn spread(lease_ms: u64, drawn: u64) -> u64 {
    let spread_ms = (lease_ms / 10).saturating_add(1);
    lease_ms.saturating_sub(drawn.checked_rem(spread_ms).unwrap_or(0))
}

impl Settings {
    pub fn read(env: &Env) -> Result<Self, String> {
        let deployment = journal_client::id(env).unwrap_or_default();
        Self::of(&|name: &str| platform::text(env, name), deployment, crate::js::random())
    }

    /// `drawn`: a number at random.
    fn of(text: &impl Fn(&str) -> Option<String>, deployment: String, drawn: u64) -> Result<Self, String> {
        let mode = match text("MODE").as_deref() {
            Some("gateway") | None => Mode::Gateway,
            Some("proxy") => Mode::Proxy,
            Some(other) => return Err(format!("MODE must be gateway or proxy, not '{other}'")),
        };
        let log_owner = if platform::journal_numbers(text)? { LogOwner::Journal } else { LogOwner::Origin };
        let origin_url = text("ORIGIN_URL").ok_or("ORIGIN_URL is not set")?;
        // A proxy passes on what its origin sends, however long that takes.
        let (body_timeout_ms, request_bytes_max) = if mode == Mode::Gateway { (30_000, MIB) } else { (0, u64::MAX) };
        let terms = Terms {
            timeout_ms: number(text, "ORIGIN_TIMEOUT_MS", 10_000)?,
            body_timeout_ms: number(text, "BODY_TIMEOUT_MS", body_timeout_ms)?,
            request_bytes_max: number(text, "REQUEST_BYTES_MAX", request_bytes_max)?,
        };
        let table = text("SERVICES").unwrap_or_default();
        let limits = text("LIMITS").unwrap_or_default();
        let web_origins = text("WEB_ORIGINS").unwrap_or_default();
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
        let edge_secret = text("EDGE_SECRET").map(|secret| EdgeSecret::new(&secret)).transpose();
        let edge_secret = edge_secret.map_err(|e| format!("EDGE_SECRET: {e}"))?;
        let keys = text("TOKEN_KEYS").ok_or("TOKEN_KEYS is not set")?;
        let keys = Rc::new(KeySet::from_jwks(&keys).map_err(|e| format!("TOKEN_KEYS: {e}"))?);
        let known = Known::read(
            text("REGIONS").as_deref().unwrap_or_default(),
            text("LOCALES").as_deref().unwrap_or_default(),
        )?;
        let default = Config::default();
        let (lease_ms, bound_ms) = lease_and_bound_ms(text, default.lease_ms)?;
        let engine = Config {
            log_owner,
            lease_ms: spread(lease_ms, drawn),
            bound_ms,
            // The API's promise to editors: an edited page is not shown later than this, unless origin fails. In front of
            // other origins their own stale-while-revalidate decides.
            soft_window_ms_max: if mode == Mode::Gateway { bound_ms } else { u64::MAX },
            memory_bytes_max: number(text, "MEMORY_BYTES_MAX", default.memory_bytes_max)?,
            memory_own_bytes_max: number(text, "MEMORY_OWN_BYTES_MAX", default.memory_own_bytes_max)?,
            body_bytes_max: number(text, "BODY_BYTES_MAX", default.body_bytes_max)?,
            rules: Rules {
                heuristic_freshness: switch(text, "HEURISTIC_FRESHNESS")?,
                store_set_cookie: switch(text, "STORE_SET_COOKIE")?,
            },
            ..default
        };
        if engine.body_bytes_max > FILLS_BYTES_MAX {
            return Err(format!("BODY_BYTES_MAX must be at most {}: more is not held", FILLS_BYTES_MAX));
        }
        let panics = switch(text, "TEST_PANICS")?;
        let limits = Limits::read(&limits).map_err(|fault| format!("LIMITS: {fault}"))?;
        let access_log = text("ACCESS_LOG");
        // A proxy's paths are its origin's; a gateway's lines name routes.
        let default = if mode == Mode::Gateway { "all" } else { "off" };
        let access_log =
            Wish::read(access_log.as_deref().unwrap_or(default)).map_err(|fault| format!("ACCESS_LOG: {fault}"))?;
        let batch_timeout_ms = number(text, "BATCH_TIMEOUT_MS", 5_000)?;
        let location = text("LOCATION");
        Ok(Self {
            mode,
            services,
            location,
            deployment,
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

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [(&str, &str); 2] = [("ORIGIN_URL", "http://origin:1"), ("TOKEN_KEYS", r#"{"keys":[]}"#)];

    /// What is empty says nothing, as on the platform.
    fn read(vars: &[(&str, &str)]) -> Result<Settings, String> {
        let text = |name: &str| {
            let (_, value) = vars.iter().chain(&LEAST).find(|(of, _)| *of == name)?;
            (!value.is_empty()).then(|| value.to_string())
        };
        Settings::of(&text, String::new(), 99)
    }

    #[test]
    fn a_value_that_cannot_be_right_is_named() {
        for (name, bad) in [
            ("MODE", "both"),
            ("PURGE_LOG", "edge"),
            ("ORIGIN_URL", ""),
            ("ORIGIN_URL", "origin:1"),
            ("ORIGIN_TIMEOUT_MS", "10s"),
            ("BODY_TIMEOUT_MS", "-1"),
            ("REQUEST_BYTES_MAX", "1 MiB"),
            ("SERVICES", "/admin"),
            ("SERVICES", "/a http://a:1; /a http://b:1"),
            ("EDGE_SECRET", "too short"),
            ("TOKEN_KEYS", ""),
            ("TOKEN_KEYS", "a key"),
            ("TOKEN_KEYS", r#"{"keys":[{"kid":"a","kty":"RSA","crv":"","x":"","y":""}]}"#),
            ("REGIONS", "DE,Germany"),
            ("LOCALES", "en,English"),
            ("LEASE_MS", "soon"),
            ("BOUND_MS", "999"),
            ("MEMORY_BYTES_MAX", "32MiB"),
            ("MEMORY_OWN_BYTES_MAX", "8.5"),
            ("BODY_BYTES_MAX", "much"),
            ("BODY_BYTES_MAX", "16777217"),
            ("HEURISTIC_FRESHNESS", "true"),
            ("STORE_SET_COOKIE", "1"),
            ("TEST_PANICS", "yes"),
            ("LIMITS", "reads=5"),
            ("ACCESS_LOG", "sampled"),
            ("BATCH_TIMEOUT_MS", "5s"),
        ] {
            let said = read(&[(name, bad)]).expect_err(bad);
            assert!(said.contains(name), "{name}={bad}: {said}");
        }
        for (name, of_a_gateway) in [("SERVICES", "/admin http://admin:1"), ("LIMITS", "reads=5/60")] {
            assert!(read(&[(name, of_a_gateway)]).is_ok(), "{name}");
            let said = read(&[("MODE", "proxy"), (name, of_a_gateway)]).expect_err(name);
            assert!(said.contains(name), "{name}: {said}");
        }
    }

    #[test]
    fn what_is_not_set_is_as_documented() {
        let gateway = read(&[]).unwrap();
        assert_eq!((gateway.mode, gateway.engine.log_owner), (Mode::Gateway, LogOwner::Origin));
        assert_eq!((gateway.engine.lease_ms, gateway.engine.bound_ms), (901, 1_500), "up to a tenth is taken off");
        assert_eq!((gateway.access_log, gateway.batch_timeout_ms), (Wish::All, 5_000));
        let proxy = read(&[("MODE", "proxy")]).unwrap();
        assert_eq!((proxy.access_log, proxy.engine.soft_window_ms_max), (Wish::Off, u64::MAX));
    }
}
