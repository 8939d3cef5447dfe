//! Which addresses of the node's block are taken. Pure.

use std::collections::HashSet;
use std::net::Ipv4Addr;

/// All pods have addresses of 10.244.0.0/16; every agent of a machine takes one block of it.
const BASE: u32 = u32::from_be_bytes([10, 244, 0, 0]);
/// Bits of the prefix of a block.
pub(crate) const BLOCK_PREFIX: u8 = 20;
/// How many blocks there are.
pub(crate) const BLOCKS: u32 = 16;
const BLOCK_SIZE: u32 = 1 << (32 - BLOCK_PREFIX as u32);

/// The first address for pods: before it are the network's own, the machine's, and that of the services.
const FIRST: u32 = 3;

/// The addresses of one block.
#[derive(Debug)]
pub(crate) struct Addresses {
    first: u32,
    next: u32,
    taken: HashSet<u32>,
}

impl Addresses {
    /// The block with this number, counted modulo the number of blocks.
    pub(crate) fn new(block: u32) -> Self {
        Self { first: BASE + (block % BLOCKS) * BLOCK_SIZE, next: FIRST, taken: HashSet::new() }
    }

    /// The machine's own address in the block.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// Where packets for services go.
    pub(crate) fn services(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 2)
    }

    /// The next free address; goes round so that an address rests before it is used again.
    pub(crate) fn allocate(&mut self) -> Option<Ipv4Addr> {
        for _ in FIRST..BLOCK_SIZE - 1 {
            let candidate = self.next;
            self.next = if candidate + 1 >= BLOCK_SIZE - 1 { FIRST } else { candidate + 1 };
            if self.taken.insert(candidate) {
                return Some(Ipv4Addr::from(self.first + candidate));
            }
        }
        None
    }

    /// Marks the address of a pod that was found running.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address) {
            self.taken.insert(offset);
        }
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address) {
            self.taken.remove(&offset);
        }
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        u32::from(address).checked_sub(self.first).filter(|offset| *offset < BLOCK_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_address_is_given_twice(releases in prop::collection::vec(any::<bool>(), 1..300)) {
            let mut addresses = Addresses::new(3);
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for release in releases {
                if release && let Some(address) = held.pop() {
                    addresses.release(address);
                } else {
                    let address = addresses.allocate().unwrap();
                    prop_assert!(!held.contains(&address));
                    prop_assert!(address != addresses.gateway() && address != addresses.services());
                    held.push(address);
                }
            }
        }
    }

    #[test]
    fn a_full_block_says_so() {
        let mut addresses = Addresses::new(0);
        let count = std::iter::from_fn(|| addresses.allocate()).count();
        assert_eq!(count, 4096 - 4);
        addresses.release(Ipv4Addr::new(10, 244, 1, 7));
        assert_eq!(addresses.allocate(), Some(Ipv4Addr::new(10, 244, 1, 7)));
    }
}
