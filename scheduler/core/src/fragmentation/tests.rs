//! Laws of the values, and of the fleet against looking at every node.

use proptest::prelude::*;

use super::{ClassSet, FillValue, Fleet, Free, Mix, Want};
use crate::devices::GpuDemand;

fn want(gpu: GpuDemand, processor: i64) -> Want {
    Want { gpu, host: [processor, 2 * processor], classes: ClassSet::ALL }
}

fn mix(kinds: &[(GpuDemand, i64, f64)]) -> Mix {
    let mut mix = Mix::default();
    for (gpu, processor, pods) in kinds {
        mix.observe(&want(*gpu, *processor), *pods);
    }
    mix
}

#[test]
fn what_nobody_can_use_is_worth_nothing() {
    let values = FillValue::of(&mix(&[(GpuDemand::Share(500), 4, 1.0)]), 1, 2);
    let free = |processor, devices| Free { class: 0, host: [processor, 1000], devices };
    assert!(values.value(&free(100, &[400, 0])) <= 0.0);
    assert!(values.value(&free(0, &[1000, 1000])) <= 0.0);
    let whole = values.value(&free(100, &[1000, 0]));
    assert!((900.0..=1000.0).contains(&whole), "{whole}");
    // Processor for one pod only.
    let scarce = values.value(&free(4, &[1000, 0]));
    assert!((400.0..=600.0).contains(&scarce), "{scarce}");
}

#[test]
fn a_share_joins_the_device_on_which_it_leaves_no_hole() {
    let values =
        FillValue::of(&mix(&[(GpuDemand::Share(700), 1, 3.0), (GpuDemand::Share(300), 1, 3.0)]), 1, 3);
    let free = Free { class: 0, host: [100, 1000], devices: &[1000, 700, 300] };
    let cost = values.cost(&free, &want(GpuDemand::Share(300), 1)).unwrap();
    assert_eq!(cost.left_on_device, Some(300));
}

#[test]
fn processor_bound_pods_go_where_processor_is_plentiful() {
    let kinds = [(GpuDemand::Whole(1), 10, 8.0), (GpuDemand::None, 30, 2.0)];
    let mut fleet = Fleet::default();
    fleet.set(0, &Free { class: 0, host: [80, 1000], devices: &[1000; 8] });
    fleet.set(1, &Free { class: 0, host: [100, 1000], devices: &[1000; 2] });
    for _ in 0..8 {
        for (gpu, processor, _) in kinds {
            fleet.observe(&want(gpu, processor));
        }
    }
    (0..40).for_each(|_| fleet.observe(&want(GpuDemand::Whole(1), 10)));
    assert_eq!(fleet.best(&want(GpuDemand::None, 30), |_| true).map(|choice| choice.node), Some(1));
    assert_eq!(fleet.best(&want(GpuDemand::None, 30), |node| node != 1).map(|choice| choice.node), Some(0));
    assert_eq!(fleet.best(&want(GpuDemand::None, 101), |_| true), None);
}

fn gpu() -> impl Strategy<Value = GpuDemand> {
    prop_oneof![
        Just(GpuDemand::None),
        (1_u32..5).prop_map(GpuDemand::Whole),
        (1_u16..20).prop_map(|fifty| GpuDemand::Share(50 * fifty - 3)),
    ]
}

fn wants() -> impl Strategy<Value = Vec<Want>> {
    let want = (gpu(), 0_i64..20, 1_usize..3).prop_map(|(gpu, processor, class)| {
        let classes = if class == 1 { ClassSet::ALL } else { ClassSet::of([0]) };
        Want { classes, ..want(gpu, processor) }
    });
    prop::collection::vec(want, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_fleet_finds_what_looking_at_every_node_finds(wants in wants(), sizes in prop::collection::vec((0_usize..2, 10_i64..80, 1_usize..5), 1..8)) {
        let mut fleet = Fleet::default();
        for (node, (class, processor, devices)) in sizes.iter().enumerate() {
            fleet.set(node, &Free { class: *class, host: [*processor, 200], devices: &vec![1000; *devices] });
        }
        for want in &wants {
            fleet.observe(want);
            let fits: Vec<usize> = (0..sizes.len()).filter(|node| fleet.free(*node).unwrap().holds(want)).collect();
            let costs: Vec<(usize, f32)> = (0..sizes.len()).filter_map(|node| Some((node, fleet.cost(node, want)?))).collect();
            prop_assert_eq!(&fits, &costs.iter().map(|(node, _)| *node).collect::<Vec<_>>());
            let least = costs.into_iter().min_by(|left, right| left.1.total_cmp(&right.1));
            let best = fleet.best(want, |_| true);
            prop_assert_eq!(best.map(|choice| choice.node), least.map(|(node, _)| node));
            if let Some(choice) = best {
                let before = fleet.free(choice.node).unwrap().thousandths();
                fleet.take(choice, want);
                let after = fleet.free(choice.node).unwrap();
                prop_assert_eq!(after.thousandths() + want.gpu.thousandths(), before);
                prop_assert!(after.host.iter().all(|left| *left >= 0));
            }
        }
    }

    #[test]
    fn more_room_is_never_worth_less(wants in wants(), devices in prop::collection::vec(0_u16..=1000, 1..6), processor in 0_i64..100) {
        let mut mix = Mix::default();
        for want in &wants {
            mix.observe(want, 1.0);
        }
        let values = FillValue::of(&mix, 2, 6);
        let value = |processor, devices: &[u16]| values.value(&Free { class: 0, host: [processor, 500], devices });
        let here = value(processor, &devices);
        prop_assert!(here >= 0.0);
        prop_assert!(here <= devices.iter().map(|left| f32::from(*left)).sum::<f32>() * 1.001 + 1.0);
        prop_assert!(value(processor + 7, &devices) >= here - 0.01);
        let mut one_more = devices;
        one_more.push(1000);
        prop_assert!(value(processor, &one_more) >= here - 0.01);
    }
}
