//! Memory shared between processes: an anonymous file that vanishes with its last user, and its mapping.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap, mmap_anonymous, mremap_fixed, munmap,
};

/// Granularity of everything placed in shared memory, in bytes.
pub(crate) const PAGE: usize = 4096;

/// Bytes of a large page.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Types that may live in memory which other processes write to.
///
/// # Safety
/// Any bit pattern must be a valid value and every access must be atomic.
pub(crate) unsafe trait Shared {}

/// Creates an anonymous file of `length` bytes (zeros, no memory used until touched) whose size is sealed, so
/// that no peer can shrink it under a mapping.
pub(crate) fn create_file(name: &str, length: usize) -> io::Result<OwnedFd> {
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, length as u64)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

/// Checks that a file received from a peer has the announced length and can never shrink.
pub(crate) fn verify_file(file: impl AsFd, length: usize) -> io::Result<()> {
    if !fcntl_get_seals(&file)?.contains(SEALS) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared memory of a peer is not sealed"));
    }
    if fstat(&file)?.st_size as u64 != length as u64 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the shared memory of a peer has another size",
        ));
    }
    Ok(())
}

/// A shared, writable mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is plain memory; who may touch which part when is the concern of its users.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the file, at an address that lets the kernel use large pages where the file has them.
    pub(crate) fn new(file: impl AsFd, length: usize) -> io::Result<Self> {
        let reserved = length + LARGE_PAGE;
        // SAFETY: a fresh reservation at an address the kernel chooses touches nothing that exists. The file is then
        // mapped inside it, and what is left of it on both sides, which nobody knows of, is given back.
        unsafe {
            let room = mmap_anonymous(
                std::ptr::null_mut(),
                reserved,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?;
            let before = room.cast::<u8>().align_offset(LARGE_PAGE);
            let start = room.byte_add(before);
            let mapped = mmap(
                start,
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED,
                file,
                0,
            );
            if let Err(error) = mapped {
                munmap(room, reserved)?;
                return Err(error.into());
            }
            let end = before + length.next_multiple_of(PAGE);
            if before > 0 {
                munmap(room, before)?;
            }
            munmap(room.byte_add(end), reserved - end)?;
            let start = NonNull::new(start.cast())
                .ok_or_else(|| io::Error::other("the kernel mapped address zero"))?;
            Ok(Self { start, length })
        }
    }

    /// Address of the byte at `offset`, which must lie inside.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.length, "offset {offset} is outside a mapping of {} bytes", self.length);
        // SAFETY: just checked to be inside the mapping, or one past its end.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// The `T` at `offset`.
    pub(crate) fn view<T: Shared>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.length && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the mapping and aligned; `Shared` makes any content and any concurrent access valid.
        unsafe { &*self.at(offset).cast::<T>() }
    }

    /// Gets the pages of a range now, so that the owner's processor has them near and no later access faults: large
    /// ones wherever the range covers them and the kernel can.
    ///
    /// Kernels before 6.1 cannot gather large pages, and those before 5.14 cannot do it ahead: then pages are small,
    /// or come on first use.
    pub(crate) fn populate(&self, offset: usize, length: usize) {
        assert!(offset + length <= self.length);
        let large = offset.next_multiple_of(LARGE_PAGE)..(offset + length) / LARGE_PAGE * LARGE_PAGE;
        if !large.is_empty() {
            let start = self.at(large.start).cast::<c_void>();
            // SAFETY: the range lies in this mapping, and another size of page changes no content.
            unsafe {
                libc::madvise(start, large.len(), libc::MADV_HUGEPAGE);
                libc::madvise(start, large.len(), libc::MADV_COLLAPSE);
            }
        }
        // SAFETY: the range lies in this mapping, and populating changes no content.
        let _ = unsafe { madvise(self.at(offset).cast::<c_void>(), length, Advice::LinuxPopulateWrite) };
    }

    /// Replaces a page-aligned range by a private copy: what peers still write there is no longer seen.
    pub(crate) fn detach(&self, offset: usize, length: usize) -> io::Result<()> {
        assert!(offset + length <= self.length && offset.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        if length == 0 {
            return Ok(());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the copy goes to fresh memory, which then takes the place of a range that belongs to this
        // mapping and keeps its address, so pointers into it stay valid.
        unsafe {
            let copy = mmap_anonymous(std::ptr::null_mut(), length, protection, MapFlags::PRIVATE)?;
            std::ptr::copy_nonoverlapping(self.at(offset), copy.cast::<u8>(), length);
            let place = self.at(offset).cast::<c_void>();
            mremap_fixed(copy, length, length, MremapFlags::MAYMOVE, place)?;
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_range_no_longer_sees_the_other_mapping() {
        let file = create_file("test", 2 * PAGE).unwrap();
        let (ours, theirs) = (Mapping::new(&file, 2 * PAGE).unwrap(), Mapping::new(&file, 2 * PAGE).unwrap());
        let write = |value: u8| {
            // SAFETY: both offsets are inside, and only this thread touches the memory.
            unsafe {
                theirs.at(0).write_volatile(value);
                theirs.at(PAGE).write_volatile(value);
            }
        };
        // SAFETY: as above.
        let read = || unsafe { (ours.at(0).read_volatile(), ours.at(PAGE).read_volatile()) };
        write(1);
        assert_eq!(read(), (1, 1));
        ours.detach(0, PAGE).unwrap();
        write(2);
        assert_eq!(read(), (1, 2));
    }

    #[test]
    fn populating_keeps_what_is_there_and_leaves_the_rest() {
        let file = create_file("test", 3 * LARGE_PAGE).unwrap();
        let mapping = Mapping::new(&file, 3 * LARGE_PAGE).unwrap();
        assert_eq!(mapping.at(0).align_offset(LARGE_PAGE), 0);
        // SAFETY: the offset is inside, and only this thread touches the memory.
        let touch = |offset: usize| unsafe {
            let before = mapping.at(offset).read_volatile();
            mapping.at(offset).write_volatile(before + 1);
            before
        };
        assert_eq!(touch(LARGE_PAGE + 5), 0);
        mapping.populate(LARGE_PAGE - PAGE, LARGE_PAGE + 2 * PAGE);
        assert_eq!((touch(LARGE_PAGE + 5), touch(LARGE_PAGE - PAGE), touch(2 * LARGE_PAGE)), (1, 0, 0));
        mapping.populate(0, 3 * LARGE_PAGE);
        assert_eq!(touch(LARGE_PAGE + 5), 2);
    }

    #[test]
    fn an_unsealed_or_short_file_is_refused() {
        let file = create_file("test", PAGE).unwrap();
        assert!(verify_file(&file, PAGE).is_ok());
        assert!(verify_file(&file, 2 * PAGE).is_err());
        let open = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&open, PAGE as u64).unwrap();
        assert!(verify_file(&open, PAGE).is_err());
    }
}
