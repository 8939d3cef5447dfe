//! NCCL's results, of which more exist than any enum of today has.

use cudarc::nccl::sys::ncclResult_t;

pub(crate) const SUCCESS: i32 = ncclResult_t::ncclSuccess as i32;
pub(crate) const IN_PROGRESS: i32 = ncclResult_t::ncclInProgress as i32;

/// Whether a call was accepted; of the second kind it is known later how it went.
pub(crate) fn is_accepted(code: i32) -> bool {
    matches!(code, SUCCESS | IN_PROGRESS)
}
