//! All-reduce and reduce.

#![allow(unsafe_code)]

use super::share::{Memory, partial};
use super::{Hierarchy, Remote};
use crate::arena::{RegisteredBuffer, SLOT};
use crate::call::Call;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::network::{Content, Incoming};
use crate::shared_memory::{Places, SharedMemory, copy_in, copy_out, share};

/// Up to this many bytes one rank of each host exchanges the whole of what its host contributes with all others, and
/// reduces it itself: one way through the network, where shares need two. Recursive doubling would send less, but
/// combine in another order.
const SMALL: usize = 32 << 10;

impl Hierarchy {
    /// Replaces a registered buffer by the reduction of all ranks' buffers.
    pub(crate) fn all_reduce_registered<T: Element>(
        &mut self,
        call: Call,
        buffer: &mut RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else { return local.all_reduce_registered(call, buffer, reduction) };
        local.check_owner(buffer)?;
        if size_of_val(&**buffer) <= SMALL {
            let data = buffer.as_mut_ptr();
            // SAFETY: the buffer is ours, and peers touch only the slots.
            return unsafe { remote.reduce_small(local, call, data, Some(data), buffer.len(), reduction) };
        }
        let result = remote.reduce_where_it_lies(local, call, buffer, reduction);
        buffer.detached_if_failed(result)
    }

    /// Reduces private memory onto every rank or only onto `root`.
    pub(crate) fn reduce_staged<T: Element>(
        &mut self,
        call: Call,
        data: &mut [T],
        reduction: Reduction,
        root: Option<usize>,
    ) -> Result<(), Error> {
        let local = &mut self.local;
        let Some(remote) = &self.remote else { return local.reduce_staged(call, data, reduction, root) };
        let (count, bytes) = (data.len(), size_of_val(data));
        let source = data.as_mut_ptr();
        let wanted = root.is_none_or(|root| root == remote.rank).then_some(source);
        // SAFETY: the data is ours for `count` elements, and no peer knows of it.
        unsafe {
            if bytes <= SMALL {
                remote.reduce_small(local, call, source, wanted, count, reduction)
            } else {
                remote.reduce_in_pieces(local, call, source, wanted, count, reduction)
            }
        }
    }
}

