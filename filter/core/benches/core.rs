//! The core's cases natively: `cargo xtask bench core` times them in wasm beside.

mod cases;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, mut case) in cases::all() {
        criterion.bench_function(name, |bencher| bencher.iter(&mut case));
    }
    criterion.final_summary();
}
