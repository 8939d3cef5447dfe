//! Reductions against a sequential oracle, bit for bit: types × operations × worlds × lengths × alignments.

use muster_collectives::{Communicator, Error, Reduction, bf16, f16};

use crate::samples::{LAYOUTS, Sample, WORLDS, expected, input, limits, odd_counts, reductions};
use crate::support::{on_hosts, on_threads};

/// Every rank checks its own share of the elements, and all ranks must hold the same bits.
fn check<T: Sample>(
    group: &mut Communicator,
    layout: &[usize],
    result: &[T],
    reduction: Reduction,
    what: &str,
) {
    let world_size = group.world_size();
    let count = result.len();
    for index in (0..count).skip(group.rank()).step_by(world_size) {
        let expected = expected::<T>(reduction, layout, index);
        assert_eq!(result[index].bits(), expected, "{what} {reduction:?} {count} [{index}] of {layout:?}");
    }
    let checksum =
        result.iter().fold(0_i64, |sum, value| sum.wrapping_mul(31).wrapping_add(value.bits().cast_signed()));
    let mut bounds = [checksum, !checksum];
    group.all_reduce_staged(&mut bounds, Reduction::Minimum).unwrap();
    assert_eq!(bounds[0], !bounds[1], "all ranks hold the same bits");
}

fn check_all_reduce<T: Sample>(
    group: &mut Communicator,
    layout: &[usize],
    count: usize,
    offset: usize,
    reduction: Reduction,
) {
    let own = input::<T>(group.rank(), count);
    let mut registered = group.allocate::<T>(count).unwrap();
    registered.copy_from_slice(&own);
    group.all_reduce(&mut registered, reduction).unwrap();
    check(group, layout, &registered, reduction, "registered");

    // Canaries on both sides of memory that begins at any element.
    let canary = T::sample(99, 7);
    let mut staged = vec![canary; offset + count + 3];
    staged[offset..offset + count].copy_from_slice(&own);
    group.all_reduce_staged(&mut staged[offset..offset + count], reduction).unwrap();
    check(group, layout, &staged[offset..offset + count], reduction, "staged");
    let around = staged[..offset].iter().chain(&staged[offset + count..]);
    assert!(around.into_iter().all(|value| value.bits() == canary.bits()), "nothing beside the data changes");

    let root = count % group.world_size();
    let mut data = own.clone();
    group.reduce(&mut data, reduction, root).unwrap();
    if group.rank() == root {
        assert!(data.iter().zip(registered.iter()).all(|(a, b)| a.bits() == b.bits()), "reduce {count}");
    } else {
        assert!(data.iter().zip(&own).all(|(a, b)| a.bits() == b.bits()), "only the root's data changes");
    }
}

fn check_type<T: Sample>(group: &mut Communicator, layout: &[usize]) {
    for reduction in reductions::<T>() {
        for count in odd_counts(group.world_size()) {
            check_all_reduce::<T>(group, layout, count, [0, 1, 3][count % 3], reduction);
        }
    }
    for count in limits::<T>() {
        check_all_reduce::<T>(group, layout, count, count % 2, Reduction::Sum);
    }
}

fn everywhere<T: Sample>() {
    for world_size in WORLDS {
        on_threads(world_size, |_| (), |mut group| check_type::<T>(&mut group, &vec![0; world_size]));
    }
}

fn on_all_hosts<T: Sample>() {
    for layout in LAYOUTS {
        on_hosts(layout, |_| (), |mut group| check_type::<T>(&mut group, layout));
    }
}

macro_rules! all_reduce {
    ($($name:ident, $between_hosts:ident: $type:ty),*) => {$(
        #[test]
        fn $name() {
            everywhere::<$type>();
        }

        #[test]
        fn $between_hosts() {
            on_all_hosts::<$type>();
        }
    )*};
}

all_reduce!(
    all_reduce_f32, all_reduce_between_hosts_f32: f32,
    all_reduce_f64, all_reduce_between_hosts_f64: f64,
    all_reduce_f16, all_reduce_between_hosts_f16: f16,
    all_reduce_bf16, all_reduce_between_hosts_bf16: bf16,
    all_reduce_i32, all_reduce_between_hosts_i32: i32,
    all_reduce_i64, all_reduce_between_hosts_i64: i64,
    all_reduce_i8, all_reduce_between_hosts_i8: i8,
    all_reduce_u8, all_reduce_between_hosts_u8: u8
);

#[test]
fn long_reductions_go_through_many_pieces_and_slots() {
    let check_long = |mut group: Communicator, layout: &[usize]| {
        check_all_reduce::<f32>(&mut group, layout, (1 << 20) + 3, 1, Reduction::Average);
        for count in [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20] {
            check_all_reduce::<u8>(&mut group, layout, count, 3, Reduction::Maximum);
        }
        check_all_reduce::<bf16>(&mut group, layout, (3 << 20) + 5, 1, Reduction::Sum);
    };
    for world_size in [2, 3] {
        on_threads(world_size, |_| (), |group| check_long(group, &vec![0; world_size]));
    }
    for layout in [&[0, 1][..], &[0, 1, 2], &[0, 0, 1, 1], &[0, 0, 1]] {
        on_hosts(layout, |_| (), |group| check_long(group, layout));
    }
}

