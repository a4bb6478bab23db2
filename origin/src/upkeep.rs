//! Counts the samples of histograms now and then. Until somebody does they lie in memory one by one; a scrape of `/metrics` does, but
//! nobody may ever scrape.
use metrics_exporter_prometheus::PrometheusHandle;
use std::time::Duration;
use tokio::sync::watch;

/// As often as the exporter's own task does, which runs only where it listens itself.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs until `stop` turns true.
pub async fn run(metrics: PrometheusHandle, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(PAUSE) => metrics.run_upkeep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[tokio::test(start_paused = true)]
    async fn samples_are_counted_though_nobody_scrapes() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::histogram!("seconds").record(1.0));
        // What was counted stands there by its name; the handle tells it in no other way that does not count.
        let counted = || format!("{:?}", recorder.handle()).contains(r#"distributions: RwLock { data: {"seconds""#);
        let (stop, stopped) = watch::channel(false);
        let upkeep = tokio::spawn(run(recorder.handle(), stopped));
        assert!(!counted());
        tokio::time::sleep(PAUSE + Duration::from_millis(1)).await;
        assert!(counted(), "{:?}", recorder.handle());
        stop.send(true).unwrap();
        upkeep.await.unwrap();
    }
}
