//! The memory of other processes of this host, read without their help where the system allows it: their user must be
//! ours, and no security module (such as Yama, where its `ptrace_scope` is not 0) may object.

#![allow(unsafe_code)]

use std::io;

use libc::iovec;

/// Copies `length` bytes that lie at `address` in a process to `place`.
///
/// # Safety
/// `place` must be writable for `length` bytes that nobody else touches.
pub(crate) unsafe fn read(process: u32, address: usize, place: *mut u8, length: usize) -> io::Result<()> {
    let mut copied = 0;
    while copied < length {
        let rest = length - copied;
        let local = iovec { iov_base: place.wrapping_add(copied).cast(), iov_len: rest };
        let remote = iovec { iov_base: std::ptr::without_provenance_mut(address + copied), iov_len: rest };
        // SAFETY: the caller's promise of the local range; a remote one that is not there is an error.
        let count = unsafe {
            libc::process_vm_readv(process.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
        };
        match count {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => copied += usize::try_from(count).map_err(|_| io::Error::last_os_error())?,
        }
    }
    Ok(())
}

/// Whether the system would read this memory for another process: that of devices it would not.
pub(crate) fn is_readable<T>(data: &[T]) -> bool {
    let bytes = size_of_val(data);
    let Some(last) = bytes.checked_sub(1) else { return false };
    let start = data.as_ptr().cast::<u8>().expose_provenance();
    let mut byte = 0;
    // SAFETY: one byte goes to a variable of ours.
    [start, start + last]
        .into_iter()
        .all(|address| unsafe { read(std::process::id(), address, &raw mut byte, 1) }.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_an_error() {
        let mut word = [0_u8; 8];
        // SAFETY: the bytes go to an array of ours.
        let mut read = |process, address| unsafe { read(process, address, word.as_mut_ptr(), 8) };
        let there = 7_u64;
        let address = (&raw const there).expose_provenance();
        assert!(read(std::process::id(), address).is_ok());
        assert_eq!(read(std::process::id(), 8).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert_eq!(read(i32::MAX as u32, address).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(word, there.to_ne_bytes());
    }

    #[test]
    fn memory_of_ours_is_readable_and_none_is_not() {
        assert!(is_readable(&[1_u8]) && is_readable(&vec![0_f64; 100_000]));
        assert!(!is_readable::<u8>(&[]));
    }
}
