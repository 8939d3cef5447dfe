//! Runs the tests with cargo-nextest where it is installed, else with `cargo test`, and counts them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use fs_err as fs;

use crate::report;
use crate::skips::Skip;
use crate::workspace::{Workspace, is_installed, shown, succeeds};

const NEXTEST_CONFIGURATION: &str = "xtask/nextest.toml";
/// Below the root, wherever cargo builds.
const NEXTEST_REPORT: &str = "target/nextest/default/junit.xml";
/// Tells the tests where the program lies that they start.
const PROGRAM_VARIABLE: &str = "MUSTER_BIN";

/// How the tests went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Every runner said so.
    pub(crate) succeeded: bool,
    passed: usize,
    failed: usize,
    /// Tests that said that they were skipped; they count neither as passed nor as failed.
    pub(crate) skips: BTreeSet<Skip>,
}

impl Outcome {
    /// The last line of `cargo xtask test`.
    pub(crate) fn closing_line(&self) -> String {
        let skipped = self.skipped_tests();
        let passed = self.passed.saturating_sub(skipped);
        format!("{passed} passed, {} failed, {skipped} skipped", self.failed)
    }

    /// Adds the tests of another run; whether they succeeded.
    pub(crate) fn add(&mut self, other: Self) -> bool {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skips.extend(other.skips);
        other.succeeded
    }

    /// Notes tests that were not even built.
    pub(crate) fn leave_out(&mut self, test: &str, reason: &str) {
        // Runners count what was skipped as passed.
        self.passed += 1;
        self.skips.insert(Skip { test: test.to_owned(), reason: reason.to_owned() });
    }

    fn skipped_tests(&self) -> usize {
        self.skips.iter().map(|skip| &skip.test).collect::<BTreeSet<_>>().len()
    }
}

/// Which tests of the workspace, and how they are built.
#[derive(Clone, Copy)]
struct Tests<'a> {
    /// Options of cargo that select targets and features.
    what: &'a [&'a str],
    release: bool,
    /// Only tests whose name contains one of these texts.
    filter: &'a [String],
    /// The `muster` that they start.
    program: Option<&'a Path>,
}

/// Builds the programs that tests start, then runs all tests.
pub(crate) fn run(workspace: &Workspace, release: bool, filter: &[String]) -> Result<Outcome> {
    let program = workspace.build_all(release)?;
    let tests = Tests { what: &[], release, filter, program: Some(&program) };
    if !has_nextest() {
        report::note("cargo-nextest is not installed: using `cargo test`");
        return with_cargo_test(tests.cargo_test(workspace));
    }
    let mut outcome = with_nextest(workspace, tests.nextest(workspace))?;
    if filter.is_empty() {
        outcome.succeeded &= run_documentation(workspace, profile(release))?;
    }
    Ok(outcome)
}

/// Runs the tests that `what`, options of cargo, selects; they start no other crate's program.
pub(crate) fn run_some(
    workspace: &Workspace,
    what: &[&str],
    release: bool,
    filter: &[String],
) -> Result<Outcome> {
    let tests = Tests { what, release, filter, program: None };
    if has_nextest() {
        with_nextest(workspace, tests.nextest(workspace))
    } else {
        with_cargo_test(tests.cargo_test(workspace))
    }
}

fn has_nextest() -> bool {
    is_installed("cargo-nextest", &["nextest", "--version"])
}

fn profile(release: bool) -> &'static [&'static str] {
    if release { &["--release"] } else { &[] }
}

impl Tests<'_> {
    fn nextest(self, workspace: &Workspace) -> Command {
        let mut command = workspace.cargo(["nextest", "run", "--workspace", "--no-tests=pass"]);
        command.args(["--config-file", NEXTEST_CONFIGURATION]);
        command.args(self.release.then_some("--cargo-profile=release")).args(self.what).args(self.filter);
        command.envs(self.program.map(|program| (PROGRAM_VARIABLE, program)));
        command
    }

    fn cargo_test(self, workspace: &Workspace) -> Command {
        let mut command = workspace.cargo(["test", "--workspace", "--no-fail-fast"]);
        command.args(profile(self.release)).args(self.what).arg("--").args(self.filter).arg("--show-output");
        command.envs(self.program.map(|program| (PROGRAM_VARIABLE, program)));
        command
    }
}

fn with_nextest(workspace: &Workspace, mut command: Command) -> Result<Outcome> {
    let report = workspace.root.join(NEXTEST_REPORT);
    if report.exists() {
        // Tests that do not compile write none; an older one must not be counted instead.
        fs::remove_file(&report)?;
    }
    let succeeded = succeeds(&mut command)?;
    if !report.exists() {
        return Ok(Outcome { succeeded, ..Outcome::default() });
    }
    Ok(Outcome { succeeded, ..read_nextest(&fs::read_to_string(report)?)? })
}

fn with_cargo_test(mut command: Command) -> Result<Outcome> {
    report::note(&format!("$ {}", shown(&command)));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut outcome = Outcome::default();
    let mut reader = PlainReader::default();
    for line in BufReader::new(child.stdout.take().context("cargo test has no output")?).lines() {
        let line = line?;
        reader.read(&line, &mut outcome);
        report::line(&line);
    }
    outcome.succeeded = child.wait()?.success();
    Ok(outcome)
}

