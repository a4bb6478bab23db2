//! Counts the samples of histograms now and then. Until somebody does they lie in memory one by one; a scrape of `/metrics` does, but
//! nobody may ever scrape.
use metrics_exporter_prometheus::PrometheusHandle;
use std::time::Duration;
use tokio::sync::watch;

/// As often as the exporter's own task does, which runs only where it listens itself.
const PAUSE: Duration = Duration::from_secs(5);

/// Bounds of histograms, in seconds: those that are promised (a viewer's read 0.25, an admin's write 2) are among them. Not
/// quantiles, which could not be added up over processes.
pub const BOUNDS_S: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

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
