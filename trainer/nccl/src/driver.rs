//! The NVIDIA driver: whether it is there and sees a device.
//!
//! Asked through three functions of our own table, because cudarc panics where the library is missing.
#![allow(unsafe_code)]

use std::ffi::{OsStr, c_int, c_uint};
use std::mem::ManuallyDrop;

use crate::library::{described, dlopen};
use crate::unavailable::Unavailable;
use crate::version::Version;

/// As every driver for Linux installs it.
const LIBRARY: &str = "libcuda.so.1";

/// The first version all of whose functions that are used here exist.
const OLDEST: Version = Version::new(12, 0, 0);

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: i32 = 100;

/// A driver that sees at least one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that the driver knows.
    pub cuda: Version,
    /// GPUs that this process may use.
    pub devices: usize,
}

impl Driver {
    /// Starts the driver of this machine.
    pub fn detect() -> Result<Self, Unavailable> {
        Self::detect_as(OsStr::new(LIBRARY))
    }

    /// Starts the driver in this library.
    pub fn detect_as(name: &OsStr) -> Result<Self, Unavailable> {
        let library = || name.to_string_lossy().into_owned();
        // Unloading a driver that has started is asking for trouble.
        let loaded = dlopen(name).map(ManuallyDrop::new);
        let loaded =
            loaded.map_err(|error| Unavailable::NoDriver { library: library(), cause: described(&error) })?;
        let ask_number = |function: &'static str| {
            // SAFETY: both functions that are asked for take the address of a number; so does any driver's.
            let Ok(symbol) = (unsafe { loaded.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(function) })
            else {
                return Err(Unavailable::ForeignDriver { library: library(), symbol: function });
            };
            let mut number = 0;
            // SAFETY: the address is that of a number of ours.
            checked(function, unsafe { symbol(&raw mut number) })?;
            Ok(number)
        };
        let symbol = "cuInit";
        // SAFETY: the signature in every version of the driver.
        let Ok(init) = (unsafe { loaded.get::<unsafe extern "C" fn(c_uint) -> c_int>(symbol) }) else {
            return Err(Unavailable::ForeignDriver { library: library(), symbol });
        };
        // SAFETY: may be called at any time, and again; no flags exist.
        checked(symbol, unsafe { init(0) })?;
        let cuda = Version::of_cuda(ask_number("cuDriverGetVersion")?);
        if cuda < OLDEST {
            return Err(Unavailable::OldDriver { found: cuda, needed: OLDEST });
        }
        match usize::try_from(ask_number("cuDeviceGetCount")?) {
            Ok(devices) if devices > 0 => Ok(Self { cuda, devices }),
            _ => Err(Unavailable::NoDevice),
        }
    }
}

fn checked(function: &'static str, code: i32) -> Result<(), Unavailable> {
    match code {
        0 => Ok(()),
        NO_DEVICE => Err(Unavailable::NoDevice),
        code => Err(Unavailable::DriverFailed { function, code }),
    }
}