/// Runs the examples in the documentation, which nextest leaves out.
fn run_documentation(workspace: &Workspace, profile: &[&str]) -> Result<bool> {
    let documented = documented_libraries(workspace)?;
    if documented.is_empty() {
        return Ok(true);
    }
    let mut command = workspace.cargo(["test", "--doc"]);
    command.args(profile).args(documented.iter().flat_map(|name| ["--package", name]));
    succeeds(&mut command)
}

/// Reads nextest's JUnit report.
fn read_nextest(report: &str) -> Result<Outcome> {
    let totals = report.split("<testsuites ").nth(1).and_then(|rest| rest.split('>').next());
    let totals = totals.context("the test report has no totals")?;
    let number = |name| -> Result<usize> {
        let value =
            attribute(totals, name).with_context(|| format!("the test report does not count {name}"))?;
        Ok(value.parse()?)
    };
    let failed = number("failures")? + number("errors")?;
    let passed = number("tests")?.saturating_sub(failed);
    let mut outcome = Outcome { passed, failed, ..Outcome::default() };
    for case in report.split("<testcase ").skip(1) {
        let attributes = case.split('>').next().unwrap_or_default();
        let part = |name| attribute(attributes, name).unwrap_or_default();
        let test = unescaped(&format!("{} {}", part("classname"), part("name")));
        let output = case.split("<system-err>").skip(1).filter_map(|rest| rest.split("</system-err>").next());
        let lines = output.flat_map(str::lines);
        outcome.skips.extend(lines.filter_map(|line| Skip::in_line(&test, &unescaped(line))));
    }
    Ok(outcome)
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let starts = tag.match_indices(name).map(|(start, _)| start);
    // `name` is a part of `classname` too.
    let mut starts = starts.filter(|start| *start == 0 || tag[..*start].ends_with(' '));
    starts.find_map(|start| tag[start + name.len()..].strip_prefix("=\"")?.split('"').next())
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

/// Reads what `cargo test -- --show-output` prints.
#[derive(Default)]
struct PlainReader {
    test: String,
}

impl PlainReader {
    fn read(&mut self, line: &str, outcome: &mut Outcome) {
        if let Some(test) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            test.clone_into(&mut self.test);
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                let before = counts.split(word).next().and_then(|part| part.trim().rsplit([' ', '.']).next());
                before.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0)
            };
            outcome.passed += count(" passed");
            outcome.failed += count(" failed");
        } else if let Some(skip) = Skip::in_line(&self.test, line) {
            outcome.skips.insert(skip);
        }
    }
}

/// Libraries with an example in their documentation that the compiler can run. Each costs a link of its own, so
/// the others are not asked.
fn documented_libraries(workspace: &Workspace) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let files = workspace.files()?;
    for package in &workspace.packages {
        let source = package.folder(workspace).join("src");
        if !workspace.root.join(&source).join("lib.rs").is_file() {
            continue;
        }
        for file in files.iter().filter(|file| file.starts_with(&source) && has_extension(file, "rs")) {
            if has_example(&fs::read_to_string(workspace.root.join(file))?) {
                names.push(package.name.clone());
                break;
            }
        }
    }
    Ok(names)
}

fn has_extension(file: &std::path::Path, wanted: &str) -> bool {
    file.extension().is_some_and(|extension| extension == wanted)
}

fn has_example(text: &str) -> bool {
    let documentation = text.lines().map(str::trim_start);
    let fences = documentation
        .filter_map(|line| line.strip_prefix("/// ```").or_else(|| line.strip_prefix("//! ```")));
    // Fences open and close in turn.
    fences
        .step_by(2)
        .any(|language| matches!(language.trim(), "" | "rust" | "no_run" | "compile_fail" | "should_panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_reports_are_counted() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0" uuid="x" time="1.0">
  <testsuite name="muster-node::it" tests="4" failures="1">
    <testcase name="cluster::gpu" classname="muster-node::it" time="0.1">
      <system-out>running</system-out>
      <system-err>skipped: no &lt;GPU&gt;</system-err>
    </testcase>
    <testcase classname="muster-node::it" name="cluster::fails" time="0.1">
      <failure type="x"/><system-err>panicked: skipped: not a skip</system-err>
    </testcase>
    <testcase name="a" classname="b" time="0.1"/><testcase name="c" classname="d" time="0.1"/>
  </testsuite>
</testsuites>"#;
        let outcome = read_nextest(report).unwrap();
        assert_eq!(outcome.closing_line(), "2 passed, 1 failed, 1 skipped");
        let skip = outcome.skips.first().unwrap();
        assert_eq!((skip.test.as_str(), skip.reason.as_str()), ("muster-node::it cluster::gpu", "no <GPU>"));
        assert!(read_nextest("").is_err());
        assert_eq!(attribute(r#"classname="c" name="n""#, "name"), Some("n"));
    }

    #[test]
    fn plain_output_is_counted() {
        let mut outcome = Outcome::default();
        let mut reader = PlainReader::default();
        let lines = [
            "---- it::gpu stdout ----",
            "skipped: no GPU",
            "test result: ok. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ];
        for line in lines {
            reader.read(line, &mut outcome);
        }
        assert_eq!(outcome.closing_line(), "14 passed, 1 failed, 1 skipped");
        assert_eq!(outcome.skips.first().unwrap().test, "it::gpu");
    }

    #[test]
    fn examples_are_told_from_other_blocks() {
        assert!(has_example("/// ```\n/// assert!(true);\n/// ```\n"));
        assert!(!has_example("/// ```yaml\n/// a: 1\n/// ```\n"));
        assert!(!has_example("let text = \"```\";\n"));
    }
}