impl Remote {
    /// Each carrier reduces its share of all buffers of its host together with the other hosts, and stores it to all.
    fn reduce_where_it_lies<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        buffer: &RegisteredBuffer<T>,
        reduction: Reduction,
    ) -> Result<(), Error> {
        local.enter(call, buffer.offset())?;
        let (place, carriers) = (local.rank(), self.carriers());
        if place < carriers {
            let sources = local.registered_places::<T>(call, 0);
            let destinations: Vec<*mut T> = sources.iter().map(|place| place.cast_mut()).collect();
            let memory = Memory { sources: &sources, destinations: &destinations };
            let share = share(call.count, place, carriers);
            // SAFETY: every rank of the host announced a buffer of `count` elements of `T` and is inside this call;
            // this share of all of them is ours until the next step.
            unsafe { self.reduce_share(local, call, memory, share, reduction)? };
        }
        local.conclude(call)
    }

    /// The first rank of each host exchanges its host's part with those of the others.
    ///
    /// # Safety
    /// `source` must be readable and `wanted` writable for `count` elements that no other rank touches; they may be
    /// the same.
    unsafe fn reduce_small<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        source: *mut T,
        wanted: Option<*mut T>,
        count: usize,
        reduction: Reduction,
    ) -> Result<(), Error> {
        local.in_pieces(call, count, SLOT / size_of::<T>(), |local, _, first| {
            let (place, turn) = (local.rank(), local.turn);
            // SAFETY: small data fits a slot, and no peer reads this slot before the step below.
            unsafe { copy_in(source, count, local.arena.slot(place, turn)) };
            local.meet(call, first)?;
            if place == 0 {
                let sources: Places<T> = local.slot_places(turn);
                let destination = local.arena.result_slot(place, turn).cast();
                let memory = Memory { sources: &sources, destinations: &[destination] };
                // SAFETY: all slots were filled before the step; nobody reads the result before the next.
                unsafe {
                    if self.travels_wide::<T>(reduction) {
                        self.reduce_whole::<T, T::Accumulator>(local, call, memory, count, reduction)?;
                    } else {
                        self.reduce_whole::<T, T>(local, call, memory, count, reduction)?;
                    }
                }
            }
            local.conclude(call)?;
            if let Some(wanted) = wanted {
                // SAFETY: the first rank filled its slot before the step.
                unsafe { copy_out(local.arena.result_slot(0, turn), wanted, count) };
            }
            Ok(())
        })
    }

    /// # Safety
    /// `memory` must hold `count` elements that nobody else touches meanwhile.
    unsafe fn reduce_whole<T: Element, W: Element<Accumulator = T::Accumulator>>(
        &self,
        local: &SharedMemory,
        call: Call,
        memory: Memory<'_, T>,
        count: usize,
        reduction: Reduction,
    ) -> Result<(), Error> {
        if count == 0 {
            return self.enter_leaders(local, call);
        }
        let mut scratch = Vec::new();
        // SAFETY: the caller's promise.
        let own = unsafe { partial::<T, W>(memory, 0..count, reduction, &mut scratch) };
        let mut received = vec![W::default(); count * self.hosts.len()];
        let mut outgoing = Vec::new();
        let mut incoming = Vec::new();
        for (host, part) in received.chunks_exact_mut(count).enumerate() {
            if host != self.own_host {
                let peer = self.hosts[host][0];
                outgoing.push(self.network.outgoing(peer, call, Content::Contribution, own));
                incoming.push(Incoming::new(peer, Content::Contribution, part));
            }
        }
        self.exchange(local, call, &mut outgoing, &mut incoming)?;
        let mut parts: Vec<*const W> = received.chunks_exact(count).map(<[W]>::as_ptr).collect();
        parts[self.own_host] = own.as_ptr();
        // SAFETY: every part holds `count` elements, and the destinations are the caller's promise.
        unsafe {
            kernels::reduce_between(reduction, self.world_size(), &parts, memory.destinations, count);
        }
        Ok(())
    }

    /// Carriers reduce shares of a piece that lies in the slots of their host, into slots of their own. On a host with
    /// one rank nothing is copied.
    ///
    /// # Safety
    /// As [`Self::reduce_small`].
    unsafe fn reduce_in_pieces<T: Element>(
        &self,
        local: &mut SharedMemory,
        call: Call,
        source: *mut T,
        wanted: Option<*mut T>,
        count: usize,
        reduction: Reduction,
    ) -> Result<(), Error> {
        let (place, carriers) = (local.rank(), self.carriers());
        let is_alone = local.world_size() == 1;
        let everyone_is_alone = self.hosts.iter().all(|ranks| ranks.len() == 1);
        // Only slots bound a piece.
        let largest = if everyone_is_alone && call.root.is_none() { count } else { SLOT / size_of::<T>() };
        local.in_pieces(call, count, largest, |local, piece, first| {
            let turn = local.turn;
            let at = source.wrapping_add(piece.start);
            if !is_alone {
                // SAFETY: a piece fits a slot, and no peer reads this slot before the step below.
                unsafe { copy_in(at, piece.len(), local.arena.slot(place, turn)) };
            }
            local.meet(call, first)?;
            if place < carriers {
                let mut sources: Places<T> = local.slot_places(turn);
                sources[place] = at;
                let slot = local.arena.result_slot(place, turn).cast();
                let destination = if is_alone && wanted.is_some() { at } else { slot };
                let memory = Memory { sources: &sources, destinations: &[destination] };
                let share = share(piece.len(), place, carriers);
                // SAFETY: all slots were filled before the step; nobody reads the result before the next.
                unsafe { self.reduce_share(local, call, memory, share, reduction)? };
            }
            local.conclude(call)?;
            let Some(wanted) = wanted.filter(|_| !is_alone) else { return Ok(()) };
            for carrier in 0..carriers {
                let share = share(piece.len(), carrier, carriers);
                let result = local.arena.result_slot(carrier, turn).cast::<T>().wrapping_add(share.start);
                // SAFETY: the carrier filled its slot before the step.
                unsafe { copy_out(result.cast(), wanted.add(piece.start + share.start), share.len()) };
            }
            Ok(())
        })
    }
}
