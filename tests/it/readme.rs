//! The commands of the documents, run as they are written.
//!
//! A fenced block says behind its language what it is: `sh` is run in an empty home, `sh cluster` with a cluster that
//! `~/.kube/config` names, `sh no-run: REASON` is only counted; `text output` is what the block before it prints.
//! A line that ends in `# Ctrl-C ends it` is interrupted once it has printed something, one that ends in
//! `# Ctrl-C once it says WORD` when it has printed that.

use std::path::{Path, PathBuf};

use fs_err as fs;
use regex::Regex;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::program::{self, muster_path, repository};
use crate::harness::{Finished, Program};

/// What a document's block is for.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Commands { lines: Vec<String>, cluster: bool },
    NotRun { reason: String },
    Output(String),
    Other,
}

/// The fenced blocks of a document; panics at one that does not say what it is.
fn blocks(document: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository().join(document)).expect(document);
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim_start() != "```");
        let body: Vec<String> = body.map(|line| line.get(indent..).unwrap_or_default().to_owned()).collect();
        let no_run = info.strip_prefix("sh no-run: ").filter(|reason| !reason.is_empty());
        blocks.push(match (info, no_run) {
            (_, Some(reason)) => Block::NotRun { reason: reason.to_owned() },
            ("sh", _) => Block::Commands { lines: body, cluster: false },
            ("sh cluster", _) => Block::Commands { lines: body, cluster: true },
            ("text output", _) => Block::Output(body.join("\n")),
            ("text" | "yaml", _) => Block::Other,
            _ => panic!("{document}:{}: the block ```{info} does not say what it is", number + 1),
        });
    }
    blocks
}

/// A shell of a person who has `muster` and `kubectl`, a home of their own, and the repository before them.
struct Shell {
    home: TempDir,
    /// `export` lines so far.
    exports: String,
    /// A folder whose programs come before the machine's.
    programs: Option<PathBuf>,
}

impl Shell {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("muster-readme-").tempdir().expect("a home");
        fs::create_dir_all(home.path().join("bin")).expect("bin");
        std::os::unix::fs::symlink(muster_path(), home.path().join("bin/muster")).expect("a link");
        Self { home, exports: String::new(), programs: None }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = program::command("bash");
        let path = std::env::var("PATH").expect("PATH");
        let mut folders = vec![self.home.path().join("bin")];
        folders.extend(self.programs.clone());
        folders.extend(std::env::split_paths(&path));
        let path = std::env::join_paths(folders).expect("folders without a colon");
        command
            .args(["-euo", "pipefail", "-c", &format!("{}{line}", self.exports)])
            .env_remove("MUSTER_HOME")
            .env_remove("KUBECONFIG")
            .env_remove("XDG_DATA_HOME")
            .env("HOME", self.home.path())
            .env("PATH", path)
            .current_dir(repository());
        command
    }

    /// Runs a line; `None` when it only changes the environment.
    async fn run(&mut self, line: &str) -> Option<Finished> {
        let line = line.replace("cargo run --release --", "muster");
        if line.starts_with("export ") {
            self.exports.push_str(&line);
            self.exports.push('\n');
            return None;
        }
        let Some((watch, comment)) = line.split_once("# Ctrl-C") else {
            return Some(program::run(self.command(&line)).await.succeeded());
        };
        let awaited = comment.strip_prefix(" once it says ").unwrap_or_default();
        // In place of the shell, which would keep the signal to itself.
        let mut program = Program::start(self.command(&format!("exec {watch} 2>&1")));
        loop {
            let text = program.line().await.unwrap_or_else(|| panic!("`{watch}` ended without {awaited}"));
            if text.contains(awaited) {
                break;
            }
        }
        program.signal(Signal::INT);
        program.finish().await;
        None
    }

    /// A cluster that `~/.kube/config` names.
    async fn start_cluster(&mut self) {
        self.run("muster up --detach").await;
        fs::create_dir_all(self.home.path().join(".kube")).expect(".kube");
        let kubeconfig = self.home.path().join(".local/share/muster/kubeconfig");
        std::os::unix::fs::symlink(kubeconfig, self.home.path().join(".kube/config")).expect("a link");
    }

    /// Ends what still runs; the last line of every document may have done so.
    async fn end(mut self) {
        self.run("muster down").await;
        assert!(!self.home.path().join(".local/share/muster/running.json").exists(), "still running");
    }
}

/// What the tests' own command is in the README; it would run these tests again.
const TESTS: &str = "cargo xtask test";

fn command_of(line: &str) -> &str {
    line.split(" #").next().unwrap_or(line).trim()
}

/// Runs a document's commands; how many were run, and which were not.
async fn run(document: &str) -> (usize, Vec<String>) {
    run_in(Shell::new(), document).await
}

async fn run_in(mut shell: Shell, document: &str) -> (usize, Vec<String>) {
    let (mut count, mut not_run) = (0, Vec::new());
    let mut printed = None;
    let mut has_cluster = false;
    for block in blocks(document) {
        match block {
            Block::Commands { lines, cluster } => {
                if cluster && !has_cluster {
                    shell.start_cluster().await;
                    has_cluster = true;
                }
                let mut output = String::new();
                for line in lines.iter().filter(|line| !command_of(line).is_empty()) {
                    if command_of(line) == TESTS {
                        continue;
                    }
                    output += &shell.run(line).await.map(|finished| finished.stdout).unwrap_or_default();
                    count += 1;
                }
                printed = Some(output);
            }
            Block::Output(shown) => {
                let printed = printed.take().expect("commands before their output");
                let home = shell.home.path().display().to_string();
                assert_eq!(
                    without_chance(&printed.replace(&home, "~")),
                    without_chance(&shown),
                    "{document} shows what its commands do not print"
                );
            }
            Block::NotRun { reason } => not_run.push(reason),
            Block::Other => {}
        }
    }
    shell.end().await;
    (count, not_run)
}

