#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]
use muster_scheduler_simulator::bars::{Openb, b1};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let openb = Openb::read(std::path::Path::new(&args[1])).unwrap();
    let traces: Vec<&str> = args[2].split(',').filter(|t| !t.is_empty()).collect();
    let policies: Vec<&str> = args[3].split(',').collect();
    let rows = b1(&openb, &traces, &policies, args[4].parse().unwrap());
    for policy in policies {
        let of: Vec<_> = rows.iter().filter(|row| row.policy == policy).collect();
        for r in &of {
            println!(
                "{policy:14} {:12} made={:5} {:.2} {:.2}±{:.2} pub {:?} {:.1}us",
                r.trace,
                r.made,
                r.at_100,
                r.at_130,
                r.deviation,
                r.published,
                r.decision.as_secs_f64() * 1e6
            );
        }
        println!("{policy} mean {:.2}", of.iter().map(|r| r.at_130).sum::<f64>() / of.len() as f64);
    }
}