fn check_reduce_scatter<T: Sample>(
    group: &mut Communicator,
    layout: &[usize],
    part: usize,
    reduction: Reduction,
) {
    let (rank, world_size) = (group.rank(), group.world_size());
    let own = input::<T>(rank, part * world_size);
    let is_right = |part: &[T], start: usize| {
        part.iter()
            .enumerate()
            .all(|(index, value)| value.bits() == expected::<T>(reduction, layout, start + index))
    };
    let mut received = vec![T::default(); part];
    group.reduce_scatter(&own, &mut received, reduction).unwrap();
    assert!(is_right(&received, rank * part), "reduce_scatter {reduction:?} {part} of {world_size}");

    let mut registered = group.allocate::<T>(part * world_size).unwrap();
    registered.copy_from_slice(&own);
    group.reduce_scatter_registered(&mut registered, reduction).unwrap();
    assert!(is_right(&registered[rank * part..(rank + 1) * part], rank * part), "registered {part}");
    let others = (0..part * world_size).filter(|index| index / part.max(1) != rank);
    assert!(others.into_iter().all(|index| registered[index].bits() == own[index].bits()), "the rest stays");

    // Parts of different lengths, one of them empty.
    let counts: Vec<usize> = (0..world_size).map(|peer| part * ((peer + 1) % 3) / 2).collect();
    let start: usize = counts[..rank].iter().sum();
    let own = input::<T>(rank, counts.iter().sum());
    let mut received = vec![T::default(); counts[rank]];
    group.reduce_scatter_v(&own, &mut received, &counts, reduction).unwrap();
    assert!(is_right(&received, start), "reduce_scatter_v {reduction:?} {part} of {world_size}");
}

#[test]
fn reduce_scatter_leaves_every_rank_its_part() {
    let check_types = |mut group: Communicator, layout: &[usize]| {
        for part in odd_counts(group.world_size()) {
            check_reduce_scatter::<f32>(&mut group, layout, part, Reduction::Sum);
            check_reduce_scatter::<bf16>(&mut group, layout, part, Reduction::Average);
            check_reduce_scatter::<u8>(&mut group, layout, part, Reduction::BitXor);
            check_reduce_scatter::<i64>(&mut group, layout, part, Reduction::Product);
        }
        check_reduce_scatter::<f64>(&mut group, layout, 50_001, Reduction::Maximum);
        check_reduce_scatter::<f16>(&mut group, layout, 300_001, Reduction::Sum);
    };
    for world_size in WORLDS {
        on_threads(world_size, |_| (), |group| check_types(group, &vec![0; world_size]));
    }
    for layout in LAYOUTS {
        on_hosts(layout, |_| (), |group| check_types(group, layout));
    }
}

#[test]
fn special_values_follow_ieee_and_the_rule_of_nan() {
    on_threads(
        2,
        |_| (),
        |mut group| {
            let first = group.rank() == 0;
            let mut data = if first {
                [f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE / 4.0, f32::INFINITY]
            } else {
                [1.0, 1.0, -0.0, f32::MIN_POSITIVE / 4.0, f32::NEG_INFINITY]
            };
            group.all_reduce_staged(&mut data, Reduction::Sum).unwrap();
            assert!(data[0].is_nan() && data[4].is_nan());
            assert_eq!(data[1], f32::INFINITY);
            assert_eq!(data[2].to_bits(), (-0.0_f32).to_bits());
            assert_eq!(data[3], f32::MIN_POSITIVE / 2.0);

            let quiet = |payload: u32| f32::from_bits(0x7fc0_0000 | payload);
            for reduction in [Reduction::Minimum, Reduction::Maximum] {
                let mut data = if first {
                    [quiet(1), 2.0, quiet(3), 0.0, f32::NEG_INFINITY]
                } else {
                    [5.0, quiet(2), quiet(4), -0.0, f32::INFINITY]
                };
                group.all_reduce_staged(&mut data, reduction).unwrap();
                let bits = data.map(f32::to_bits);
                assert_eq!(bits[..3], [quiet(1), quiet(2), quiet(3)].map(f32::to_bits));
                assert_eq!(bits[3], (-0.0_f32).to_bits(), "of equal zeros that of the higher rank");
                let sign = if reduction == Reduction::Minimum { -1.0 } else { 1.0 };
                assert_eq!(data[4], sign * f32::INFINITY);
            }
        },
    );
}

#[test]
fn bits_of_floats_are_no_operands() {
    on_threads(
        2,
        |_| (),
        |mut group| {
            let error = group.all_reduce_staged(&mut [1.0_f32], Reduction::BitOr).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument(_)), "{error}");
            assert_eq!(error.to_string(), "bor does not reduce f32 elements");
            group.barrier().unwrap();
        },
    );
}
