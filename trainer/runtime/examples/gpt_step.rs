//! Times training steps of a small GPT: `gpt_step [RANKS] [STEPS] [SHARDING]`, each rank a process with one thread.
//!
//! The model has 4 blocks of width 256 and 3.7 million parameters; a batch is 8 sequences of 128 tokens.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints and fails by panicking")]

use std::process::Command;
use std::time::Instant;

use clap::ValueEnum;
use muster_collectives::{Communicator, Options as GroupOptions};
use muster_trainer_runtime::model::{Gpt, Input};
use muster_trainer_runtime::parallel::{Engine, Options, Sharding};
use muster_trainer_runtime::tensor::Candle;

const BATCH: usize = 8;
const CONTEXT: usize = 128;
const VOCABULARY: usize = 1024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize, default: &str| words.get(index).cloned().unwrap_or_else(|| default.into());
    let (ranks, steps): (usize, usize) = (word(0, "1").parse().unwrap(), word(1, "20").parse().unwrap());
    let sharding = Sharding::from_str(&word(2, "none"), true).unwrap();
    if let Ok(rank) = std::env::var("RANK") {
        return train(rank.parse().unwrap(), ranks, steps, sharding);
    }
    let directory = std::env::temp_dir().join(format!("gpt-step-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        // The tensor library takes its number of threads from the environment.
        let threads = std::env::var("THREADS").unwrap_or_else(|_| "1".into());
        command.env("RAYON_NUM_THREADS", threads).env("CANDLE_NUM_THREADS", "1");
        command.args(&words).env("RANK", rank.to_string()).env("DIRECTORY", &directory).spawn().unwrap()
    };
    let children: Vec<_> = (0..ranks).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

fn train(rank: usize, ranks: usize, steps: usize, sharding: Sharding) {
    let threads = std::env::var("THREADS").map_or(1, |threads| threads.parse().unwrap());
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let gpt = Gpt { vocabulary: VOCABULARY, context: CONTEXT, width: 256, depth: 4, heads: 4 };
    let options = Options { sharding, ..Options::default() };
    let directory = std::env::var("DIRECTORY").unwrap();
    let mut group = GroupOptions::new(directory, "gpt-step", rank, ranks);
    group.arena_bytes = Engine::arena_bytes(&gpt.build::<Candle>(), &options, ranks);
    let communicator = Communicator::connect(&group).unwrap();
    let mut engine = Engine::new(Candle, gpt.build(), communicator, options, 1).unwrap();
    let (mut times, mut losses) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let token = |place: usize| ((place + (step * ranks + rank) * 977) * 7919 % 8191 % VOCABULARY) as u32;
        let tokens: Vec<u32> = (0..BATCH * CONTEXT).map(token).collect();
        let labels: Vec<u32> = (1..=BATCH * CONTEXT).map(token).collect();
        let began = Instant::now();
        let input = Input::Tokens { tokens: &tokens, length: CONTEXT };
        let outcome = engine.accumulate(input, &labels, true).unwrap();
        losses.push(engine.step(3e-4, [outcome.loss]).unwrap().averages[0]);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let total: f64 = times.iter().sum();
    let exposed = engine.exposed_communication().as_secs_f64() * 1e3 / total;
    times.sort_by(f64::total_cmp);
    if rank == 0 {
        println!(
            "ranks={ranks} sharding={sharding:?} min_ms={:.1} median_ms={:.1} exposed={:.3} state_mib={:.1} loss={:.4}->{:.4}",
            times[0],
            times[times.len() / 2],
            exposed,
            engine.state_bytes() as f64 / f64::from(1 << 20),
            losses[0],
            losses[losses.len() - 1],
        );
    }
}
