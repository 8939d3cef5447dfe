//! The library that stands for NCCL, compiled once and loaded.

use std::ffi::{c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libloading::Library;
use muster_nccl::{Communicator, Error, Nccl, Options, UniqueId};

use crate::host_queue::HostQueue;

/// Compiles a C source to a library with these definitions, if no earlier test has.
pub(crate) fn compile(source: &str, definitions: &[&str]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (source, definitions).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("fake-{:016x}.so", hasher.finish()));
    if !library.exists() {
        // Other tests may be at the same: each writes a file of its own, and the last name wins.
        let scratch = tempfile::tempdir_in(folder).unwrap();
        let (file, built) = (scratch.path().join("source.c"), scratch.path().join("built.so"));
        std::fs::write(&file, source).unwrap();
        let output = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"])
            .args(definitions.iter().map(|definition| format!("-D{definition}")))
            .args([&file, Path::new("-o"), &built])
            .output()
            .expect("a C compiler is needed: cc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&built, &library).unwrap();
    }
    library
}

pub(crate) const SOURCE: &str = include_str!("../fake_nccl.c");

/// The loaded library: as NCCL, and with what tests change and ask for.
pub(crate) struct Fake {
    pub(crate) nccl: Nccl,
    library: Library,
}

impl Fake {
    pub(crate) fn get() -> &'static Self {
        static FAKE: OnceLock<Fake> = OnceLock::new();
        FAKE.get_or_init(|| {
            let path = compile(SOURCE, &[]);
            // SAFETY: it has no initialisers.
            let library = unsafe { Library::new(&path) }.unwrap();
            Self { nccl: Nccl::open(&path).unwrap(), library }
        })
    }

    pub(crate) fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: each caller names the signature that stands in the source.
        *unsafe { self.library.get::<F>(name.as_bytes()) }.unwrap()
    }

    pub(crate) fn new_id(&self) -> UniqueId {
        UniqueId::new(&self.nccl).unwrap()
    }

    fn ask(&self, name: &str, id: UniqueId) -> i32 {
        let function: unsafe extern "C" fn(*const u8) -> c_int = self.function(name);
        // SAFETY: the signature of the source; an id has 128 bytes.
        unsafe { function(id.to_bytes().as_ptr()) }
    }

    pub(crate) fn joined(&self, id: UniqueId) -> i32 {
        self.ask("fake_joined", id)
    }

    /// Waits until the streams of so many ranks are in the collective of this number.
    pub(crate) fn wait_for_arrivals(&self, id: UniqueId, sequence: i64, ranks: i32) {
        let arrived: unsafe extern "C" fn(*const u8, i64) -> c_int = self.function("fake_arrived");
        let began = Instant::now();
        // SAFETY: the signature of the source.
        while unsafe { arrived(id.to_bytes().as_ptr(), sequence) } < ranks {
            assert!(
                began.elapsed() < Duration::from_mins(1),
                "{ranks} ranks did not come to call {sequence}"
            );
            std::thread::yield_now();
        }
    }

    pub(crate) fn never_join(&self, id: UniqueId) {
        self.ask("fake_never_join", id);
    }

    pub(crate) fn hang_abort(&self, id: UniqueId, hang: bool) {
        let function: unsafe extern "C" fn(*const u8, c_int) = self.function("fake_hang_abort");
        // SAFETY: the signature of the source.
        unsafe { function(id.to_bytes().as_ptr(), c_int::from(hang)) }
    }

    pub(crate) fn inject(&self, id: UniqueId, rank: usize, code: i32) {
        let function: unsafe extern "C" fn(*const u8, c_int, c_int) = self.function("fake_inject");
        // SAFETY: the signature of the source.
        unsafe { function(id.to_bytes().as_ptr(), rank as c_int, code) }
    }

    /// That nothing was used after its end or before its beginning, and everything was ended.
    pub(crate) fn check(&self, id: UniqueId) {
        assert_eq!(self.ask("fake_misuses", id), 0, "uses after the end or before the beginning");
        assert_eq!(self.ask("fake_live", id), 0, "communicators that nobody ended");
    }

    pub(crate) fn open_gate(&self, gate: *mut c_int) {
        let function: unsafe extern "C" fn(*mut c_int) = self.function("fake_open");
        // SAFETY: the signature of the source.
        unsafe { function(gate) }
    }

    pub(crate) fn stream_function<F: Copy>(&self, name: &str) -> F {
        self.function(name)
    }
}

/// A raw stream.
pub(crate) type Stream = *mut c_void;

/// Runs a thread for each rank of a new group, which get their communicators, and checks the library afterwards.
pub(crate) fn with_ranks<R: Send>(
    world_size: usize,
    work: impl Fn(Communicator<HostQueue>) -> R + Sync,
) -> Vec<R> {
    let fake = Fake::get();
    let id = fake.new_id();
    let results = std::thread::scope(|scope| {
        let work = &work;
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| scope.spawn(move || work(join(id, &Options::new(rank, world_size)).unwrap())))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    fake.check(id);
    results
}

pub(crate) fn join(id: UniqueId, options: &Options) -> Result<Communicator<HostQueue>, Error> {
    Communicator::join(&Fake::get().nccl, id, &HostQueue::new(), options)
}
