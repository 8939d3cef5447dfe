//! Compute threads: each rank takes its part of the machine, and none waits for work by spinning.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::arguments::Arguments;
use crate::error::Error;
use crate::world::World;

/// What candle reads: the threads of its matrix products, and those of its other operations, which spin while idle.
const PRODUCTS: &str = "RAYON_NUM_THREADS";
const OTHERS: &str = "CANDLE_NUM_THREADS";

/// What glibc reads: memory of one step is kept for the next instead of being given back and faulted in again.
const ALLOCATOR: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8589934592");

/// Ranks share the machine, so each takes its part of the processors.
fn wanted(arguments: &Arguments, world: &World) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    arguments.threads.unwrap_or_else(|| (processors / world.size).max(1))
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::Setup { action: "start compute threads", message: error.to_string() }
}

/// The tensor library takes its number of threads from the environment alone: where that says something else, the
/// process begins anew with the same words.
pub(crate) fn settle(arguments: &Arguments, world: &World) -> Result<(), Error> {
    let threads = wanted(arguments, world).to_string();
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is(PRODUCTS, &threads) && is(OTHERS, "1") {
        return Ok(());
    }
    let mut words = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        again.arg0(name);
    }
    again.args(words).env(PRODUCTS, threads).env(OTHERS, "1");
    if std::env::var_os(ALLOCATOR.0).is_none() {
        again.env(ALLOCATOR.0, ALLOCATOR.1);
    }
    Err(failed(&again.exec()))
}

/// Starts the threads of this crate's own loops.
pub(crate) fn start(arguments: &Arguments, world: &World) -> Result<(), Error> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(wanted(arguments, world));
    pool.thread_name(|index| format!("compute-{index}")).build_global().map_err(|error| failed(&error))
}
