//! What the gateway's own work costs a hit: the access log and the count of reads, beside a gateway without either, in
//! rounds that take turns.
use crate::pump::{self, Load};
use crate::stack::{Shape, Stack};
use crate::statistics::median;
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    /// Median over the rounds.
    pub requests_per_s: f64,
    /// To the gateway without log and limits.
    pub to_bare: f64,
}

const KINDS: [(&str, &str, &str); 5] = [
    ("neither", "off", ""),
    ("log: errors", "errors", ""),
    ("log: sampled:100", "sampled:100", ""),
    ("log: all", "all", ""),
    ("reads counted", "off", "reads=1000000/1"),
];

const TURN: Duration = Duration::from_millis(300);

pub async fn run(rounds: usize) -> Result<Vec<Row>, String> {
    let mut stacks = Vec::new();
    for (name, log, limits) in KINDS {
        let vars = [("ACCESS_LOG", log), ("LIMITS", limits)].map(|(name, value)| (name.to_string(), value.to_string()));
        let stack = Stack::of(Shape { lease_ms: 1_000, vars: vars.to_vec(), ..Shape::default() }).await;
        stack.get("/v1/home").await;
        stack.fleet.pin_edge(0, 0).map_err(|error| error.to_string())?;
        stacks.push((name, stack, Vec::new()));
    }
    let fields = ["Accept-Encoding: gzip".to_string(), "CF-Connecting-IP: 192.0.2.1".to_string()];
    for _ in 0..rounds {
        for (_, stack, rates) in &mut stacks {
            let load = Load { fields: fields.to_vec(), ..Load::new(&stack.url("/v1/home")) };
            let process = stack.fleet.edge_id(0);
            let stint = tokio::task::spawn_blocking(move || pump::stint(&load, 0..usize::MAX, TURN, process)).await;
            rates.push(stint.map_err(|error| error.to_string())??.requests_per_s);
        }
    }
    let rates: Vec<(&'static str, f64)> = stacks.into_iter().map(|(name, _, rates)| (name, median(rates))).collect();
    let bare = rates[0].1;
    Ok(rates.into_iter().map(|(name, rate)| Row { name, requests_per_s: rate, to_bare: rate / bare }).collect())
}
