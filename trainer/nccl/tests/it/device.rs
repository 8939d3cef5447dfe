//! The checks for GPUs, on a library that stands for NCCL and for the driver: what they call and what they expect, and
//! how the driver is called.

use std::process::Command;

use crate::fake::{SOURCE, compile};
use crate::gpu_check;

const ROLE: &str = "device::role_with_a_driver";

/// Not a test by itself: what a process does whose loader finds a driver.
#[test]
fn role_with_a_driver() {
    let Ok(ranks) = std::env::var("MUSTER_TEST_RANKS") else { return };
    let failures = gpu_check::check(Some(ranks.parse().unwrap()), 1 << 14).unwrap();
    assert_eq!(failures, Some(0));
}

/// The lines of the checks, and whether all is well.
fn run(library: &str, ranks: usize) -> (String, bool) {
    let library = compile(library, &[]);
    let folder = tempfile::tempdir().unwrap();
    // Two names of one file, which is loaded once.
    for name in ["libcuda.so.1", "libnccl.so.2"] {
        std::os::unix::fs::symlink(&library, folder.path().join(name)).unwrap();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ROLE, "--nocapture"])
        .env("LD_LIBRARY_PATH", folder.path())
        .env_remove("MUSTER_NCCL")
        .env_remove("NCCL_HOME")
        .env("MUSTER_TEST_RANKS", ranks.to_string())
        .output()
        .unwrap();
    let lines = [output.stdout, output.stderr].map(|lines| String::from_utf8_lossy(&lines).into_owned());
    (lines.concat(), output.status.success())
}

fn source() -> String {
    format!("{SOURCE}\n{}", include_str!("../fake_cuda.c"))
}

#[test]
fn every_check_holds_on_a_driver_that_does_what_it_should() {
    for ranks in [1, 2] {
        let (lines, is_well) = run(&source(), ranks);
        assert!(is_well, "{lines}");
        assert!(lines.contains("driver for CUDA 12.8, 2 GPUs"), "{lines}");
        let held = lines.lines().filter(|line| line.starts_with("ok ")).count();
        assert!(held > 160 * ranks, "{held} checks: {lines}");
    }
}

#[test]
fn a_check_fails_where_the_library_is_wrong() {
    let wrong = source().replace("case PROD: all *= one;", "case PROD: all += one;");
    let (lines, is_well) = run(&wrong, 2);
    assert!(!is_well, "{lines}");
    assert!(lines.contains("FAILED rank 0: all_reduce bf16 prod"), "{lines}");
    assert!(lines.contains("ok     rank 1: all_reduce bf16 sum"), "{lines}");
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let (lines, is_well) = run(&source(), 3);
    assert!(!is_well, "{lines}");
    assert!(lines.contains("there is no GPU 2: the driver lets this process use 2"), "{lines}");
}
