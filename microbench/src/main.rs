//! Runs one case under a counter of instructions: what is between the two calls of [`counted`] and nothing else.
//! `cargo xtask test --only instructions` calls this with Callgrind, once for each case, and compares.
#![forbid(unsafe_code)]

use microbench::{Case, cases};

/// Enough to even out a table that grows now and then.
const RUNS: u32 = 100;

/// The one function whose instructions Callgrind counts, with all it calls.
#[inline(never)]
fn counted(case: &mut Case) -> u64 {
    let mut done = 0;
    for _ in 0..RUNS {
        done += (case.run)();
    }
    done
}

fn main() {
    let mut cases = cases();
    let Some(name) = std::env::args().nth(1) else {
        for case in cases {
            println!("{}", case.name);
        }
        return;
    };
    let Some(case) = cases.iter_mut().find(|case| case.name == name) else {
        eprintln!("there is no case {name:?}");
        std::process::exit(1);
    };
    // The first run fills what is filled once.
    assert!((case.run)() > 0, "{name}: nothing was done");
    println!("{RUNS} {}", counted(case));
}
