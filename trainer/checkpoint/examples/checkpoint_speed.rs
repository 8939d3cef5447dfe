//! How long a save stalls training, beside a plain copy of as many bytes, and how fast it is written and read.
//!
//! ```sh
//! cargo run --release -p muster-checkpoint --example checkpoint_speed -- --mebibytes 1024
//! ```

#![allow(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::{Duration, Instant};

use clap::Parser;
use muster_checkpoint::{Checkpoints, DataType, Place, Request, SaverOptions, Shard, Tensor};

/// Times saves of a shard.
#[derive(Debug, Parser)]
struct Arguments {
    /// Bytes of the shard.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// In how many tensors.
    #[arg(long, default_value_t = 200)]
    tensors: u64,
    /// How many saves.
    #[arg(long, default_value_t = 6)]
    saves: u64,
    /// Where to [default: a temporary folder]
    #[arg(long)]
    url: Option<String>,
}

const PATIENCE: Duration = Duration::from_mins(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { mebibytes, tensors, saves, url } = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let url = url.unwrap_or_else(|| folder.path().display().to_string());
    let elements = (mebibytes << 20) / 4 / tensors;
    let gigabytes = (elements * 4 * tensors) as f64 / 1e9;
    let tensors = (0..tensors)
        .map(|index| Tensor::new(format!("layers.{index}.weight"), DataType::F32, [elements]))
        .collect::<Result<Vec<_>, _>>()?;
    let mut values: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(index, tensor)| vec![index as u8; tensor.bytes() as usize])
        .collect();

    let mut copy: Vec<Vec<u8>> = values.clone();
    let began = Instant::now();
    for bytes in &values {
        blake3::hash(bytes);
    }
    println!("checksums: {:4.2} GB/s", gigabytes / began.elapsed().as_secs_f64());

    let checkpoints = Checkpoints::open(&url)?;
    let mut saver = checkpoints.saver(Place { rank: 0, world_size: 1 }, SaverOptions::default())?;
    let mut ratios = Vec::new();
    for step in 1..=saves {
        for bytes in &mut values {
            bytes[0] = step as u8;
        }
        let mut shard = Shard::new();
        for (tensor, bytes) in tensors.iter().zip(&values) {
            shard.add_whole(tensor, bytes)?;
        }
        if step == 1 {
            let began = Instant::now();
            saver.prepare(&shard)?;
            println!("prepared in {:4.0} ms", began.elapsed().as_secs_f64() * 1e3);
        }
        // Right before, so that both meet the same load of the machine.
        let began = Instant::now();
        for (from, to) in values.iter().zip(&mut copy) {
            to.copy_from_slice(from);
        }
        let copied = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let save = saver.begin(step, &shard)?;
        let stall = began.elapsed().as_secs_f64();
        let receipt = save.wait(PATIENCE)?;
        let written = began.elapsed().as_secs_f64() - stall;
        checkpoints.commit(&[receipt], serde_json::Value::Null)?;
        println!(
            "save {step}: stall {:5.1} ms per GB ({:4.1} GB/s), {:4.2} of a plain copy ({:4.1} GB/s); \
             written at {:4.2} GB/s",
            stall * 1e3 / gigabytes,
            gigabytes / stall,
            stall / copied,
            gigabytes / copied,
            gigabytes / written
        );
        ratios.push(stall / copied);
        if step > 1 {
            checkpoints.remove(step - 1)?;
        }
    }
    saver.finish(PATIENCE)?;
    ratios.sort_by(f64::total_cmp);
    println!(
        "median stall: {:4.2} of a plain copy",
        ratios.get(ratios.len() / 2).copied().unwrap_or_default()
    );

    let checkpoint = checkpoints.checkpoint(saves)?;
    let mut requests: Vec<Request<'_>> = tensors
        .iter()
        .zip(&mut values)
        .map(|(tensor, bytes)| Request { tensor: tensor.name(), range: 0..tensor.elements(), bytes })
        .collect();
    let began = Instant::now();
    checkpoint.load(&mut requests)?;
    println!("loaded and checked at {:4.2} GB/s", gigabytes / began.elapsed().as_secs_f64());
    checkpoints.remove(saves)?;
    Ok(())
}
