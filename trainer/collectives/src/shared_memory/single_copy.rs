//! All-reduce of private memory without staging: each rank reads the others' memory where it lies, if the system lets
//! all ranks do so. What a rank has reduced the others read from it too, so nothing is copied but results.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

use smallvec::SmallVec;

use super::SharedMemory;
use super::reduce::{GRAIN, Places, share};
use crate::call::Call;
use crate::control::Failure;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::peer_memory;

/// Bytes that are reduced before their results are read: these are then still in somebody's cache.
const BLOCK: usize = 4 << 20;

/// Bytes that are read from all ranks before they are reduced, and the most of one: they stay in the second-level cache.
const READ: usize = 1 << 20;
const READ_OF_ONE: usize = 256 << 10;

/// Bytes up to which staging costs no less than reading memory that has small pages.
const SMALL_PAGES: usize = 16 << 20;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What ranks know of reading each other's memory.
#[derive(Debug)]
pub(super) struct Reading {
    /// None until the ranks have tried.
    works: Option<bool>,
    /// What the others look for, to be sure that they read this process and no other that is called alike elsewhere.
    token: Box<Token>,
}

/// The session of the group, and the rank.
type Token = [u64; 2];

impl Reading {
    pub(super) fn new(session: u64, rank: usize) -> Self {
        Self { works: None, token: Box::new(token(session, rank)) }
    }
}

fn token(session: u64, rank: usize) -> Token {
    [session, rank as u64]
}

