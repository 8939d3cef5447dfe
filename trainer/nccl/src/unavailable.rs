//! Why there is no NCCL here.

use std::path::PathBuf;

use crate::version::Version;

/// What is missing, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// This machine, or this container, has no driver.
    #[error(
        "no NVIDIA driver: {library} not found ({cause}); in a container, its runtime must offer the driver (a pod asks \
         for nvidia.com/gpu)"
    )]
    NoDriver {
        /// What was looked for.
        library: String,
        /// The loader's answer.
        cause: String,
    },
    /// The library of that name is something else.
    #[error("{library} is no NVIDIA driver: it has no {symbol}")]
    ForeignDriver {
        /// The library.
        library: String,
        /// The function that it lacks.
        symbol: &'static str,
    },
    /// The driver does not start.
    #[error("the NVIDIA driver does not start: {function} answers CUDA error {code}{}", meaning(*code))]
    DriverFailed {
        /// The function of the driver's interface.
        function: &'static str,
        /// Its answer, a `CUresult`.
        code: i32,
    },
    /// The driver works and sees no device.
    #[error(
        "the NVIDIA driver finds no GPU; see what `nvidia-smi -L` lists and whether CUDA_VISIBLE_DEVICES hides it"
    )]
    NoDevice,
    /// The driver lacks functions that are used here.
    #[error("the NVIDIA driver knows CUDA {found}, and CUDA {needed} is needed: update the driver")]
    OldDriver {
        /// What it knows.
        found: Version,
        /// What is used.
        needed: Version,
    },
    /// NCCL is nowhere.
    #[error(
        "NCCL not found: looked for {}; `pip install nvidia-nccl-cu12`, or name the file in MUSTER_NCCL",
        looked_for.join(", ")
    )]
    NotFound {
        /// Names for the loader and files, in the order in which they were tried.
        looked_for: Vec<String>,
    },
    /// A file that should be NCCL cannot be loaded.
    #[error("cannot load NCCL from {}: {cause}", path.display())]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// The loader's answer.
        cause: String,
    },
    /// A library that should be NCCL is something else.
    #[error("{} is not NCCL: it has no {symbol}", path.display())]
    Foreign {
        /// The library.
        path: PathBuf,
        /// The function that it lacks.
        symbol: &'static str,
    },
    /// NCCL is older or newer than what this crate knows the interface of.
    #[error("{} is NCCL {found}, and {oldest} or a later one of major version {} is needed", path.display(), oldest.major)]
    WrongVersion {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: Version,
        /// The first version that has what is needed.
        oldest: Version,
    },
}

/// Of those answers to `cuInit` that people meet.
fn meaning(code: i32) -> &'static str {
    match code {
        2 => " (out of memory)",
        3 => " (not initialised)",
        34 => " (the library is a stub: the real one of the driver must come first in the loader's path)",
        802 => " (the fabric manager is not ready)",
        803 => " (the driver's library and its kernel module are of different versions)",
        804 => " (this GPU does not support the compatibility libraries that are installed)",
        999 => " (unknown; see the kernel's log)",
        _ => "",
    }
}
