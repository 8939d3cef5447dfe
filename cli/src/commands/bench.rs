//! `muster bench`.

mod gpu;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use muster_collectives::{NetworkOptions, Options, benchmark};
use tokio::process::Command;

use crate::error::Error;
use crate::output;

/// Measures this machine
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Times all-reduce between processes of this host, in nccl-tests' table, beside what its memory or network allows; or
    /// between its GPUs
    #[command(
        name = "allreduce",
        after_help = "Example:\n  muster bench allreduce --ranks 4 --min-bytes 1K --max-bytes 64M --step-factor 4"
    )]
    AllReduce(AllReduce),
}

#[derive(Debug, Args)]
struct AllReduce {
    /// Processes, one a rank [default: one a processor, or a GPU]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u16).range(1..=256), overrides_with = "ranks")]
    ranks: Option<u16>,
    /// Smallest buffer, in bytes; K, M and G stand for powers of 1024
    #[arg(long, short = 'b', value_name = "BYTES", value_parser = bytes, default_value = "1K")]
    min_bytes: usize,
    /// Largest buffer
    #[arg(long, short = 'e', value_name = "BYTES", value_parser = bytes, default_value = "64M")]
    max_bytes: usize,
    /// From one size to the next
    #[arg(long, short = 'f', value_name = "FACTOR", default_value_t = 4)]
    step_factor: usize,
    /// These sizes instead
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = bytes, conflicts_with_all = ["min_bytes", "max_bytes", "step_factor"])]
    sizes: Vec<usize>,
    /// What the processes share
    #[arg(long, value_enum, default_value_t)]
    transport: Transport,
    /// What a process of the measurement is told: its rank
    #[arg(long, hide = true, requires = "directory")]
    rank: Option<usize>,
    /// And where it meets the others, of its host
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
    /// And of other hosts
    #[arg(long, hide = true)]
    address: Option<String>,
}

/// What the processes of the measurement share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Transport {
    /// Memory
    #[default]
    Memory,
    /// Connections, as if each process had a host of its own
    Tcp,
    /// A GPU each, through NCCL
    Nccl,
}

fn bytes(text: &str) -> Result<usize, String> {
    let (number, shift) = match text.to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        upper if upper.ends_with('K') => (upper[..upper.len() - 1].to_owned(), 10),
        upper if upper.ends_with('M') => (upper[..upper.len() - 1].to_owned(), 20),
        upper if upper.ends_with('G') => (upper[..upper.len() - 1].to_owned(), 30),
        upper => (upper.to_owned(), 0),
    };
    let number: usize =
        number.parse().map_err(|_| format!("{text:?} is not a size such as 4096, 64K or 256M"))?;
    let bytes = number.checked_mul(1 << shift).ok_or("the size is too large")?;
    if bytes < size_of::<f32>() {
        Err("a buffer holds at least one element of 4 bytes".into())
    } else {
        Ok(bytes)
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let Subject::AllReduce(arguments) = arguments.subject;
    let ranks = arguments.ranks.map(usize::from);
    let ranks = match arguments.transport {
        Transport::Nccl => gpu::ranks(ranks)?,
        Transport::Memory | Transport::Tcp => ranks.unwrap_or_else(processors),
    };
    match (arguments.rank, &arguments.directory) {
        (Some(rank), Some(directory)) => {
            let mut options = Options::new(directory, "bench", rank, ranks);
            options.network = arguments.address.clone().map(NetworkOptions::new);
            rank_of_measurement(options, arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => start(ranks, arguments.transport).await,
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(256)
}

/// Starts the ranks, of which rank 0 prints the table, and waits for them.
async fn start(ranks: usize, transport: Transport) -> Result<ExitCode, Error> {
    let failed = |source: std::io::Error| Error::from_source("cannot start the ranks", &source);
    let directory = tempfile::Builder::new().prefix("muster-bench-").tempdir().map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    let address = own_address();
    let mut children = Vec::new();
    for rank in 0..ranks {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).args(["--rank", &rank.to_string(), "--directory"]);
        match transport {
            Transport::Memory | Transport::Nccl => command.arg(directory.path()),
            Transport::Tcp => {
                // Ranks that see the same directory share a host.
                let own = directory.path().join(rank.to_string());
                fs_err::create_dir(&own).map_err(failed)?;
                command.arg(own).args(["--address", &address])
            }
        };
        command.args(["--ranks", &ranks.to_string()]).kill_on_drop(true);
        children.push(command.spawn().map_err(failed)?);
    }
    let mut all_well = true;
    for mut child in children {
        all_well &= child.wait().await.map_err(failed)?.success();
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An address of this machine that no other process has, since no other has this number.
fn own_address() -> String {
    let [_, first, second, third] = (std::process::id() << 1 | 1).to_be_bytes();
    format!("{}:29500", Ipv4Addr::new(127, first, second, third))
}

async fn rank_of_measurement(options: Options, arguments: AllReduce) -> Result<(), Error> {
    let sizes = if arguments.sizes.is_empty() {
        benchmark::sizes(arguments.min_bytes, arguments.max_bytes, arguments.step_factor)
    } else {
        arguments.sizes
    };
    let rank = options.rank;
    let transport = arguments.transport;
    let measured = tokio::task::spawn_blocking(move || match transport {
        Transport::Nccl => gpu::measure(&options, &sizes),
        Transport::Memory | Transport::Tcp => measure(&options, &sizes),
    });
    let table = measured
        .await
        .map_err(|source| Error::from_source(&format!("rank {rank} broke"), &source))?
        .map_err(|source| Error::from_source(&format!("rank {rank} cannot measure"), &source))?;
    if rank == 0 { output::print(&table) } else { Ok(()) }
}

fn measure(options: &Options, sizes: &[usize]) -> Result<String, muster_nccl::Error> {
    let rows = benchmark::measure(options, sizes)?;
    let is_network = options.network.is_some();
    let between = if is_network { "over TCP" } else { "on one host over shared memory" };
    Ok(benchmark::table(&rows, options.world_size, between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64K"), Ok(64 << 10));
        assert_eq!(bytes("256MiB"), Ok(256 << 20));
        assert_eq!(bytes("1g"), Ok(1 << 30));
        assert!(bytes("many").unwrap_err().contains("64K"));
        assert!(bytes("3").is_err());
        assert!(bytes("99999999999999999G").is_err());
    }
}
