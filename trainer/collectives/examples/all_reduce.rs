//! Times all-reduce between processes, over shared memory or, with `--transport tcp`, as if each were a host: `muster bench allreduce` without the rest of Muster.
//!
//! With `--tls DIRECTORY`, which holds `ca.pem`, `rank.pem` and `rank.key`, the connections are under TLS.
//!
//! `cargo run --release -p muster-collectives --example all_reduce -- bench allreduce --ranks 2 --sizes 1024,65536`

#![allow(clippy::print_stdout, reason = "the table is the program's output")]

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use muster_collectives::{NetworkOptions, Options, TlsFiles, benchmark};

type Failure = Box<dyn Error>;

fn main() -> Result<ExitCode, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).map(String::as_str)
    };
    let ranks: usize = value("--ranks").unwrap_or("2").parse()?;
    let sizes = match value("--sizes") {
        Some(sizes) => sizes.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?,
        None => benchmark::sizes(1 << 10, 64 << 20, 4),
    };
    if let (Some(rank), Some(directory)) = (value("--rank"), value("--directory")) {
        let rank = rank.parse()?;
        let mut options = Options::new(directory, "bench", rank, ranks);
        options.network = value("--address").map(|address| NetworkOptions {
            tls: value("--tls").map(|folder| {
                let file = |name| Path::new(folder).join(name);
                TlsFiles { authority: file("ca.pem"), certificate: file("rank.pem"), key: file("rank.key") }
            }),
            ..NetworkOptions::new(address)
        });
        let rows = benchmark::measure(&options, &sizes)?;
        if rank == 0 {
            let is_network = options.network.is_some();
            let between = if is_network { "over TCP" } else { "on one host over shared memory" };
            print!("{}", benchmark::table(&rows, ranks, between));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let mut children = Vec::new();
    for rank in 0..ranks {
        let mut command = Command::new(&program);
        command.args(&words).args(["--rank", &rank.to_string(), "--directory"]);
        if value("--transport") == Some("tcp") {
            let own_directory = directory.path().join(rank.to_string());
            std::fs::create_dir(&own_directory)?;
            command.arg(own_directory).args(["--address", "127.0.0.1:29500"]);
        } else {
            command.arg(directory.path());
        }
        children.push(command.spawn()?);
    }
    let mut all_well = true;
    for mut child in children {
        all_well &= child.wait()?.success();
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
