//! Measures filter calls over a loopback socket: `filter_latency NODES CALLS [whole]`.
#![expect(clippy::print_stdout, reason = "a tool of the command line")]

use muster_scheduler_extender::figures::{FigureError, Form, filter_latency};

fn main() -> Result<(), FigureError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, usual| arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let form =
        if arguments.iter().any(|argument| argument == "whole") { Form::WholeNodes } else { Form::Names };
    println!("{:#?}", filter_latency(number(0, 5_000), number(1, 1_000), form)?);
    Ok(())
}
