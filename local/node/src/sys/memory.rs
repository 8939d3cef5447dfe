//! How the C library hands out memory.
#![allow(unsafe_code)]

/// Lets all threads of this process take their memory from one heap; for the beginning, before there are others.
///
/// glibc otherwise gives each thread a heap of its own, up to eight for each processor. Objects of the API are read by
/// one thread and let go by another, so that every heap keeps room that the others could use: a third of all memory
/// of a cluster with a thousand jobs. Elsewhere nothing changes.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes two numbers, and no other thread is there to allocate meanwhile.
    let _accepted = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
