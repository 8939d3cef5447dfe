//! What is said where something is missing.

use std::ffi::OsStr;
use std::path::Path;

use muster_nccl::{Driver, Nccl, Search, Unavailable, detect};

use crate::fake::{Fake, SOURCE, compile};

/// A driver whose functions answer these numbers.
fn driver(init: i32, version: i32, devices: i32) -> std::path::PathBuf {
    let source = format!(
        "int cuInit(unsigned flags) {{ (void)flags; return {init}; }}\n\
         int cuDriverGetVersion(int *version) {{ *version = {version}; return 0; }}\n\
         int cuDeviceGetCount(int *count) {{ *count = {devices}; return 0; }}\n"
    );
    compile(&source, &[])
}

#[test]
fn detection_answers_whatever_this_machine_has() {
    match detect() {
        Ok((driver, nccl)) => {
            assert!(driver.devices > 0);
            assert!(nccl.version().to_string().starts_with("2."));
        }
        Err(missing) => {
            let text = missing.to_string();
            assert!(text.contains("driver") || text.contains("GPU") || text.contains("NCCL"), "{text}");
        }
    }
}

#[test]
fn a_missing_driver_is_named() {
    let missing = Driver::detect_as(OsStr::new("libmuster-no-such-driver.so.1")).unwrap_err();
    assert!(matches!(missing, Unavailable::NoDriver { .. }));
    let text = missing.to_string();
    assert!(text.starts_with("no NVIDIA driver: libmuster-no-such-driver.so.1 not found"), "{text}");
    assert!(text.contains("cannot open shared object file"), "{text}");
}

#[test]
fn a_driver_is_asked_for_its_version_and_its_devices() {
    let found = Driver::detect_as(driver(0, 12_080, 3).as_os_str()).unwrap();
    assert_eq!((found.devices, found.cuda.to_string().as_str()), (3, "12.8"));
    let none =
        |init, version, devices| Driver::detect_as(driver(init, version, devices).as_os_str()).unwrap_err();
    assert_eq!(none(100, 12_080, 1), Unavailable::NoDevice);
    assert_eq!(none(0, 12_080, 0), Unavailable::NoDevice);
    assert_eq!(none(803, 12_080, 1), Unavailable::DriverFailed { function: "cuInit", code: 803 });
    assert!(none(803, 12_080, 1).to_string().contains("different versions"));
    let old = none(0, 11_040, 1).to_string();
    assert_eq!(old, "the NVIDIA driver knows CUDA 11.4, and CUDA 12.0 is needed: update the driver");
    let foreign = compile("int cuSomething(void) { return 0; }\n", &[]);
    let symbol = "cuInit";
    let library = foreign.to_string_lossy().into_owned();
    assert_eq!(
        Driver::detect_as(foreign.as_os_str()).unwrap_err(),
        Unavailable::ForeignDriver { library, symbol }
    );
}

#[test]
fn a_missing_nccl_says_where_it_was_looked_for_and_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let search = Search {
        folders: vec![folder.path().to_owned()],
        names: vec!["libmuster-no-such-nccl.so.2".into()],
        ..Search::default()
    };
    let text = Nccl::find(&search).unwrap_err().to_string();
    assert!(text.contains(&folder.path().join("libnccl.so.2").display().to_string()), "{text}");
    assert!(text.contains("libmuster-no-such-nccl.so.2 in the loader's path"), "{text}");
    assert!(text.contains("pip install nvidia-nccl-cu12"), "{text}");
}

#[test]
fn what_lies_in_a_wheel_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("lib/python3.12/site-packages/nvidia/nccl/lib");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(compile(SOURCE, &[]), folder.join("libnccl.so.2")).unwrap();
    let variable = |name: &str| (name == "VIRTUAL_ENV").then(|| root.path().into());
    // Without the loader's own places, where this machine may have one.
    let search = Search { names: Vec::new(), ..Search::of(variable) };
    let nccl = Nccl::find(&search).unwrap();
    assert_eq!(nccl.path(), folder.join("libnccl.so.2"));
    assert_eq!(nccl.version().to_string(), "2.29.7");
}

#[test]
fn a_library_that_is_something_else_is_no_nccl() {
    let foreign = compile("int answer(void) { return 42; }\n", &[]);
    let text = Nccl::open(&foreign).unwrap_err().to_string();
    assert_eq!(text, format!("{} is not NCCL: it has no ncclGetVersion", foreign.display()));
    let half = compile("int ncclGetVersion(int *version) { *version = 22907; return 0; }\n", &[]);
    let text = Nccl::open(&half).unwrap_err().to_string();
    assert_eq!(text, format!("{} is not NCCL: it has no ncclGetUniqueId", half.display()));
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("libnccl.so.2");
    std::fs::write(&garbage, "#!/bin/sh\n").unwrap();
    assert!(matches!(Nccl::open(&garbage), Err(Unavailable::NotLoadable { .. })));
    let missing = Nccl::open(Path::new("/nowhere/libnccl.so.2")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot load NCCL from /nowhere/libnccl.so.2: "), "{missing}");
    assert!(missing.contains("No such file"), "{missing}");
}

#[test]
fn versions_with_another_interface_are_refused() {
    for (code, shown) in [("2708", "2.7.8"), ("21304", "2.13.4"), ("30000", "3.0")] {
        let library = compile(SOURCE, &[&format!("FAKE_VERSION={code}")]);
        let text = Nccl::open(&library).unwrap_err().to_string();
        let expected = format!("is NCCL {shown}, and 2.14 or a later one of major version 2 is needed");
        assert!(text.ends_with(&expected), "{text}");
    }
    let oldest = Nccl::open(&compile(SOURCE, &["FAKE_VERSION=21400", "FAKE_WITHOUT_SPLIT"])).unwrap();
    assert!(oldest.version() < Fake::get().nccl.version());
}