/// The text without what differs from run to run: times, shares, accuracies, slots.
fn without_chance(text: &str) -> String {
    let patterns = [(r"\d+\.\d+", "<number>"), (r"\d+ %", "<share> %"), (r"GPU \d", "GPU <slot>")];
    patterns.iter().fold(text.trim_end().to_owned(), |text, (pattern, shown)| {
        Regex::new(pattern).expect("pattern").replace_all(&text, *shown).into_owned()
    })
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    let (count, not_run) = run("README.md").await;
    assert!(count >= 8, "only {count} commands were found");
    assert_eq!(not_run, ["needs a cluster of your own"]);
}

#[tokio::test]
async fn the_readme_of_deploy_does_what_it_says() {
    let (count, not_run) = run("deploy/README.md").await;
    assert!(count >= 5, "only {count} commands were found");
    assert_eq!(
        not_run,
        [
            "needs an image that the nodes can pull",
            "needs a cluster with Muster and a token of an account in it",
            "needs a node with GPUs",
        ]
    );
}

#[tokio::test]
async fn the_readme_of_the_example_does_what_it_says() {
    let (count, not_run) = run("examples/digits/README.md").await;
    assert_eq!((count, not_run), (10, Vec::new()));
}

#[tokio::test]
async fn the_readme_of_the_gpt_does_what_it_says() {
    let (count, not_run) = run("examples/gpt/README.md").await;
    assert_eq!((count, not_run), (4, Vec::new()));
}

/// Runs a document whose reader has installed its Python packages.
async fn run_with_python(document: &str) {
    let Some(python) = crate::kinds::python() else { return };
    let shell = Shell { programs: Path::new(&python).parent().map(Path::to_owned), ..Shell::new() };
    assert_eq!(run_in(shell, document).await, (4, vec!["installs packages".to_owned()]));
}

#[tokio::test]
async fn the_readme_of_xgboost_does_what_it_says() {
    run_with_python("examples/xgboost/README.md").await;
}

#[tokio::test]
async fn the_readme_of_jax_does_what_it_says() {
    run_with_python("examples/jax/README.md").await;
}

#[test]
fn the_readme_of_torch_says_of_every_block_what_it_needs() {
    // PyTorch is too large for this test: half a gigabyte, and four more of what it runs on GPUs with.
    let reasons = blocks("examples/torch-ddp/README.md").into_iter().map(|block| match block {
        Block::NotRun { reason } => reason,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        reasons.collect::<Vec<_>>(),
        ["installs packages", "needs PyTorch", "needs PyTorch", "needs PyTorch"]
    );
}

#[tokio::test]
async fn the_readme_of_mpi_does_what_it_says() {
    if let Some(missing) = crate::mpi::missing() {
        eprintln!("{missing}");
        return;
    }
    let (count, not_run) = run("examples/mpi/README.md").await;
    assert_eq!((count, not_run), (11, Vec::new()));
}

#[test]
fn continuous_integration_runs_the_test_command_of_the_readme() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let told: Vec<&str> = readme.lines().map(command_of).filter(|command| *command == TESTS).collect();
    assert_eq!(told.len(), 1, "the README tells the command once");
    let script = fs::read_to_string(repository().join(".ci/run")).expect(".ci/run");
    assert_eq!(script.lines().last(), Some(TESTS), "what CI ends with");
}

#[test]
fn the_container_file_holds_the_program_that_a_release_build_makes() {
    let text = fs::read_to_string(repository().join("deploy/Containerfile")).expect("Containerfile");
    let instructions: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_once(' ').expect("an instruction with arguments"))
        .collect();
    let names: Vec<&str> = instructions.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["FROM", "COPY", "ENTRYPOINT"]);
    // The build context is target/release, where cargo leaves the program under its own name.
    let comment = text.lines().find(|line| line.contains("podman build")).expect("the command");
    assert!(
        comment.contains("--file deploy/Containerfile") && comment.ends_with(" target/release"),
        "{comment}"
    );
    let program = muster_path();
    let name = program.file_name().and_then(|name| name.to_str()).expect("a name");
    assert_eq!(instructions[1].1, format!("{name} /usr/local/bin/{name}"));
    assert_eq!(instructions[2].1, format!("[\"{name}\"]"));
}

#[tokio::test]
async fn the_deployment_starts_what_the_image_holds() {
    let text = fs::read_to_string(repository().join("deploy/controller.yaml")).expect("controller.yaml");
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let deployment =
        documents.iter().find(|document| document["kind"] == "Deployment").expect("a Deployment");
    let command = &deployment["spec"]["template"]["spec"]["containers"][0]["command"];
    let words: Vec<&str> =
        command.as_array().into_iter().flatten().filter_map(|word| word.as_str()).collect();
    let ["muster", subcommand, options @ ..] = words.as_slice() else {
        panic!("{words:?} does not run muster")
    };
    let mut help = program::command(muster_path());
    help.args([subcommand, "--help"]);
    let help = program::run(help).await.succeeded().stdout;
    for option in options.iter().map(|word| word.split('=').next().unwrap_or(word)) {
        assert!(help.contains(option), "`muster {subcommand}` has no {option}");
    }
}
