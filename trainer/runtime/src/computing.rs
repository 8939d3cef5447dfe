//! What computes: a tensor library on its device, with this rank's part of the machine's threads, of which none waits for
//! work by spinning.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::ValueEnum;

use crate::arguments::parse_positive;
use crate::error::Error;
use crate::world::World;

/// What computes, and on how much of the machine.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Computing")]
pub(crate) struct Computing {
    /// The tensor library. The models and what they learn are the same, but for rounding.
    #[arg(long, value_enum, default_value_t = LibraryKind::Candle)]
    pub(crate) library: LibraryKind,
    /// libtorch: where it computes. Of several GPUs a rank takes the one that LOCAL_RANK counts.
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    pub(crate) device: DeviceKind,
    /// Compute threads of this rank [default: the processors divided by the ranks].
    #[arg(long, value_parser = parse_positive)]
    pub(crate) threads: Option<usize>,
}

/// The tensor libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LibraryKind {
    /// Candle, with own kernels: in every build.
    Candle,
    /// libtorch, that of PyTorch: in builds with the feature of that name.
    Libtorch,
}

/// Where tensors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceKind {
    /// The processors.
    Cpu,
    /// A GPU of Nvidia.
    Gpu,
}

/// What the libraries read: the threads of candle's matrix products, and those of its other operations, which spin while
/// idle.
const CANDLE_PRODUCTS: &str = "RAYON_NUM_THREADS";
const CANDLE_OTHERS: &str = "CANDLE_NUM_THREADS";
/// And those of libtorch, and whether they spin.
const TORCH_THREADS: &str = "OMP_NUM_THREADS";
const TORCH_WAITING: &str = "OMP_WAIT_POLICY";

/// What glibc reads: memory of one step is kept for the next instead of being given back and faulted in again.
const ALLOCATOR: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8589934592");

fn failed(error: &dyn std::error::Error) -> Error {
    Error::Setup { action: "start compute threads", message: error.to_string() }
}

impl Computing {
    /// Whether this program can do it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match (self.library, self.device) {
            (LibraryKind::Candle, DeviceKind::Gpu) => {
                let message =
                    "--device gpu needs --library libtorch: candle computes on processors here".into();
                Err(Error::Model { message })
            }
            (LibraryKind::Libtorch, _) if !cfg!(feature = "libtorch") => Err(Error::NoLibtorch),
            _ => Ok(()),
        }
    }

    /// Ranks share the machine, so each takes its part of the processors.
    fn wanted_threads(&self, world: &World) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(|| (processors / world.size).max(1))
    }

    /// Tensor libraries take their number of threads from the environment alone: where that says something else, the
    /// process begins anew with the same words.
    pub(crate) fn settle(&self, world: &World) -> Result<(), Error> {
        let threads = &*self.wanted_threads(world).to_string();
        let variables = match self.library {
            LibraryKind::Candle => [(CANDLE_PRODUCTS, threads), (CANDLE_OTHERS, "1")],
            LibraryKind::Libtorch => [(TORCH_THREADS, threads), (TORCH_WAITING, "passive")],
        };
        if variables.iter().all(|(name, value)| std::env::var(name).is_ok_and(|found| found == *value)) {
            return Ok(());
        }
        let mut words = std::env::args_os();
        let mut again = Command::new("/proc/self/exe");
        if let Some(name) = words.next() {
            again.arg0(name);
        }
        again.args(words).envs(variables);
        if std::env::var_os(ALLOCATOR.0).is_none() {
            again.env(ALLOCATOR.0, ALLOCATOR.1);
        }
        Err(failed(&again.exec()))
    }

    /// Starts the threads of this crate's own loops.
    pub(crate) fn start(&self, world: &World) -> Result<(), Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.wanted_threads(world));
        pool.thread_name(|index| format!("compute-{index}")).build_global().map_err(|error| failed(&error))
    }

    /// libtorch on this rank's device.
    #[cfg(feature = "libtorch")]
    pub(crate) fn torch(&self, world: &World) -> Result<crate::tensor::Torch, Error> {
        use crate::tensor::Torch;
        match self.device {
            DeviceKind::Cpu => Ok(Torch::cpu()),
            DeviceKind::Gpu => Torch::gpu(world.local_rank)
                .map_err(|source| Error::Model { message: format!("--device gpu: {source}") }),
        }
    }
}
