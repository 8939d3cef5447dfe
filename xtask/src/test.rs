//! `cargo xtask test`: everything that must hold before a change is shared.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};
use fs_err as fs;

use crate::skips::Allowed;
use crate::test_runner::{self, Outcome};
use crate::workspace::{Workspace, is_installed, succeeds};
use crate::{crds, deny, libtorch, report, tidy};

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these phases
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PHASES")]
    only: Vec<Phase>,
    /// Run the tests as the release is built
    #[arg(long)]
    release: bool,
    /// Only tests whose name contains one of these texts
    filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// The format of the Rust files
    Fmt,
    /// The rules of the tree that no compiler checks
    Tidy,
    /// Compiler and clippy warnings, in all targets
    Clippy,
    /// Whether deploy/crds is current
    Crds,
    /// Unit, integration and documentation tests
    Tests,
    /// Tests of the trainer on libtorch; skipped where `cargo xtask libtorch` has not got it
    Libtorch,
    /// Licences, versions and sources of the dependencies, as deny.toml wants them
    Deny,
}

/// The Python module, which is compiled only to be checked: programs with it cannot be linked.
const PYTHON: &str = "muster-torch/python";

/// The trainer on libtorch, where that is installed.
const LIBTORCH: &str = "muster-trainer-runtime/libtorch";

/// Runs the phases, each to its end, and says how they went.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<bool> {
    let phases = if arguments.only.is_empty() { Phase::value_variants() } else { arguments.only.as_slice() };
    let mut outcome = None;
    let mut ended = Vec::new();
    for phase in phases {
        let began = Instant::now();
        let held = run_phase(*phase, workspace, arguments, &mut outcome);
        let held = held.unwrap_or_else(|error| {
            report::note(&format!("error: {error:#}"));
            false
        });
        ended.push((*phase, held, began.elapsed()));
    }
    let skips_fail = std::env::var("CI").is_ok_and(|value| value == "true");
    let skips_hold = match &outcome {
        Some(outcome) => tell_skips(workspace, outcome, skips_fail)?,
        None => true,
    };
    for (phase, held, took) in &ended {
        report::line(&phase_line(*phase, *held, *took));
    }
    if let Some(outcome) = &outcome {
        report::line(&outcome.closing_line());
    }
    Ok(skips_hold && ended.iter().all(|(_, held, _)| *held))
}

fn run_phase(
    phase: Phase,
    workspace: &Workspace,
    arguments: &Arguments,
    outcome: &mut Option<Outcome>,
) -> Result<bool> {
    match phase {
        Phase::Fmt => succeeds(&mut workspace.cargo(["fmt", "--all", "--check"])),
        Phase::Tidy => tidy::run(workspace),
        Phase::Clippy => {
            let what = ["clippy", "--quiet", "--workspace", "--all-targets", "--features", PYTHON];
            let mut clippy = workspace.cargo(what);
            clippy.args(
                libtorch::is_found(workspace).then_some(["--features", LIBTORCH]).into_iter().flatten(),
            );
            // The module is the same for every Python, so none is asked for.
            clippy.env("PYO3_NO_PYTHON", "1").args(["--", "-D", "warnings"]);
            succeeds(&mut clippy)
        }
        Phase::Crds => crds::check(workspace, &workspace.build_all(arguments.release)?),
        Phase::Tests => {
            let result = test_runner::run(workspace, arguments.release, &arguments.filter)?;
            Ok(outcome.get_or_insert_default().add(result))
        }
        Phase::Libtorch if !libtorch::is_found(workspace) => {
            outcome.get_or_insert_default().leave_out("libtorch", "`cargo xtask libtorch` has not got it");
            Ok(true)
        }
        Phase::Libtorch => {
            // With the features of all crates, so that nothing is built again that the other tests have built.
            let what = ["--features", LIBTORCH, "--test", "libtorch"];
            let result = test_runner::run_some(workspace, &what, arguments.release, &arguments.filter)?;
            Ok(outcome.get_or_insert_default().add(result))
        }
        Phase::Deny => {
            let held = deny::run(workspace)?;
            // It also knows of vulnerabilities, and of licences that only the texts tell.
            let tool = is_installed("cargo-deny", &["--version"]);
            Ok(held & (!tool || succeeds(&mut workspace.cargo(["deny", "--workspace", "check"]))?))
        }
    }
}

fn phase_line(phase: Phase, held: bool, took: Duration) -> String {
    let name = phase.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    format!("{name:<8} {:<6} {:>7.1} s", if held { "ok" } else { "FAILED" }, took.as_secs_f64())
}

/// Lists what was skipped and why; false when one of the skips counts as a failure.
fn tell_skips(workspace: &Workspace, outcome: &Outcome, skips_fail: bool) -> Result<bool> {
    let list = workspace.root.join("xtask/skips.txt");
    let allowed = Allowed::parse(&fs::read_to_string(list)?)?;
    let mut hold = true;
    for skip in &outcome.skips {
        let why = allowed.why(skip);
        let verdict = match why {
            Some(why) => format!(" (allowed: {why})"),
            None if skips_fail => " (a failure, since CI=true)".to_owned(),
            None => String::new(),
        };
        hold &= why.is_some() || !skips_fail;
        report::line(&format!("skipped {}: {}{verdict}", skip.test, skip.reason));
    }
    Ok(hold)
}
