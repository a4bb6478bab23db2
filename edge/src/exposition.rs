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

/// How long things took, for a histogram.
#[derive(Clone, Copy, Default)]
pub struct Durations {
    /// How many took no longer than each bound, and longer than the one before it; the last has no bound.
    buckets: [u64; Durations::UPPER.len() + 1],
    sum_ms: u64,
}

impl Durations {
    /// In milliseconds, and as the text format has them. 250 ms, which is promised of reads, is among them.
    const UPPER: [(u64, &str); 10] = [
        (1, "0.001"),
        (5, "0.005"),
        (10, "0.01"),
        (25, "0.025"),
        (50, "0.05"),
        (100, "0.1"),
        (250, "0.25"),
        (500, "0.5"),
        (1_000, "1"),
        (5_000, "5"),
    ];

    #[inline(never)]
    pub fn observe(&mut self, ms: u64) {
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.add(Self::UPPER.iter().take_while(|(upper_ms, _)| ms > *upper_ms).count(), 1);
    }

    /// So many that took no time.
    pub fn observe_none(&mut self, times: u64) {
        self.add(0, times);
    }

    fn add(&mut self, bucket: usize, times: u64) {
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.saturating_add(times);
        }
    }
}

#[inline(never)]
fn put(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
}

impl Exposition {
    pub fn of(isolate: u64) -> Self {
        Self { text: String::new(), name: "", isolate: isolate.to_string() }
    }

    /// Begins a metric; its kind is what its name ends like.
    pub fn metric(&mut self, name: &'static str) {
        self.name = name;
        let kind = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_seconds") => "histogram",
            _ => "gauge",
        };
        put(&mut self.text, &["# TYPE ", name, " ", kind, "\n"]);
    }

    /// One of its series. Values of labels are ours, or names of services: nothing in them has to be escaped.
    pub fn series(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line("", labels, &value.to_string());
    }

    /// The series of a histogram for one value of its label.
    pub fn histogram(&mut self, (label, value): (&str, &str), durations: &Durations) {
        let mut count = 0_u64;
        let upper = Durations::UPPER.iter().map(|(_, text)| *text).chain(["+Inf"]);
        for (upper, of_bucket) in upper.zip(durations.buckets) {
            count = count.saturating_add(of_bucket);
            self.line("_bucket", &[(label, value), ("le", upper)], &count.to_string());
        }
        // To the millisecond, without the printing of fractions.
        let (whole, rest) = (durations.sum_ms / 1000, durations.sum_ms % 1000);
        self.line("_sum", &[(label, value)], &format!("{whole}.{rest:03}"));
        self.line("_count", &[(label, value)], &count.to_string());
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        put(&mut self.text, &[self.name, suffix, "{"]);
        for (label, text) in labels {
            put(&mut self.text, &[label, "=\"", text, "\","]);
        }
        put(&mut self.text, &["isolate=\"", &self.isolate, "\"} ", value, "\n"]);
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

    /// Prometheus' text format: buckets count what is below them, too, and the last is all.
    #[test]
    fn a_histogram_has_each_duration_in_every_bucket_it_fits_into() {
        let mut durations = Durations::default();
        [0, 1, 2, 250, 251, 60_000].iter().for_each(|ms| durations.observe(*ms));
        durations.observe_none(10);
        let mut text = Exposition::of(7);
        text.metric("a_seconds");
        text.histogram(("b", "c"), &durations);
        let buckets = [
            ("0.001", 12),
            ("0.005", 13),
            ("0.01", 13),
            ("0.025", 13),
            ("0.05", 13),
            ("0.1", 13),
            ("0.25", 14),
            ("0.5", 15),
            ("1", 15),
            ("5", 15),
            ("+Inf", 16),
        ];
        let buckets =
            buckets.map(|(le, count)| format!("a_seconds_bucket{{b=\"c\",le=\"{le}\",isolate=\"7\"}} {count}\n"));
        let expected = format!(
            "# TYPE a_seconds histogram\n{}a_seconds_sum{{b=\"c\",isolate=\"7\"}} 60.504\n\
             a_seconds_count{{b=\"c\",isolate=\"7\"}} 16\n",
            buckets.concat()
        );
        assert_eq!(text.into_text(), expected);
    }
}
