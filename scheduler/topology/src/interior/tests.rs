//! Choices and rings against all others.

use proptest::prelude::*;

use super::*;

/// Two sockets, on each two PCIe switches with `per_switch` GPUs, no NVLink.
fn pcie(per_switch: usize) -> NodeInterior {
    let count = 4 * per_switch;
    let path = |a: usize, b: usize| match (a / per_switch, b / per_switch) {
        (x, y) if x == y => LinkKind::Pix,
        (x, y) if x / 2 == y / 2 => LinkKind::Node,
        _ => LinkKind::Sys,
    };
    let links = (0..count).flat_map(|a| (0..count).map(move |b| path(a, b))).collect();
    let numa = (0..count).map(|gpu| Some((gpu / per_switch / 2) as u16)).collect();
    NodeInterior::new(Accelerator::H100_PCIE, links, numa, Vec::new()).unwrap()
}

/// Eight V100 with NVLink as a cube mesh: each GPU has six links to four others.
fn cube_mesh() -> NodeInterior {
    let doubled = [(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)];
    let single = [(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)];
    let has = |pairs: &[(usize, usize)], a: usize, b: usize| pairs.contains(&(a.min(b), a.max(b)));
    let path = |a: usize, b: usize| {
        if has(&doubled, a, b) {
            LinkKind::NvLink(2)
        } else if has(&single, a, b) {
            LinkKind::NvLink(1)
        } else if a / 4 == b / 4 {
            LinkKind::Node
        } else {
            LinkKind::Sys
        }
    };
    let links = (0..8).flat_map(|a| (0..8).map(move |b| path(a, b))).collect();
    let numa = (0..8).map(|gpu| Some(gpu / 4)).collect();
    NodeInterior::new(Accelerator::V100, links, numa, Vec::new()).unwrap()
}

fn set(gpus: &[usize]) -> GpuSet {
    gpus.iter().copied().collect()
}

#[test]
fn neighbours_on_a_switch_are_taken_first_and_the_rest_is_kept_whole() {
    let interior = pcie(2);
    let choose = |free: &[usize], count| interior.choose_gpus(set(free), count).unwrap();
    // Both pairs are whole; without 4 and 5 what is left lies on one socket.
    assert_eq!(choose(&[0, 2, 3, 4, 5], 2), set(&[4, 5]));
    // One GPU comes from a broken pair, so that the whole pairs stay.
    assert_eq!(choose(&[0, 1, 3, 4, 5, 6, 7], 1), set(&[3]));
    assert_eq!(choose(&[0, 2, 4, 5, 6, 7], 4), set(&[4, 5, 6, 7]));
    assert_eq!(choose(&[1, 3, 5], 0), GpuSet::EMPTY);
    assert_eq!(interior.choose_gpus(set(&[1, 3]), 3), None);
    assert_eq!(interior.choose_gpus(set(&[1, 63]), 2), None, "GPU 63 does not exist");
}

#[test]
fn gpus_behind_one_switch_come_from_one_socket() {
    let interior = NodeInterior::standard(Accelerator::H100, 8);
    assert_eq!(interior.choose_gpus(set(&[0, 1, 4, 5, 6, 7]), 2), Some(set(&[0, 1])));
    assert_eq!(interior.choose_gpus(set(&[1, 2, 3, 4, 6]), 2), Some(set(&[4, 6])));
    assert!((interior.ring_bandwidth(GpuSet::first(8)) - 370.8).abs() < 0.1);
    assert!((interior.ring_bandwidth(GpuSet::first(2)) - 370.8).abs() < 0.1);
    assert!(interior.ring_bandwidth(GpuSet::first(1)).is_infinite());
}

#[test]
fn a_cube_mesh_has_rings_of_all_its_links() {
    let interior = cube_mesh();
    assert!((interior.ring_bandwidth(GpuSet::first(8)) - 120.0).abs() < 1e-9);
    assert!((interior.ring_bandwidth(set(&[0, 3])) - 40.0).abs() < 1e-9);
    assert!((interior.ring_bandwidth(set(&[0, 7])) - 10.0).abs() < 1e-9, "no NVLink between 0 and 7");
    let order = interior.ring_order(GpuSet::first(8));
    for (at, gpu) in order.iter().enumerate() {
        let next = order[(at + 1) % 8];
        assert!(matches!(interior.link(*gpu, next), Some(LinkKind::NvLink(_))), "{order:?}");
    }
}

