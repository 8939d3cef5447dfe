//! Runs simulated schedules of the extender, or repeats one: `schedules COUNT SEED` or `schedules replay SEED [STEP]`.
#![expect(clippy::print_stdout, reason = "a tool of the command line")]

use muster_scheduler_extender::simulation::{Disturbance, ExtenderSubject, replay, run_schedules};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    if arguments.first().is_some_and(|first| first == "replay") {
        let disturbance = match number(2) {
            Some(0) => Disturbance::Nothing,
            Some(step) => Disturbance::KillAt(step),
            None => Disturbance::Everything,
        };
        let (outcome, trace) = replay::<ExtenderSubject>(number(1).unwrap_or(1), disturbance, true);
        println!("{}\n{outcome:#?}", trace.join("\n"));
    } else {
        let report = run_schedules(number(0).unwrap_or(10_000), number(1).unwrap_or(1));
        println!("{report:#?}");
    }
}
