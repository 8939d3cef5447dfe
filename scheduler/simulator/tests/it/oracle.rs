//! What the planner says of waiting jobs is true.

use muster_scheduler_simulator::oracle::b8;

#[test]
fn reasons_times_and_counterfactuals_are_true() {
    let figures = b8(1500, 1).unwrap();
    assert_eq!(figures.false_statements, [] as [&str; 0]);
    assert!(figures.jobs > 1000 && figures.counterfactuals > 1000 && figures.counted > 200, "{figures:?}");
    assert!(figures.start_error(99) >= figures.start_error(1));
}
