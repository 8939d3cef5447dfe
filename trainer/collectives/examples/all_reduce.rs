//! Times all-reduce over shared memory and prints a table in the terms of nccl-tests:
//! `algbw` is the size of the buffer over the time, `busbw` is `algbw · 2(n-1)/n`.
//!
//! `cargo run --release -p muster-collectives --example all_reduce -- [RANKS] [LARGEST_MIB]`
//!
//! Ranks are threads, each with its own communicator and mappings; every time is the median of the slowest rank.

#![allow(clippy::print_stdout, reason = "the table is the program's output")]

use std::error::Error;
use std::time::Instant;

use muster_collectives::{Communicator, Options, Reduction};

type Failure = Box<dyn Error + Send + Sync>;

/// Median seconds of one all-reduce for registered and staged memory.
struct Row {
    bytes: usize,
    registered: f64,
    staged: f64,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let ranks: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let largest: usize = arguments.next().map_or(Ok(64), |text| text.parse())? << 20;
    let directory = tempfile::tempdir()?;
    let rows = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks)
            .map(|rank| {
                let mut options = Options::new(directory.path(), "bench", rank, ranks);
                options.arena_bytes = largest;
                scope.spawn(move || measure(&options, largest))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a rank panicked")?)
            .next()
            .unwrap_or(Ok(vec![]))
    })?;
    let factor = 2.0 * (ranks as f64 - 1.0) / ranks as f64;
    println!("{ranks} ranks, f32, sum; times in µs, bandwidths in GB/s");
    println!(
        "{:>12} {:>12} {:>8} {:>8} {:>12} {:>8} {:>8}",
        "bytes", "registered", "algbw", "busbw", "staged", "algbw", "busbw"
    );
    for row in rows {
        let bandwidth = |seconds: f64| row.bytes as f64 / seconds / 1e9;
        let (registered, staged) = (bandwidth(row.registered), bandwidth(row.staged));
        println!(
            "{:>12} {:>12.1} {registered:>8.2} {:>8.2} {:>12.1} {staged:>8.2} {:>8.2}",
            row.bytes,
            row.registered * 1e6,
            registered * factor,
            row.staged * 1e6,
            staged * factor
        );
    }
    Ok(())
}

fn measure(options: &Options, largest: usize) -> Result<Vec<Row>, Failure> {
    let mut group = Communicator::connect(options)?;
    let mut rows = Vec::new();
    let mut bytes = 1 << 10;
    while bytes <= largest {
        let repetitions = ((64 << 20) / bytes).clamp(9, 501);
        let mut buffer = group.allocate::<f32>(bytes / 4)?;
        let registered =
            median(&mut group, repetitions, |group| group.all_reduce(&mut buffer, Reduction::Sum))?;
        let mut data = vec![0_f32; bytes / 4];
        let staged =
            median(&mut group, repetitions, |group| group.all_reduce_staged(&mut data, Reduction::Sum))?;
        rows.push(Row { bytes, registered, staged });
        bytes *= 4;
    }
    Ok(rows)
}

fn median(
    group: &mut Communicator,
    repetitions: usize,
    mut work: impl FnMut(&mut Communicator) -> Result<(), muster_collectives::Error>,
) -> Result<f64, muster_collectives::Error> {
    let mut times = Vec::with_capacity(repetitions);
    for repetition in 0..repetitions + 3 {
        group.barrier()?;
        let began = Instant::now();
        work(group)?;
        if repetition >= 3 {
            times.push(began.elapsed().as_secs_f64());
        }
    }
    group.all_reduce_staged(&mut times, Reduction::Maximum)?;
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
