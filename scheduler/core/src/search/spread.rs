//! Pods of one shape evenly over the domains of a level.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::counts::Counts;
use crate::map::{Domain, Map};

/// Places of `count` pods as (position, pods), no domain of `level` with more than it must have.
pub(super) fn over(
    map: &Map,
    counts: &Counts,
    within: Domain,
    level: usize,
    count: u32,
) -> Option<Vec<(usize, u32)>> {
    let inside = map.positions(within);
    let mut given: BTreeMap<Domain, u32> = BTreeMap::new();
    let mut least: BinaryHeap<Reverse<(u32, Reverse<u32>, Domain)>> = map
        .level(level)
        .filter(|domain| inside.contains(&map.positions(*domain).start) && counts.of(*domain) > 0)
        .map(|domain| Reverse((0, Reverse(counts.of(domain)), domain)))
        .collect();
    for _ in 0..count {
        let Reverse((had, Reverse(room), domain)) = least.pop()?;
        given.insert(domain, had + 1);
        if room > 1 {
            least.push(Reverse((had + 1, Reverse(room - 1), domain)));
        }
    }
    let mut places = Vec::new();
    for (domain, mut pods) in given {
        // Within a domain the roomiest hosts first, so that few are entered.
        let mut hosts: Vec<(u32, usize)> =
            map.positions(domain).map(|position| (counts.of(map.host(position)), position)).collect();
        hosts.sort_unstable_by_key(|(room, position)| (Reverse(*room), *position));
        for (room, position) in hosts {
            let here = room.min(pods);
            if here > 0 {
                places.push((position, here));
                pods -= here;
            }
        }
    }
    places.sort_unstable();
    Some(places)
}