#[test]
fn tables_of_other_sizes_are_refused() {
    let new = |links: usize, gpus: usize| {
        let links = vec![LinkKind::Sys; links];
        NodeInterior::new(Accelerator::PCIE, links, vec![None; gpus], Vec::new()).unwrap_err().to_string()
    };
    assert_eq!(new(3, 2), "the table of paths has 3 entries where 2 GPUs need 4");
    assert_eq!(new(0, 65), "65 GPUs in one node are more than the 64 that are understood");
}

#[test]
fn eight_gpus_are_chosen_in_microseconds() {
    let interiors = [pcie(2), cube_mesh(), NodeInterior::standard(Accelerator::H100, 8)];
    for interior in &interiors {
        let start = std::time::Instant::now();
        for count in 1..=8 {
            for free in [0xff, 0x7f, 0xf7, 0x5f] {
                std::hint::black_box(interior.choose_gpus(GpuSet(free), count));
            }
        }
        let each = start.elapsed() / 32;
        println!("choosing among up to 8 GPUs: {each:?}");
        assert!(each.as_micros() < 500, "{each:?}");
    }
    let large = pcie(4);
    let start = std::time::Instant::now();
    std::hint::black_box(large.choose_gpus(GpuSet::first(16), 8));
    println!("choosing 8 of 16: {:?}", start.elapsed());
}

/// The widest ring by trying every order of the GPUs.
fn widest_ring(interior: &NodeInterior, gpus: &[usize]) -> u32 {
    fn extend(interior: &NodeInterior, gpus: &[usize], path: &mut Vec<usize>, best: &mut u32) {
        if path.len() == gpus.len() {
            let steps = (0..path.len()).map(|at| (path[at], path[(at + 1) % path.len()]));
            *best = (*best).max(steps.map(|(a, b)| interior.megabytes(a, b)).min().unwrap_or(0));
            return;
        }
        for gpu in gpus {
            if !path.contains(gpu) {
                path.push(*gpu);
                extend(interior, gpus, path, best);
                path.pop();
            }
        }
    }
    let mut best = 0;
    extend(interior, gpus, &mut vec![gpus[0]], &mut best);
    best
}

prop_compose! {
    fn any_interior()(count in 2_usize..8)(
        count in Just(count),
        paths in prop::collection::vec(0_usize..5, count * count),
        numa in prop::collection::vec(prop::option::of(0_u16..2), count),
    ) -> NodeInterior {
        const KINDS: [LinkKind; 5] =
            [LinkKind::Pix, LinkKind::Pxb, LinkKind::Phb, LinkKind::Node, LinkKind::Sys];
        let path = |a: usize, b: usize| KINDS[paths[a.min(b) * count + a.max(b)]];
        let links = (0..count).flat_map(|a| (0..count).map(move |b| path(a, b))).collect();
        NodeInterior::new(Accelerator::H100_PCIE, links, numa, Vec::new()).unwrap()
    }
}

proptest! {
    #[test]
    fn the_ring_over_pcie_is_the_widest_there_is(interior in any_interior()) {
        let all: Vec<usize> = (0..interior.gpu_count()).collect();
        let widest = widest_ring(&interior, &all);
        prop_assert_eq!(interior.ring_megabytes(GpuSet::first(all.len())), widest);
        let order = interior.ring_order(GpuSet::first(all.len()));
        let narrowest = (0..order.len())
            .map(|at| interior.megabytes(order[at], order[(at + 1) % order.len()]))
            .min();
        prop_assert_eq!(narrowest, Some(widest), "{:?}", order);
    }

    #[test]
    fn no_other_choice_has_a_wider_ring(interior in any_interior(), free in 0_u64..256, count in 2_usize..6) {
        let free = GpuSet(free).and(GpuSet::first(interior.gpu_count()));
        let Some(chosen) = interior.choose_gpus(free, count) else {
            prop_assert!(free.len() < count);
            return Ok(());
        };
        prop_assert_eq!((chosen.len(), chosen.without(free)), (count, GpuSet::EMPTY));
        let widest = (0..256)
            .map(GpuSet)
            .filter(|other| other.len() == count && other.without(free).is_empty())
            .map(|other| interior.ring_megabytes(other))
            .max();
        prop_assert_eq!(Some(interior.ring_megabytes(chosen)), widest);
    }
}
