//! Output of workers: whole lines, none lost, none held without end.

use std::fs::File;
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::{Stranger, run, start, workers};

#[test]
fn streams_stay_apart_and_lines_are_marked_with_several_workers() {
    let script = "echo out; echo error >&2; printf 'no newline'";
    let one = run(&mut workers(&[], script)).succeeded();
    assert_eq!((one.stdout.as_str(), one.stderr.as_str()), ("out\nno newline", "error\n"));
    let marked = run(&mut workers(&["--prefix", "always"], script)).succeeded();
    assert_eq!(
        (marked.stdout.as_str(), marked.stderr.as_str()),
        ("[0] out\n[0] no newline\n", "[0] error\n")
    );
    let two = run(&mut workers(&["--nproc-per-node", "2"], script)).succeeded();
    assert_eq!(two.sorted(), ["[0] no newline", "[0] out", "[1] no newline", "[1] out"]);
    let unmarked = run(&mut workers(&["--nproc-per-node", "2", "--prefix", "never"], script)).succeeded();
    assert_eq!(unmarked.sorted(), ["no newline", "no newline", "out", "out"]);
}

#[test]
fn one_worker_is_heard_at_once() {
    let mut running = start(&mut workers(&[], "printf 'half of '; read line <&3 || exec sleep 600"));
    let mut text = Vec::new();
    while text.len() < "half of ".len() {
        text.extend(running.bytes(64));
    }
    assert_eq!(text, b"half of ");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 143);
}

#[test]
fn lines_are_whole_and_none_is_lost_to_a_slow_reader() {
    // In two writes each, so that lines of others could come in between; far more than pipes hold.
    let script = r#"i=0; while [ $i -lt 3000 ]; do printf "line $i of "; echo "rank $RANK with some text"; i=$((i+1)); done"#;
    let mut running = start(&mut workers(&["--nproc-per-node", "4"], script));
    let mut bytes = Vec::new();
    loop {
        let next = running.bytes(61);
        if next.is_empty() {
            break;
        }
        bytes.extend(next);
    }
    running.end().succeeded();
    let text = String::from_utf8(bytes).unwrap();
    let mut next = [0; 4];
    for line in text.lines() {
        let rank = usize::from(line.as_bytes()[1] - b'0');
        assert_eq!(line, format!("[{rank}] line {} of rank {rank} with some text", next[rank]));
        next[rank] += 1;
    }
    assert_eq!(next, [3000; 4]);
}

#[test]
fn endless_lines_do_not_fill_the_memory() {
    const EACH: usize = 64 << 20;
    let script = format!("head -c {EACH} /dev/zero | tr '\\0' x; echo; echo end; exec sleep 600");
    let mut running = start(&mut workers(&["--nproc-per-node", "2"], &script));
    let (mut letters, mut ends) = (0, 0);
    let mut last = Vec::new();
    while ends < 2 {
        let bytes = running.bytes(1 << 16);
        letters += bytes.iter().map(|byte| usize::from(*byte == b'x')).sum::<usize>();
        // A mark may come in two parts.
        last.extend_from_slice(&bytes);
        ends += last.windows(3).filter(|letters| letters == b"end").count();
        let kept = last.len().saturating_sub(2);
        last.drain(..kept);
    }
    assert_eq!(letters, 2 * EACH);
    let peak = running.kilobytes("VmHWM");
    assert!(peak < 32 << 10, "{peak} kB for {EACH} bytes without a newline");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), 143);
}

#[test]
fn where_nobody_reads_workers_learn_it() {
    let mut running = start(&mut workers(&[], "while :; do echo more; done"));
    assert_eq!(running.line(), "more");
    running.close_stdout();
    let ended = running.end();
    assert_eq!(ended.code(), 141, "{ended:?}");
    assert!(ended.stderr.contains("killed by SIGPIPE"), "{ended:?}");
}

#[test]
fn a_full_disk_stops_no_training() {
    let mut command =
        workers(&["--nproc-per-node", "2"], "for i in 1 2 3; do echo $i; done; echo trained >&2");
    command.stdin(Stdio::null()).stdout(File::create("/dev/full").unwrap()).stderr(Stdio::piped());
    let ended = command.output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    let told =
        stderr.lines().filter(|line| line.contains("cannot write to standard output: No space left")).count();
    assert_eq!(told, 1, "{stderr}");
    assert!(stderr.contains("[0] trained\n") && stderr.contains("[1] trained\n"), "{stderr}");
}

#[test]
fn what_the_launcher_says_has_a_line_of_its_own() {
    let ended = run(&mut workers(&[], "printf '50 %%' >&2; exit 3"));
    assert!(ended.stderr.starts_with("50 %\nmuster exec-worker: rank 0 "), "{ended:?}");
}

#[test]
fn a_stop_while_output_waits_prevents_a_restart() {
    // More than the pipe takes that nobody reads yet, but not more than it and the worker's own.
    let script = "echo $$ >&2; head -c 100000 /dev/zero; exit 3";
    let mut command = workers(&["--max-restarts", "3"], script);
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut worker = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut worker).unwrap();
    Stranger::new(worker.trim()).wait();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let mut output = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut output).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), output.len()), (Some(3), 100_000), "{rest}");
    assert!(!rest.contains("start again"), "{rest}");
}

#[test]
fn a_stalled_reader_does_not_hold_up_a_stop() {
    // More than the pipe takes that nobody reads, but not more than it and the worker's own.
    let script = "head -c 100000 /dev/zero; echo ready >&2; exec sleep 600";
    let mut command = workers(&["--grace", "100ms"], script);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut first = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut first).unwrap();
    assert_eq!(first, "ready\n");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{rest}");
    assert!(rest.contains("nobody took the rest of the output for 5s; it is lost"), "{rest}");
    drop(reader);
}
