use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_mins(1);

/// A pod in which a keeper runs.
struct Pod {
    folder: TempDir,
    patience: &'static str,
    grace: &'static str,
}

impl Pod {
    fn new(patience: &'static str, grace: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), patience, grace }
    }

    /// Starts a program in it, as a node does: in a session of its own.
    fn start(&self, words: &[String]) -> Child {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).process_group(0);
        command.env("MUSTER_SHELL_FOLDER", self.folder.path().join("shell"));
        command.env("MUSTER_SHELL_PATIENCE", self.patience).env("MUSTER_SHELL_GRACE", self.grace);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// Starts the keeper, with what its own script has found out.
    fn keeper(&self) -> Child {
        std::fs::write(self.folder.path().join("keeper"), KEEPER).unwrap();
        let words = ["env", "MUSTER_JOB_ID=17", "FOUND=it's \"here\"", "/bin/sh", "keeper"];
        self.start(&words.map(str::to_owned))
    }

    fn session(&self, command: &[&str]) -> Child {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        self.start(&session(Some("vt100"), &command))
    }
}

/// A client's word that it is there.
struct Presence {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Presence {
    fn start(pod: &Pod) -> Self {
        let mut process = pod.start(&watch());
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut presence = Self { input: process.stdin.take(), process, output };
        let first = presence.output.next().unwrap().unwrap();
        assert_eq!(left(&first), Ok(None), "its time is not limited");
        presence
    }

    fn says(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
        assert_eq!(self.output.next().unwrap().unwrap(), word);
    }

    fn leaves(mut self) {
        drop(self.input.take());
        end(&mut self.process);
    }
}

/// How a process ends, which it must.
fn end(process: &mut Child) -> ExitStatus {
    let pid = process.id().to_string();
    std::thread::scope(|threads| {
        let (ended, ends) = mpsc::channel();
        threads.spawn(move || {
            if ends.recv_timeout(DEADLINE).is_err() {
                let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
                panic!("it does not end");
            }
        });
        let status = process.wait().unwrap();
        let _ = ended.send(());
        status
    })
}

fn output(process: &mut Child) -> String {
    let mut text = String::new();
    process.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

fn signal(process: &Child, signal: &str) {
    let sent = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_job_ends_as_its_shell_does_once_the_client_knows() {
    let pod = Pod::new("3600", "3600");
    let mut keeper = pod.keeper();
    let mut client = Presence::start(&pod);
    client.says("1");
    let mut shell = pod.session(&["sh", "-c", "echo \"$FOUND $TERM $1\"; exit 7", "sh", "a  b"]);
    assert_eq!(output(&mut shell), "it's \"here\" vt100 a  b\n");
    assert_eq!(end(&mut shell).code(), Some(7));
    client.says("2");
    assert_eq!(keeper.try_wait().unwrap(), None, "the pod would take the shell's last words with it");
    client.leaves();
    assert_eq!(end(&mut keeper).code(), Some(7));
    assert!(!pod.folder.path().join("shell").exists());
}

#[test]
fn without_a_command_a_shell_reads_its_input() {
    let pod = Pod::new("3600", "0");
    let mut keeper = pod.keeper();
    let client = Presence::start(&pod);
    let mut shell = pod.session(&[]);
    shell.stdin.take().unwrap().write_all(b"echo $((6 * 7)); exit 3\n").unwrap();
    assert_eq!(output(&mut shell), "42\n");
    assert_eq!(end(&mut shell).code(), Some(3));
    assert_eq!(end(&mut keeper).code(), Some(3), "a client that is not heard of is not waited for");
    client.leaves();
}

#[test]
fn a_job_that_nobody_comes_to_ends() {
    let pod = Pod::new("0", "0");
    let mut keeper = pod.keeper();
    assert_eq!(output(&mut keeper), "muster: nobody is at the shell of job 17 any more\n");
    assert_eq!(end(&mut keeper).code(), Some(129));
}

#[test]
fn the_shell_of_a_client_that_has_gone_is_hung_up_on() {
    let pod = Pod::new("3600", "0");
    let mut keeper = pod.keeper();
    let client = Presence::start(&pod);
    let mut shell = pod.session(&["sh", "-c", "echo begun; exec sleep 1000"]);
    let mut begun = [0; 6];
    shell.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    client.leaves();
    assert_eq!(end(&mut keeper).code(), Some(129));
    assert_eq!(end(&mut shell).code(), Some(129));
}

#[test]
fn a_second_connection_takes_the_place_of_the_first() {
    let pod = Pod::new("3600", "0");
    let mut keeper = pod.keeper();
    let first = Presence::start(&pod);
    let mut second = Presence::start(&pod);
    first.leaves();
    second.says("1");
    let mut shell = pod.session(&["true"]);
    assert_eq!(end(&mut shell).code(), Some(0));
    second.leaves();
    assert_eq!(end(&mut keeper).code(), Some(0));
}

#[test]
fn a_shell_that_was_killed_with_its_client_ends_the_job() {
    let pod = Pod::new("3600", "3600");
    let mut keeper = pod.keeper();
    let client = Presence::start(&pod);
    let mut shell = pod.session(&["sh", "-c", "echo begun; exec sleep 1000"]);
    let mut begun = [0; 6];
    shell.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    signal(&shell, "KILL");
    end(&mut shell);
    client.leaves();
    assert_eq!(end(&mut keeper).code(), Some(129));
    let group =
        Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", shell.id())]).status().unwrap();
    assert!(group.success(), "what the shell had started is left to the end of the pod");
}

#[test]
fn a_job_whose_time_is_over_hangs_up_on_its_shell() {
    let pod = Pod::new("3600", "3600");
    let mut keeper = pod.keeper();
    let client = Presence::start(&pod);
    let mut shell = pod.session(&[
        "sh",
        "-c",
        "trap 'echo hung up; exit 4' HUP; echo begun; while :; do sleep 0.01; done",
    ]);
    let mut begun = [0; 6];
    shell.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    signal(&keeper, "TERM");
    assert_eq!(end(&mut keeper).code(), Some(143));
    assert_eq!(end(&mut shell).code(), Some(4));
    assert_eq!(output(&mut shell), "hung up\n");
    client.leaves();
}

#[test]
fn the_time_that_is_left_is_told() {
    assert_eq!(left("ready "), Ok(None));
    assert_eq!(left("ready 90"), Ok(Some(Duration::from_secs(90))));
    assert_eq!(left("ready -2"), Ok(Some(Duration::ZERO)));
    for line in ["", "sh: not found", "ready soon", "ready 1 2"] {
        assert_eq!(left(line), Err(line));
    }
}
