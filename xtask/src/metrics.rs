//! What is measured, in three places that must agree: the code that counts, the table of `docs/metrics.md`, and what `ops/`
//! asks for. Where they do not, an alert is silent for ever and nobody notices.
use crate::texts::{cells, quoted, read};
use std::collections::BTreeMap;

/// A metric as the table has it, or the code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// In the order of the alphabet.
    pub labels: Vec<String>,
}

impl Metric {
    fn new(kind: &str, labels: impl IntoIterator<Item = String>) -> Self {
        let mut labels: Vec<String> = labels.into_iter().collect();
        labels.sort();
        labels.dedup();
        Self { kind: kind.into(), labels }
    }
}

pub type Metrics = BTreeMap<String, Metric>;

/// Rows of tables that begin with a metric's name.
fn table_of(markdown: &str) -> Metrics {
    let rows = markdown.lines().filter(|line| line.starts_with("| `edge_") || line.starts_with("| `origin_"));
    let metric = |row: &str| {
        let [name, kind, labels, ..] = cells(row)[..] else { return None };
        Some((quoted(name).next()?.to_string(), Metric::new(kind, quoted(labels).map(String::from))))
    };
    rows.filter_map(metric).collect()
}

/// The table of `docs/metrics.md`.
pub fn documented() -> Metrics {
    table_of(&read("docs/metrics.md"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::{enclosed, literal, sources};
    use std::collections::BTreeSet;

    /// Suffixes of a histogram's series (Prometheus' text format).
    const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];
    /// Labels that Prometheus sets, and that Grafana's variables stand for.
    const LABELS_OF_ALL: [&str; 4] = ["instance", "job", "isolate", "le"];
    /// What is asked for and counted by others.
    const OF_OTHERS: [&str; 4] =
        ["up", "node_filesystem_avail_bytes", "node_filesystem_size_bytes", "nextream_backup_seconds"];

    fn is_of_a_name(c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_'
    }

    /// `metrics::counter!("name", "label" => value)` and its like.
    fn counted_at_origin(source: &str) -> Metrics {
        let mut metrics = Metrics::new();
        for kind in ["counter", "gauge", "histogram"] {
            for call in source.split(&format!("metrics::{kind}!(")).skip(1).map(enclosed) {
                let name =
                    literal(call).unwrap_or_else(|| panic!("a metric's name is to stand where it is counted: {call}"));
                let before_arrows = call.match_indices("=>").map(|(at, _)| call[..at].trim_end().trim_end_matches('"'));
                let labels = before_arrows.map(|before| before.rsplit('"').next().unwrap());
                let metric = Metric::new(kind, labels.map(String::from));
                let known = metrics.entry(name.to_string()).or_insert_with(|| metric.clone());
                assert_eq!(*known, metric, "{name} has one kind and the same labels everywhere");
            }
        }
        assert!(!source.contains("counter!(name") && !source.contains("describe_"), "names are literals");
        metrics
    }

    /// A name, by whose end the edge tells counters, and after it the labels of the series, `&[("label", …)]`.
    fn counted_at_the_edge(source: &str) -> Metrics {
        let mut metrics = Metrics::new();
        for (at, _) in source.match_indices("\"edge_") {
            let name = literal(&source[at..]).unwrap();
            let (kind, call) = match name {
                _ if name.ends_with("_total") => ("counter", ".series(&["),
                _ if name.ends_with("_seconds") => ("histogram", ".histogram("),
                _ => ("gauge", ".series(&["),
            };
            let series = source[at..].split(call).nth(1).map(enclosed).unwrap();
            let labels = series.split('(').skip(1).filter_map(literal);
            metrics.insert(name.into(), Metric::new(kind, labels.map(String::from)));
        }
        metrics
    }

    fn code() -> (Metrics, String) {
        let text = |folder: &str| sources(folder).into_iter().map(|(_, text)| text).collect::<String>();
        let [edge, origin, cache] = ["edge/src", "origin/src", "cache/src"].map(text);
        let mut metrics = counted_at_origin(&origin);
        metrics.extend(counted_at_the_edge(&edge));
        (metrics, [edge, origin, cache].concat())
    }

    /// Of an expression of PromQL each name of a metric, with the labels and the values it is asked for by.
    fn asked_for(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
        const WORDS: [&str; 8] = ["and", "or", "unless", "by", "without", "offset", "on", "bool"];
        // Neither a list of labels nor the length of a range is the name of a metric.
        let without_range = |part: &str| part.split_once(']').map_or(part.to_string(), |(_, behind)| behind.into());
        let mut text: String = expression.split('[').map(without_range).collect();
        for word in ["by", "without", "on"] {
            while let Some(at) = text.find(&format!("{word} (")) {
                let end = text[at..].find(')').map_or(text.len(), |end| at + end + 1);
                text.replace_range(at..end, "");
            }
        }
        let (mut asked, mut rest) = (Vec::new(), text.as_str());
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
            let end = at + rest[at..].find(|c| !is_of_a_name(c)).unwrap_or(rest.len() - at);
            let (name, behind) = (&rest[at..end], &rest[end..]);
            let is_within_a_number = rest[..at].ends_with(|c: char| c.is_ascii_digit());
            rest = behind;
            let selector = behind.strip_prefix('{').map(|inside| &inside[..inside.find('}').unwrap()]);
            if let Some(selector) = selector {
                rest = &behind[selector.len() + 2..];
            }
            // A function, a word, the unit of a duration.
            if behind.trim_start().starts_with('(') || WORDS.contains(&name) || is_within_a_number {
                continue;
            }
            let matchers = selector.unwrap_or("").split("\",").filter(|matcher| !matcher.trim().is_empty());
            let matcher = |matcher: &str| {
                let (label, value) = matcher.split_once('"').unwrap();
                (label.trim().trim_end_matches(['=', '!', '~']).to_string(), value.trim_end_matches('"').to_string())
            };
            asked.push((name.to_string(), matchers.map(matcher).collect()));
        }
        asked
    }

    /// Values of `expr` in YAML, and those of `expr` in the dashboard's JSON.
    fn expressions() -> Vec<(String, String)> {
        let mut all = Vec::new();
        let alerts = read("ops/alerts.yml");
        let mut lines = alerts.lines().peekable();
        while let Some(line) = lines.next() {
            let Some((indent, first)) = line.split_once("expr: ") else { continue };
            let mut expression = first.trim_start_matches('|').to_string();
            while let Some(next) = lines.next_if(|next| first == "|" && next.starts_with(&format!("{indent}  "))) {
                expression.push_str(next);
            }
            all.push(("ops/alerts.yml".to_string(), expression));
        }
        fn gather(value: &serde_json::Value, all: &mut Vec<(String, String)>) {
            match value {
                serde_json::Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
                    Some(text) if name == "expr" => all.push(("ops/dashboard.json".into(), text.into())),
                    _ => gather(value, all),
                }),
                serde_json::Value::Array(items) => items.iter().for_each(|item| gather(item, all)),
                _ => {}
            }
        }
        gather(&serde_json::from_str(&read("ops/dashboard.json")).unwrap(), &mut all);
        all
    }

    #[test]
    fn every_metric_of_the_code_stands_in_the_table_and_no_other() {
        let (code, _) = code();
        let table = documented();
        for (name, metric) in &code {
            assert_eq!(table.get(name), Some(metric), "{name}, as the code has it, in docs/metrics.md");
        }
        let gone: Vec<&String> = table.keys().filter(|name| !code.contains_key(*name)).collect();
        assert!(gone.is_empty(), "nothing counts {gone:?}");
        assert!(code.len() > 25, "so few are found: {code:?}");
    }

    #[test]
    fn what_alerts_and_dashboard_ask_for_is_counted() {
        let ((code, source), phases) = (code(), read("cache/src/phase.rs"));
        let expressions = expressions();
        let mut known = BTreeSet::new();
        for (file, expression) in &expressions {
            for (name, matchers) in asked_for(expression) {
                let plain = OF_HISTOGRAMS.iter().find_map(|suffix| name.strip_suffix(suffix));
                let metric = match plain.and_then(|plain| code.get(plain)).filter(|metric| metric.kind == "histogram") {
                    Some(histogram) => Some(histogram),
                    None => code.get(&name).filter(|metric| metric.kind != "histogram"),
                };
                let Some(metric) = metric else {
                    assert!(OF_OTHERS.contains(&name.as_str()), "{file}: nobody counts {name}: {expression}");
                    continue;
                };
                known.insert(name.clone());
                for (label, values) in matchers {
                    let has_label = metric.labels.contains(&label) || LABELS_OF_ALL.contains(&label.as_str());
                    assert!(has_label, "{file}: {name} has no label {label}: {expression}");
                    for value in values.split('|').filter(|value| value.chars().all(|c| is_of_a_name(c) || c == '-')) {
                        let words = if ["phase", "reason"].contains(&label.as_str()) { &phases } else { &source };
                        let is_there = words.contains(&format!("\"{value}\""));
                        assert!(is_there, "{file}: {label} of {name} is never {value:?}: {expression}");
                    }
                }
            }
        }
        let of = |file: &str| expressions.iter().filter(|(of, _)| of == file).count();
        assert!(of("ops/alerts.yml") > 20 && of("ops/dashboard.json") > 10 && known.len() > 15, "{known:?}");
    }

    /// Any client can demand a state that is not reached: it makes no failure.
    #[test]
    fn whoever_asks_for_failures_leaves_out_demanded_states() {
        let mut asked = 0;
        for (file, expression) in expressions() {
            if expression.contains("phase=\"failed\"") {
                assert!(!expression.contains("origin-behind"), "{file}: {expression}");
            }
            let failures = expression.matches("origin_requests_total{status=~\"5..\"}").count();
            assert_eq!(expression.matches("origin_behind_total").count(), failures, "{file}: {expression}");
            asked += failures;
        }
        assert!(asked > 3, "{asked}");
    }

    #[test]
    fn every_alert_says_what_it_is_and_what_to_do() {
        let alerts = read("ops/alerts.yml");
        let rules: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
        for rule in &rules {
            for member in ["expr: ", "severity: ", "summary: ", "action: "] {
                assert!(rule.contains(member), "{member}is missing: {rule}");
            }
        }
    }

    /// Names in what the documents say stand in the table, too.
    #[test]
    fn documents_name_no_metric_that_there_is_not() {
        let table = documented();
        for file in
            ["README.md", "ARCHITECTURE.md", "docs/api.md", "docs/metrics.md", "docs/operating.md", "docs/security.md"]
        {
            let text = read(file);
            let names = quoted(&text).filter(|name| name.chars().all(is_of_a_name) && name.ends_with("_total"));
            names.for_each(|name| assert!(table.contains_key(name), "{file}: there is no {name}"));
        }
    }

    #[test]
    fn expressions_are_taken_apart() {
        let one = |name: &str, matchers: &[(&str, &str)]| {
            let pair = |(label, value): &(&str, &str)| (label.to_string(), value.to_string());
            (name.to_string(), matchers.iter().map(pair).collect::<Vec<_>>())
        };
        let expression = "sum by (le) (rate(a_bucket{b=\"c|d\", e=~\"/v1/.*\"}[5m])) > 14.4 * 0.001 and f offset 1m unless g{h!~\"i\"}";
        let expected = [one("a_bucket", &[("b", "c|d"), ("e", "/v1/.*")]), one("f", &[]), one("g", &[("h", "i")])];
        assert_eq!(asked_for(expression), expected);
    }
}
