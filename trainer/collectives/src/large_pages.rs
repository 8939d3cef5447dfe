//! Large pages for memory that comes again and again: other processes read it almost twice as fast.
//!
//! Gathering small pages into large ones costs as much as some ten collectives on them, so it is done for memory
//! that has come several times. It changes no content, and whoever owns the memory need not know.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

use crate::memory::LARGE_PAGE;

/// How often memory comes before it is worth the effort.
const OFTEN: u64 = 3;

/// Places that are remembered, the ones that came last.
const REMEMBERED: usize = 512;

/// What has come so far.
#[derive(Debug)]
pub(crate) struct Regulars {
    places: VecDeque<Place>,
    /// What tells how large pages are; kernels before 6.7 do not.
    pages: Option<OwnedFd>,
}

#[derive(Debug)]
struct Place {
    range: Range<usize>,
    came: u64,
    /// How often it has come when pages are looked at again.
    due: u64,
    /// What was found then.
    is_large: bool,
}

impl Regulars {
    pub(crate) fn new() -> Self {
        let pages = open("/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        Self { places: VecDeque::new(), pages: pages.ok() }
    }

    /// Notes that a collective has come to this memory, and gets it large pages if it comes often. Gives whether it had
    /// them when its pages were looked at last.
    pub(crate) fn come<T>(&mut self, data: &mut [T]) -> bool {
        let start = data.as_mut_ptr().cast::<u8>().expose_provenance();
        let large = start.next_multiple_of(LARGE_PAGE)..(start + size_of_val(data)) / LARGE_PAGE * LARGE_PAGE;
        if large.is_empty() {
            return false;
        }
        if !self.is_due(&large) {
            return self.places.back().is_some_and(|place| place.is_large);
        }
        let done = self.are_large(&large) == Some(true) || gather(&large);
        if let Some(place) = self.places.back_mut() {
            // Where the system has none to give it is asked ever more seldom. What was given may be freed, and others
            // may come in its place.
            place.due = if done { place.came + OFTEN } else { place.came * 4 };
            place.is_large = done;
        }
        done
    }

    /// Counts a place, which is then the last one, and says whether to look at its pages.
    fn is_due(&mut self, range: &Range<usize>) -> bool {
        let known = self.places.iter().position(|place| place.range == *range);
        let known = known.and_then(|index| self.places.remove(index));
        let mut place =
            known.unwrap_or_else(|| Place { range: range.clone(), came: 0, due: OFTEN, is_large: false });
        place.came += 1;
        let is_due = place.came >= place.due;
        if self.places.len() == REMEMBERED {
            self.places.pop_front();
        }
        self.places.push_back(place);
        is_due
    }

    /// Whether all pages of a range are large, if the system tells.
    fn are_large(&self, range: &Range<usize>) -> Option<bool> {
        const IS_HUGE: u64 = 1 << 6;
        let mut found = [0_u64; 3];
        let mut request = Scan {
            size: size_of::<Scan>() as u64,
            start: range.start as u64,
            end: range.end as u64,
            regions: (&raw mut found).expose_provenance() as u64,
            region_count: 1,
            page_count: 1,
            inverted: IS_HUGE,
            all_of: IS_HUGE,
            ..Scan::default()
        };
        let pages = self.pages.as_ref()?.as_raw_fd();
        // SAFETY: the kernel reads and writes the request, whose size it is told, and one region.
        let small = unsafe { libc::ioctl(pages, SCAN, &raw mut request) };
        (small >= 0).then_some(small == 0)
    }
}

/// `PAGEMAP_SCAN` of Linux 6.7.
const SCAN: libc::Ioctl = 0xc060_6610;

/// `struct pm_scan_arg`: which pages of a range to find.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walked_to: u64,
    regions: u64,
    region_count: u64,
    page_count: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    wanted: u64,
}

/// Whether the kernel has given all of a range large pages.
fn gather(range: &Range<usize>) -> bool {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the range lies in memory that the caller borrows, and another size of page changes no content.
    unsafe { libc::madvise(start, range.len(), libc::MADV_COLLAPSE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_often_keeps_its_content() {
        let mut regulars = Regulars::new();
        let mut data: Vec<usize> = (0..LARGE_PAGE).collect();
        let before = data.clone();
        for coming in 1..20 {
            let is_large = regulars.come(&mut data);
            assert!(!is_large || coming >= OFTEN);
            assert_eq!(data, before);
        }
        assert_eq!(regulars.places.len(), 1);
    }

    #[test]
    fn pages_are_looked_at_once_a_place_has_come_often() {
        let mut regulars = Regulars::new();
        let range = |index: usize| index * LARGE_PAGE..(index + 1) * LARGE_PAGE;
        assert_eq!([(); 4].map(|()| regulars.is_due(&range(1))), [false, false, true, true]);
        for other in 2..2 + REMEMBERED {
            assert!(!regulars.is_due(&range(other)));
        }
        assert!(!regulars.is_due(&range(1)), "it was forgotten");
        assert_eq!(regulars.places.len(), REMEMBERED);
    }

    #[test]
    fn small_memory_is_not_noted() {
        let mut regulars = Regulars::new();
        assert!(!regulars.come(&mut [0_u8; 4096]));
        assert!(regulars.places.is_empty());
    }
}
