//! Lives of simulated jobs, one for each seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Lives with so many seeds and gives their number; `MUSTER_SIMULATION_SEEDS` asks for more or fewer. The seed of a life
/// that fails is printed.
pub(crate) fn live(usual: u64, mut life: impl FnMut(u64)) -> u64 {
    let seeds = std::env::var("MUSTER_SIMULATION_SEEDS").map_or(usual, |text| text.parse().unwrap());
    for seed in 0..seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| life(seed))) {
            eprintln!("seed {seed}");
            resume_unwind(panic);
        }
    }
    seeds
}
