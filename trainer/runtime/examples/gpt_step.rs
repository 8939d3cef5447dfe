//! Times training steps of a small GPT on ranks that are processes: `gpt_step --ranks 2 --sharding gradients`.
//!
//! The model has 4 blocks of width 256 and 3.7 million parameters; a batch is 8 sequences of 128 tokens.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints and fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use muster_collectives::{Communicator, Options as GroupOptions};
use muster_trainer_runtime::model::{Gpt, Input};
use muster_trainer_runtime::parallel::{Engine, Options, Sharding};
use muster_trainer_runtime::tensor::{Candle, Library};

const BATCH: usize = 8;
const CONTEXT: usize = 128;
const VOCABULARY: usize = 1024;

/// Times training steps of a small GPT
#[derive(Debug, Parser)]
struct Arguments {
    /// Ranks, each a process
    #[arg(long, default_value_t = 1)]
    ranks: usize,
    /// Steps of each
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// What each holds only its share of
    #[arg(long, value_enum, default_value_t = Sharding::None)]
    sharding: Sharding,
    /// The tensor library
    #[arg(long, value_enum, default_value_t = LibraryKind::Candle)]
    library: LibraryKind,
    /// Compute threads of each rank
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// This rank, and where it meets the others; such processes are started by the first one
    #[arg(long, hide = true, num_args = 2, value_names = ["RANK", "FOLDER"])]
    rank: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LibraryKind {
    Candle,
    Libtorch,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some([rank, folder]) = arguments.rank.as_deref() {
        let rank = rank.parse().unwrap();
        return match arguments.library {
            LibraryKind::Candle => train(Candle, rank, folder, &arguments),
            #[cfg(feature = "libtorch")]
            LibraryKind::Libtorch => {
                train(muster_trainer_runtime::tensor::Torch::cpu(), rank, folder, &arguments);
            }
            #[cfg(not(feature = "libtorch"))]
            LibraryKind::Libtorch => panic!("built without --features libtorch"),
        };
    }
    let directory = std::env::temp_dir().join(format!("gpt-step-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(std::env::args_os().skip(1)).arg("--rank").arg(rank.to_string()).arg(&directory);
        // As `muster train` does it: the libraries and the allocator take these from the environment.
        let threads = arguments.threads.to_string();
        command.env("RAYON_NUM_THREADS", &threads).env("CANDLE_NUM_THREADS", "1");
        command.env("OMP_NUM_THREADS", &threads).env("OMP_WAIT_POLICY", "passive");
        let kept = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8589934592";
        command.env("GLIBC_TUNABLES", kept).spawn().unwrap()
    };
    let children: Vec<_> = (0..arguments.ranks).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    tell(&directory, arguments.ranks);
    std::fs::remove_dir_all(&directory).unwrap();
}

fn train<L: Library>(library: L, rank: usize, folder: &str, arguments: &Arguments) {
    let Arguments { ranks, steps, sharding, threads, .. } = *arguments;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let gpt = Gpt { vocabulary: VOCABULARY, context: CONTEXT, width: 256, depth: 4, heads: 4 };
    let options = Options { sharding, ..Options::default() };
    let mut group = GroupOptions::new(folder, "gpt-step", rank, ranks);
    group.arena_bytes = Engine::arena_bytes(&gpt.build::<L>(), &options, ranks);
    let communicator = Communicator::connect(&group).unwrap();
    let mut engine = Engine::new(library, gpt.build(), communicator, options, 1).unwrap();
    let (mut waits, mut times, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..steps {
        let token = |place: usize| ((place + (step * ranks + rank) * 977) * 7919 % 8191 % VOCABULARY) as u32;
        let tokens: Vec<u32> = (0..BATCH * CONTEXT).map(token).collect();
        let labels: Vec<u32> = (1..=BATCH * CONTEXT).map(token).collect();
        let (began, waited) = (Instant::now(), engine.exposed_communication().as_secs_f64());
        let input = Input::Tokens { tokens: &tokens, length: CONTEXT };
        let outcome = engine.accumulate(input, &labels, true).unwrap();
        losses.push(engine.step(3e-4, [outcome.loss]).unwrap().averages[0]);
        times.push(began.elapsed().as_secs_f64() * 1e3);
        waits.push((engine.exposed_communication().as_secs_f64() - waited) * 1e3);
    }
    let steps: Vec<String> = times.iter().zip(&waits).map(|(time, wait)| format!("{time} {wait}")).collect();
    std::fs::write(Path::new(folder).join(format!("steps-{rank}")), steps.join("\n")).unwrap();
    times.sort_by(f64::total_cmp);
    if rank == 0 {
        print!(
            "library={:?} ranks={ranks} sharding={sharding:?} min_ms={:.1} median_ms={:.1} state_mib={:.1} loss={:.4}->{:.4}",
            arguments.library,
            times[0],
            times[times.len() / 2],
            engine.state_bytes() as f64 / f64::from(1 << 20),
            losses[0],
            losses[losses.len() - 1],
        );
    }
}

/// Ends the line of rank 0 with the shares of the time in which ranks only wait. The rank that waits least in a step is
/// the last to come, so that its wait is communication as such; what others wait longer is because it came late.
fn tell(directory: &Path, ranks: usize) {
    let rank = |rank: usize| -> Vec<[f64; 2]> {
        let told = std::fs::read_to_string(directory.join(format!("steps-{rank}"))).unwrap();
        let number = |word: &str| word.parse().unwrap();
        let step =
            |line: &str| line.split_once(' ').map(|(time, waited)| [time, waited].map(number)).unwrap();
        told.lines().map(step).collect()
    };
    let ranks: Vec<_> = (0..ranks).map(rank).collect();
    let (mut total, mut least, mut most) = (0.0, 0.0, 0.0);
    for step in 0..ranks[0].len() {
        let waits = || ranks.iter().map(|steps| steps[step][1]);
        total += ranks[0][step][0];
        least += waits().fold(f64::INFINITY, f64::min);
        most += waits().fold(0.0, f64::max);
    }
    println!(" exposed={:.3} imbalance={:.3}", least / total, (most - least) / total);
}
