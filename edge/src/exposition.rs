//! Prometheus' text format, for `/__edge/metrics`. What each metric means stands in `docs/metrics.md`; a test compares the two.

/// A text that grows by metrics, each followed by its series.
///
/// Every series bears the isolate's number: a scrape is answered by whichever isolate the platform picks, and counters of two
/// in one series would look like one that starts anew with each scrape.
pub struct Exposition {
    text: String,
    name: &'static str,
    isolate: String,
}

#[inline(never)]
fn put(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
}

impl Exposition {
    pub fn of(isolate: u64) -> Self {
        Self { text: String::new(), name: "", isolate: isolate.to_string() }
    }

    /// Begins a metric: a counter, if its name ends as those of counters do.
    pub fn metric(&mut self, name: &'static str) {
        self.name = name;
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        put(&mut self.text, &["# TYPE ", name, " ", kind, "\n"]);
    }

    /// One of its series. Values of labels are ours, or names of services: nothing in them has to be escaped.
    pub fn series(&mut self, labels: &[(&str, &str)], value: u64) {
        put(&mut self.text, &[self.name, "{"]);
        for (label, text) in labels {
            put(&mut self.text, &[label, "=\"", text, "\","]);
        }
        put(&mut self.text, &["isolate=\"", &self.isolate, "\"} ", &value.to_string(), "\n"]);
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_the_name_of_its_metric_and_the_number_of_its_isolate() {
        let mut text = Exposition::of(7);
        text.metric("a_total");
        text.series(&[("b", "c"), ("d", "e")], 1);
        text.metric("f");
        text.series(&[], u64::MAX);
        let expected = "# TYPE a_total counter\na_total{b=\"c\",d=\"e\",isolate=\"7\"} 1\n\
                        # TYPE f gauge\nf{isolate=\"7\"} 18446744073709551615\n";
        assert_eq!(text.into_text(), expected);
    }
}