impl SharedMemory {
    /// Reduces private memory onto every rank; false where some rank cannot read another's, or not quickly, and nothing
    /// has changed.
    pub(super) fn reduce_single_copy<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        reduction: Reduction,
    ) -> Result<bool, Error> {
        if self.reading.works == Some(false) {
            return Ok(false);
        }
        let is_quick = self.regulars.come(data) || size_of_val(data) <= SMALL_PAGES;
        let address = data.as_mut_ptr().expose_provenance();
        self.enter(call, if is_quick && peer_memory::is_readable(data) { address } else { 0 })?;
        let slot = (call.index & 1) as usize;
        let places: SmallVec<[usize; 16]> =
            (0..self.world_size()).map(|rank| self.control.announced(rank, slot).1).collect();
        // All ranks see the same, also of those that go on and announce the call once more, without a place.
        if places.contains(&0) || !self.agree_on_reading(call)? {
            return Ok(false);
        }
        let largest = BLOCK / size_of::<T>();
        let blocks = data.len().div_ceil(largest);
        let block = |index: usize| index * largest..data.len().min((index + 1) * largest);
        let blocks: SmallVec<[Range<usize>; 16]> = (0..blocks).map(block).collect();
        for interval in 0..=blocks.len() {
            // SAFETY: all ranks are inside this call with as many elements. Between two steps a rank writes to its own
            // share of a block, which nobody else reads then, and to the others' shares of the block before, of which
            // they have taken theirs a step ago.
            unsafe {
                if let Some(block) = blocks.get(interval) {
                    self.reduce_own_share(call, data, &places, block, reduction)?;
                }
                if let Some(block) = interval.checked_sub(1).and_then(|before| blocks.get(before)) {
                    self.read_other_shares(call, data, &places, block)?;
                }
            }
            // A rank that has given up may have changed what was read; it has ended the group before.
            self.step(call)?;
        }
        Ok(true)
    }

    /// Whether every rank can read the memory of every other. They find out together in the first such call.
    fn agree_on_reading(&mut self, call: Call) -> Result<bool, Error> {
        if let Some(works) = self.reading.works {
            return Ok(works);
        }
        self.control.offer_memory(self.rank, (&raw const *self.reading.token).expose_provenance());
        self.step(call)?;
        let can_read = |rank: usize| {
            let (process, address) = self.control.offered_memory(rank);
            let mut found = Token::default();
            // SAFETY: the bytes go to an array of ours.
            let read =
                unsafe { peer_memory::read(process, address, (&raw mut found).cast(), size_of::<Token>()) };
            read.is_ok() && found == token(self.session(), rank)
        };
        let can_read_all = (0..self.world_size()).filter(|rank| *rank != self.rank).all(can_read);
        self.control.set_reads(self.rank, can_read_all);
        self.step(call)?;
        let works = (0..self.world_size()).all(|rank| self.control.reads(rank));
        self.reading.works = Some(works);
        tracing::debug!(works, "reading the memory of the other ranks");
        Ok(works)
    }

    /// Reduces this rank's share of a block of all ranks' data into its place in `data`.
    ///
    /// # Safety
    /// The other ranks must hold as many elements at `places`, and no rank may write to this share.
    unsafe fn reduce_own_share<T: Element>(
        &self,
        call: Call,
        data: &mut [T],
        places: &[usize],
        block: &Range<usize>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let own = share(block.len(), self.rank, self.world_size());
        let own = block.start + own.start..block.start + own.end;
        let bytes = (READ / (self.world_size() - 1).max(1)).min(READ_OF_ONE);
        let largest = (bytes / size_of::<T>() / GRAIN * GRAIN).max(GRAIN);
        // The slots: all ranks have entered the call, so that nobody reads in them any more.
        let scratch = self.arena.slot(self.rank, 0).cast::<T>();
        for start in own.clone().step_by(largest) {
            let count = largest.min(own.end - start);
            let target = data[start..start + count].as_mut_ptr();
            let mut sources: Places<T> = SmallVec::new();
            for (peer, place) in places.iter().enumerate() {
                if peer == self.rank {
                    sources.push(target);
                    continue;
                }
                let index = peer - usize::from(peer > self.rank);
                let address = place + start * size_of::<T>();
                // Processors copy slowly between places that lie differently in cache lines.
                let copy = scratch.wrapping_add(index * (largest + GRAIN)).wrapping_byte_add(address % LINE);
                // SAFETY: the copies of all ranks fit this rank's slots, which nobody else touches now.
                unsafe { self.read_from(peer, address, copy, count, call)? };
                sources.push(copy);
            }
            // SAFETY: the copies hold `count` elements and the target is ours; it is its own source.
            unsafe { kernels::reduce(reduction, &sources, &[target], count) };
        }
        Ok(())
    }

    /// Takes from every other rank what it has reduced of a block.
    ///
    /// # Safety
    /// The other ranks must hold as many elements at `places`, and have reduced their shares.
    unsafe fn read_other_shares<T: Element>(
        &self,
        call: Call,
        data: &mut [T],
        places: &[usize],
        block: &Range<usize>,
    ) -> Result<(), Error> {
        let world_size = self.world_size();
        // Everyone begins with another rank.
        for peer in (1..world_size).map(|distance| (self.rank + distance) % world_size) {
            let share = share(block.len(), peer, world_size);
            let start = block.start + share.start;
            let part = &mut data[start..block.start + share.end];
            let address = places[peer] + start * size_of::<T>();
            // SAFETY: the part is ours.
            unsafe { self.read_from(peer, address, part.as_mut_ptr(), part.len(), call)? };
        }
        Ok(())
    }

    /// # Safety
    /// `place` must be writable for `count` elements, of whose type any bits are a value.
    unsafe fn read_from<T: Element>(
        &self,
        peer: usize,
        address: usize,
        place: *mut T,
        count: usize,
        call: Call,
    ) -> Result<(), Error> {
        self.check_failure(call)?;
        let (process, _) = self.control.offered_memory(peer);
        // SAFETY: the caller's promise.
        let read = unsafe { peer_memory::read(process, address, place.cast(), count * size_of::<T>()) };
        read.map_err(|error| self.unreadable(peer, error, call))
    }

    /// The memory of a peer could be read before, and now it cannot.
    #[cold]
    fn unreadable(&self, peer: usize, error: io::Error, call: Call) -> Error {
        if error.raw_os_error() == Some(libc::ESRCH) {
            return self.fail(Failure::Died { rank: peer }, call);
        }
        if let Err(failed) = self.check_failure(call) {
            return failed;
        }
        let rank = self.membership.members[peer];
        tracing::warn!(rank, %error, "the memory of a rank can no longer be read");
        self.fail(Failure::Unreadable { rank: peer }, call)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;
    use crate::call::{Operation, Placement};
    use crate::element::DataType;
    use crate::memory::Mapping;
    use crate::options::Options;

    const COUNT: usize = (BLOCK + BLOCK / 2) / size_of::<i32>();

    /// Runs `work` on two ranks, each a thread.
    fn on_two_ranks<R: Send>(work: impl Fn(SharedMemory) -> R + Sync) -> Vec<R> {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let rank = |rank| {
                let options = Options::new(directory.path(), "test", rank, 2);
                let work = &work;
                scope.spawn(move || work(SharedMemory::join(&options).unwrap()))
            };
            let ranks = [rank(0), rank(1)];
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    fn call(index: u64, count: usize) -> Call {
        Call {
            index,
            operation: Operation::AllReduce,
            data_type: Some(DataType::I32),
            count,
            reduction: Some(Reduction::Sum),
            root: None,
            placement: Placement::Staged,
        }
    }

    /// Adds up what the ranks hold, for all elements the same.
    fn sum(group: &mut SharedMemory, index: u64, data: &mut [i32]) {
        let call = call(index, data.len());
        let own = data[0];
        group.reduce_staged(call, data, Reduction::Sum, None).unwrap();
        let other = own ^ 3;
        assert!(data.iter().all(|value| *value == own + other), "call {index}");
        data.fill(own);
    }

    #[test]
    fn ranks_read_each_other_where_all_can_and_stage_where_one_cannot() {
        let works = on_two_ranks(|mut group| {
            let mut data = vec![1 + group.rank() as i32; COUNT];
            sum(&mut group, 0, &mut data);
            let works = group.reading.works;
            group.reading.works = Some(false);
            sum(&mut group, 1, &mut data);
            works
        });
        // Where the system forbids it there is nothing more to see.
        assert!(works[0].is_some() && works[0] == works[1], "{works:?}");
    }

    #[test]
    fn a_process_that_is_not_the_peer_is_not_read() {
        let works = on_two_ranks(|mut group| {
            // The number of rank 1 in a namespace of its own is that of another process here.
            if group.rank() == 1 {
                *group.reading.token = Token::default();
            }
            let mut data = vec![1 + group.rank() as i32; COUNT];
            sum(&mut group, 0, &mut data);
            sum(&mut group, 1, &mut data);
            group.reading.works
        });
        assert_eq!(works, [Some(false); 2]);
    }

    /// Lets the system refuse this thread the memory of any process, as it does in containers with a strict profile.
    fn forbid_reading() {
        let instruction = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
        let readv = libc::SYS_process_vm_readv as u32;
        let mut program = [
            // The number of the call stands first in what the filter is given.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, readv, 1),
            instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
            instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the filter lives until the calls return, and is this thread's alone.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
            ]
        };
        assert_eq!(results, [0, 0], "{}", io::Error::last_os_error());
    }

    #[test]
    fn where_the_system_forbids_one_rank_to_read_all_stage_even_if_it_did_not_before() {
        on_two_ranks(|mut group| {
            let mut data = vec![1 + group.rank() as i32; COUNT];
            sum(&mut group, 0, &mut data);
            if group.rank() == 1 {
                forbid_reading();
                assert!(!peer_memory::is_readable(&data));
            }
            sum(&mut group, 1, &mut data);
            sum(&mut group, 2, &mut data);
        });
    }

    #[test]
    fn memory_that_can_no_longer_be_read_is_an_error_on_all_ranks_that_names_whose_it_was() {
        let errors = on_two_ranks(|mut group| {
            let mut data = vec![1 + group.rank() as i32; COUNT];
            sum(&mut group, 0, &mut data);
            let call = call(1, COUNT);
            let error = if group.rank() == 1 {
                // No process has memory there.
                // SAFETY: the data is ours.
                unsafe { group.read_from::<i32>(0, 8, data.as_mut_ptr(), 1, call) }.unwrap_err()
            } else {
                group.step(call).unwrap_err()
            };
            error.to_string()
        });
        assert_eq!(errors[0], errors[1]);
        assert!(errors[0].starts_with("lost rank 0 on "), "{errors:?}");
        assert!(errors[0].contains("its memory can no longer be read"), "{errors:?}");
    }

    #[test]
    fn memory_that_the_system_reads_for_nobody_is_staged() {
        on_two_ranks(|mut group| {
            let length = (COUNT * size_of::<i32>()).next_multiple_of(4096);
            let mut data = vec![1 + group.rank() as i32; COUNT];
            // SAFETY: the call makes a descriptor, or gives -1.
            let secret = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
            let mapping = (secret >= 0).then(|| {
                // SAFETY: the descriptor is new and nobody else's.
                let secret = unsafe { OwnedFd::from_raw_fd(secret as i32) };
                rustix::fs::ftruncate(&secret, length as u64).unwrap();
                Mapping::new(secret, length)
            });
            let Some(Ok(mapping)) = mapping else {
                eprintln!("skipped: this machine has no secret memory, or allows too little of it");
                // The other rank sees the same.
                return sum(&mut group, 0, &mut data);
            };
            #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
            // SAFETY: the mapping has room for so many elements, any bits are a value, and nobody else looks at it.
            let hidden = unsafe { std::slice::from_raw_parts_mut(mapping.at(0).cast::<i32>(), COUNT) };
            hidden.fill(data[0]);
            assert!(!peer_memory::is_readable(hidden));
            if group.rank() == 1 {
                sum(&mut group, 0, hidden);
            } else {
                sum(&mut group, 0, &mut data);
            }
            assert_eq!(group.reading.works, None, "nothing was tried");
            sum(&mut group, 1, &mut data);
        });
    }
}
