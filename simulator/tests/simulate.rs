//! Many seeds, no violation.
use simulator::{Options, STEPS, Stats, locations_of, run};

const SEEDS: u64 = 10_000;

#[test]
fn a_million_steps_of_ten_thousand_seeds_break_no_rule() {
    let mut total = Stats::default();
    for seed in 0..SEEDS {
        match run(&Options { seed, locations: locations_of(seed), steps: STEPS }) {
            Ok(stats) => total.add(&stats),
            Err(violation) => panic!("{violation}"),
        }
    }
    println!("{total:?}");
    assert!(total.steps >= 1_000_000);
    // A world in which nothing happens breaks no rule either.
    assert!(total.short > 10_000 && total.kv_first > 100, "{total:?}");
    assert!(total.receipts > 100_000 && total.applied > 50_000, "{total:?}");
    assert!(total.hits > 50_000 && total.stale > 5_000 && total.purges > 50_000 && total.faults > 20_000, "{total:?}");
}

#[test]
fn one_seed_is_one_run() {
    let options = Options { seed: 7, locations: 3, steps: 400 };
    assert_eq!(run(&options), run(&options));
}
