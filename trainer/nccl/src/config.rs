//! How a communicator is configured.

use std::ffi::{c_char, c_int, c_uint};

use crate::version::Version;

/// Keep NCCL's default.
const UNDEFINED: c_int = c_int::MIN;

/// The fields of `ncclConfig_t` up to 2.18, which every later version accepts: the structure tells its size, and
/// grows at the end.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    /// Calls return at once, and how they go is asked for: only so can a wait have a deadline.
    pub(crate) fn nonblocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: Version::new(2, 18, 0).nccl_code(),
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use cudarc::nccl::sys::ncclConfig_t;

    use super::*;

    #[test]
    fn the_fields_lie_where_those_of_the_newest_version_lie() {
        assert_eq!(offset_of!(Config, magic), offset_of!(ncclConfig_t, magic));
        assert_eq!(offset_of!(Config, version), offset_of!(ncclConfig_t, version));
        assert_eq!(offset_of!(Config, blocking), offset_of!(ncclConfig_t, blocking));
        assert_eq!(offset_of!(Config, cga_cluster_size), offset_of!(ncclConfig_t, cgaClusterSize));
        assert_eq!(offset_of!(Config, max_ctas), offset_of!(ncclConfig_t, maxCTAs));
        assert_eq!(offset_of!(Config, net_name), offset_of!(ncclConfig_t, netName));
        assert_eq!(offset_of!(Config, split_share), offset_of!(ncclConfig_t, splitShare));
        assert!(size_of::<Config>() <= size_of::<ncclConfig_t>());
    }
}
