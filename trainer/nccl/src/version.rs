//! Versions of NCCL and of CUDA.

use std::fmt;

/// A version; CUDA has no patch level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Another number means another interface.
    pub major: u32,
    /// Grows with new functions.
    pub minor: u32,
    /// Grows with repairs.
    pub patch: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// From what `ncclGetVersion` tells: 21805 is 2.18.5, and up to 2.8 a digit less: 2708 is 2.7.8.
    pub(crate) fn of_nccl(code: i32) -> Self {
        let code = code.max(0).unsigned_abs();
        if code < 10_000 {
            Self::new(code / 1000, code / 100 % 10, code % 100)
        } else {
            Self::new(code / 10_000, code / 100 % 100, code % 100)
        }
    }

    /// From what `cuDriverGetVersion` tells: 12080 is 12.8.
    pub(crate) fn of_cuda(code: i32) -> Self {
        let code = code.max(0).unsigned_abs();
        Self::new(code / 1000, code / 10 % 100, 0)
    }

    /// As NCCL's header writes it.
    pub(crate) const fn nccl_code(self) -> u32 {
        self.major * 10_000 + self.minor * 100 + self.patch
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(formatter, ".{}", self.patch) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_library_writes_them() {
        assert_eq!(Version::of_nccl(2708), Version::new(2, 7, 8));
        assert_eq!(Version::of_nccl(21_805), Version::new(2, 18, 5));
        assert_eq!(Version::of_nccl(22_907).nccl_code(), 22_907);
        assert_eq!(Version::of_cuda(12_080), Version::new(12, 8, 0));
        assert!(Version::of_nccl(21_304) < Version::of_nccl(21_400));
        assert_eq!(Version::of_nccl(-3), Version::new(0, 0, 0));
        assert_eq!(Version::of_cuda(12_080).to_string(), "12.8");
        assert_eq!(Version::of_nccl(21_805).to_string(), "2.18.5");
    }
}
