//! The platform's rate limiting on this machine: Miniflare's own counter, one for each location, bound under the names the
//! Worker looks for. Which classes are counted, and how much they may, is what the Worker's variable `LIMITS` says; in
//! `wrangler.toml` the same figures stand twice, and a test here compares them.
use crate::workerd::Vars;
use gateway_rules::limits::{Class, Limits};
use std::fmt::Write;

fn counted(vars: &Vars) -> Vec<(&'static str, u64, u64)> {
    let text = vars.iter().rev().find(|(name, _)| name == "LIMITS").map_or("", |(_, value)| value.as_str());
    // What cannot be read the Worker says itself.
    let limits = Limits::read(text).unwrap_or_default();
    let of = |class: Class| Some((class.binding()?, limits.of(class)?));
    Class::ALL.into_iter().filter_map(of).map(|(name, policy)| (name, policy.quota, policy.window_s)).collect()
}

/// The services that count, for one location; `elsewhere`: at this address, over HTTP.
pub fn services(vars: &Vars, folder: &str, object: &str, elsewhere: Option<&str>) -> String {
    let counted = counted(vars);
    if counted.is_empty() {
        return String::new();
    }
    if let Some(address) = elsewhere {
        return counted.into_iter().fold(String::new(), |mut all, (name, ..)| {
            let _ =
                writeln!(all, "    ( name = \"counter-{name}\", external = ( address = \"{address}\", http = () ) ),");
            all
        });
    }
    let mut all = format!("    ( name = \"limits-disk\", disk = ( path = \"{folder}\", writable = true ) ),\n{object}");
    for (name, ..) in counted {
        let _ = writeln!(
            all,
            r#"    ( name = "counter-{name}", worker = (
      modules = [ ( name = "object-entry.js", esModule = embed "bundle/object-entry.js" ) ],
      compatibilityDate = "2023-07-24", compatibilityFlags = [ "nodejs_compat", "experimental" ],
      bindings = [
        ( name = "MINIFLARE_NAMESPACE", text = "{name}" ),
        ( name = "MINIFLARE_OBJECT", durableObjectNamespace = ( className = "RateLimiterObject", serviceName = "limits-object" ) ) ] ) ),"#
        );
    }
    all
}

/// The bindings of one Worker.
pub fn bindings(vars: &Vars) -> String {
    counted(vars).iter().fold(String::new(), |mut all, (name, quota, window_s)| {
        let _ = writeln!(
            all,
            r#"        ( name = "{name}", wrapped = ( moduleName = "cloudflare-internal:ratelimit:module", innerBindings = [
          ( name = "fetcher", service = "counter-{name}" ),
          ( name = "limit", json = "{quota}" ), ( name = "period", json = "{window_s}" ) ] ) ),"#
        );
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings, and what is bound: the platform reads one, the Worker the other.
    #[test]
    fn each_environment_binds_the_counters_its_limits_name() {
        let text = std::fs::read_to_string(crate::root().join("wrangler.toml")).unwrap();
        let values = |key: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
            lines.map(|value| value.trim().trim_matches('"').to_string()).collect()
        };
        let environments = values("LIMITS");
        assert_eq!(environments.len(), 3, "dev, staging, production");
        let mut named = Vec::new();
        for limits in environments {
            Limits::read(&limits).unwrap_or_else(|fault| panic!("{fault}"));
            for (name, quota, window_s) in counted(&vec![("LIMITS".into(), limits)]) {
                assert!(matches!(window_s, 10 | 60), "{name}: the platform counts in windows of 10 or 60 seconds");
                named.push((name.to_string(), format!("{{ limit = {quota}, period = {window_s} }}")));
            }
        }
        let names: Vec<String> = values("name").into_iter().filter(|name| name.starts_with("LIMIT_")).collect();
        let bound: Vec<(String, String)> = names.into_iter().zip(values("simple")).collect();
        assert_eq!(bound, named);
    }
}
