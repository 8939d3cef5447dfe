//! Runs simulated schedules of the extender, or of the binder, or repeats one:
//! `schedules [binder] COUNT SEED` or `schedules replay SEED [STEP] [binder]`.
#![expect(clippy::print_stdout, reason = "a tool of the command line")]

use muster_scheduler_extender::simulation::{
    BinderSubject, Disturbance, ExtenderSubject, replay, run_binder_schedules, run_schedules,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    if arguments.first().is_some_and(|first| first == "replay") {
        let disturbance = match number(2) {
            Some(0) => Disturbance::Nothing,
            Some(step) => Disturbance::KillAt(step),
            None => Disturbance::Everything,
        };
        let seed = number(1).unwrap_or(1);
        let (outcome, trace) = if arguments.iter().any(|argument| argument == "binder") {
            replay::<BinderSubject>(seed, disturbance, false)
        } else {
            replay::<ExtenderSubject>(seed, disturbance, true)
        };
        println!("{}\n{outcome:#?}", trace.join("\n"));
    } else if arguments.first().is_some_and(|first| first == "binder") {
        println!("{:#?}", run_binder_schedules(number(1).unwrap_or(10_000), number(2).unwrap_or(1)));
    } else {
        let report = run_schedules(number(0).unwrap_or(10_000), number(1).unwrap_or(1));
        println!("{report:#?}");
    }
}
