//! Groups that measure when they come together which algorithm to take for which size.

use muster_collectives::{Communicator, Reduction};

use crate::support::{on_hosts, on_threads};

/// The bits of sums around the sizes at which algorithms change.
fn sums(group: &mut Communicator, is_registered: bool) -> Vec<Vec<u32>> {
    let counts = [1, 64, 100, 1024, 3000, 8192, 20_000, 65_537, 200_000];
    let sum = |count: usize| {
        let rank = group.rank();
        let values = (0..count).map(|index| ((index * 7919 + rank * 104_729) as f32).sin());
        if is_registered {
            let mut buffer = group.allocate::<f32>(count).unwrap();
            buffer.iter_mut().zip(values).for_each(|(place, value)| *place = value);
            group.all_reduce(&mut buffer, Reduction::Sum).unwrap();
            buffer.iter().map(|value| value.to_bits()).collect()
        } else {
            let mut data: Vec<f32> = values.collect();
            group.all_reduce_staged(&mut data, Reduction::Sum).unwrap();
            data.into_iter().map(f32::to_bits).collect()
        }
    };
    counts.into_iter().map(sum).collect()
}

#[test]
fn what_is_measured_changes_no_bit() {
    for world_size in [1, 2, 3, 5] {
        let both = |mut group: Communicator| [sums(&mut group, false), sums(&mut group, true)];
        let usual = on_threads(world_size, |_| (), both);
        let measured = on_threads(world_size, |options| options.probe = true, both);
        assert!(usual == measured, "{world_size} ranks");
        assert!(usual.iter().all(|rank| rank == &usual[0]), "{world_size} ranks");
    }
}

#[test]
fn ranks_measure_alike_where_one_has_no_arena() {
    let without_arena = |options: &mut muster_collectives::Options| {
        options.probe = true;
        if options.rank == 1 {
            options.arena_bytes = 0;
        }
    };
    let staged = |mut group: Communicator| sums(&mut group, false);
    let measured = on_threads(3, without_arena, staged);
    assert!(measured == on_threads(3, |_| (), staged));
}

#[test]
fn groups_of_several_hosts_and_those_that_come_from_them_may_measure() {
    on_hosts(
        &[0, 0, 1, 1],
        |options| options.probe = true,
        |mut group| {
            let mut pair = group.split(Some(group.rank() as u32 / 2), 0).unwrap().unwrap();
            let mut sum = [1_i64 << group.rank()];
            pair.all_reduce_staged(&mut sum, Reduction::Sum).unwrap();
            assert_eq!(sum, [if group.rank() < 2 { 0b11 } else { 0b1100 }]);
            group.barrier().unwrap();
        },
    );
}
