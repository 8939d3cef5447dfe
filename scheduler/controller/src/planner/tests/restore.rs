//! Restarts.

use super::*;

fn plan_of(gang: &str, uids: &[String], node: &str) -> GangReservation {
    let members = uids.iter().zip(0_u32..).map(|(uid, index)| ReservedMember {
        pod: format!("{gang}-{index}"),
        uid: uid.clone(),
        node: node.into(),
        gpu_indices: vec![index],
        claims: Vec::new(),
    });
    let spec = GangReservationSpec { gang: gang.into(), epoch: 1, members: members.collect() };
    let mut plan = GangReservation::new(gang, spec);
    plan.metadata.namespace = Some("a".into());
    plan.metadata.labels = Some([("muster.dev/planned-by".to_owned(), "muster".to_owned())].into());
    plan
}

fn uids(gang: &str, of: u32) -> Vec<String> {
    (0..of).map(|index| format!("{gang}-{index}-uid")).collect()
}

#[test]
fn a_restart_does_not_finish_a_plan_for_a_part_of_its_gang() {
    let mut planner = planner(4);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 4, None)));
    (2..4).for_each(|index| planner.pod_seen(&successor("g", index, 4)));
    assert_eq!(planner.restore([&plan_of("g", &uids("g", 4), "n0")]), []);
    let whole = binding(&decide(&mut planner));
    assert_eq!(whole.placement.0.len(), 4, "it is planned anew, as a whole");
    assert!(whole.replaces.is_some());
}

#[test]
fn a_restart_finishes_no_plan_on_a_node_that_is_not_to_be_used() {
    let mut planner = planner(4);
    let mut cordoned = node("n1", 4);
    cordoned.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
    planner.node_seen(&cordoned);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, None)));
    assert_eq!(planner.restore([&plan_of("g", &uids("g", 2), "n1")]), []);
}

#[test]
fn a_restart_finishes_half_bound_gangs_before_those_that_are_not_bound_at_all() {
    let mut planner = planner(2);
    (0..2).for_each(|index| planner.pod_seen(&pod("a", index, 2, None)));
    planner.pod_seen(&pod("b", 0, 2, Some("n0")));
    planner.pod_seen(&pod("b", 1, 2, None));
    let plans = ["a", "b"].map(|gang| plan_of(gang, &uids(gang, 2), "n0"));
    let restored = planner.restore(&plans);
    let gangs: Vec<&str> = restored.iter().map(|binding| binding.gang.as_str()).collect();
    assert_eq!(gangs, ["b"]);
}
