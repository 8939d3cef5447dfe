//! The inside of a node in a few words.

use super::text::bandwidth;
use crate::interior::{LinkKind, NodeInterior};

/// Which GPUs see each other how: `NV18 371 GB/s`, or `0-3 4-7 NODE 17 GB/s, else SYS`. The GPUs that stand together
/// are those that the nearest paths connect. Nothing for fewer than two GPUs.
pub fn inside(interior: &NodeInterior) -> Option<String> {
    let count = interior.gpu_count();
    let pairs = || (0..count).flat_map(|a| (0..a).map(move |b| (a, b)));
    let nearest = pairs().filter_map(|(a, b)| interior.link(a, b)).min_by_key(|kind| rank(*kind))?;
    let mut group: Vec<usize> = (0..count).collect();
    for (a, b) in pairs().filter(|(a, b)| interior.link(*a, *b).map(rank) == Some(rank(nearest))) {
        let (from, to) = (group[a].max(group[b]), group[a].min(group[b]));
        group.iter_mut().filter(|of| **of == from).for_each(|of| *of = to);
    }
    let mut others: Vec<LinkKind> =
        pairs().filter(|(a, b)| group[*a] != group[*b]).filter_map(|(a, b)| interior.link(a, b)).collect();
    others.sort_by_key(|kind| rank(*kind));
    others.dedup();
    let path = format!("{nearest} {}", bandwidth(interior.bandwidth(nearest)));
    if others.is_empty() {
        return Some(path);
    }
    let mut firsts = group.clone();
    firsts.sort_unstable();
    firsts.dedup();
    let members = firsts.iter().map(|first| ranges((0..count).filter(|gpu| group[*gpu] == *first)));
    let members: Vec<String> = members.collect();
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    Some(format!("{} {path}, else {}", members.join(" "), others.join(", ")))
}

/// Nearest first; of NVLinks the most.
fn rank(kind: LinkKind) -> (LinkKind, u16) {
    match kind {
        LinkKind::NvLink(links) => (LinkKind::NvLink(0), u16::MAX - links),
        other => (other, 0),
    }
}

/// `0-3,6`.
fn ranges(gpus: impl Iterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for gpu in gpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == gpu => *last = gpu,
            _ => runs.push((gpu, gpu)),
        }
    }
    let run = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}
