//! The same cases with a clock: `cargo bench -p microbench`. Times differ from machine to machine; the gate counts
//! instructions instead.
#![forbid(unsafe_code)]

fn main() {
    divan::main();
}

#[divan::bench(args = microbench::cases().into_iter().map(|case| case.name).collect::<Vec<_>>())]
fn part(bencher: divan::Bencher, name: &str) {
    let case = microbench::cases().into_iter().find(|case| case.name == name);
    let run = std::cell::RefCell::new(case.expect("a case").run);
    bencher.bench_local(|| (run.borrow_mut())());
}
