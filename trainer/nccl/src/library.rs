//! NCCL as it was loaded: the functions that are used, by their symbols.
//!
//! cudarc binds the same functions, but looks for the library by itself and under other names than NVIDIA's packages
//! give it, and panics where it finds none. The types are cudarc's.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId};
use libloading::Library;

use crate::config::Config;
use crate::search::{Candidate, Search};
use crate::unavailable::Unavailable;
use crate::version::Version;

/// The first version with communicators that do not block and can be finalised.
pub(crate) const OLDEST: Version = Version::new(2, 14, 0);

/// Declares the table. Results stay numbers: a newer NCCL may answer what no enum of today has.
macro_rules! functions {
    ($($(#[$documentation:meta])* $field:ident = $symbol:literal ($($argument:ty),*) -> $result:ty;)*) => {
        #[derive(Debug)]
        pub(crate) struct Functions {
            $($(#[$documentation])* pub(crate) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// `ncclCommSplit(communicator, colour, key, new communicator, config)`, from 2.18 on.
            pub(crate) split: Option<Split>,
        }

        impl Functions {
            /// # Safety
            ///
            /// The library must be NCCL of a version with these signatures.
            unsafe fn of(library: &Library, path: &Path) -> Result<Self, Unavailable> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the caller vouches for the library, and the signature is that of NCCL's header.
                        let symbol = unsafe { library.get($symbol.as_bytes()) };
                        *symbol.map_err(|_| Unavailable::Foreign { path: path.to_owned(), symbol: $symbol })?
                    },)*
                    // SAFETY: as above.
                    split: unsafe { library.get("ncclCommSplit") }.ok().map(|symbol| *symbol),
                })
            }
        }
    };
}

type Split = unsafe extern "C" fn(ncclComm_t, c_int, c_int, *mut ncclComm_t, *mut Config) -> c_int;
type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;

functions! {
    get_unique_id = "ncclGetUniqueId" (*mut ncclUniqueId) -> c_int;
    error_string = "ncclGetErrorString" (c_int) -> *const c_char;
    last_error = "ncclGetLastError" (ncclComm_t) -> *const c_char;
    /// New communicator, number of ranks, id, rank, config.
    init_rank = "ncclCommInitRankConfig" (*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut Config) -> c_int;
    async_error = "ncclCommGetAsyncError" (ncclComm_t, *mut c_int) -> c_int;
    finalize = "ncclCommFinalize" (ncclComm_t) -> c_int;
    destroy = "ncclCommDestroy" (ncclComm_t) -> c_int;
    abort = "ncclCommAbort" (ncclComm_t) -> c_int;
    count = "ncclCommCount" (ncclComm_t, *mut c_int) -> c_int;
    user_rank = "ncclCommUserRank" (ncclComm_t, *mut c_int) -> c_int;
    group_start = "ncclGroupStart" () -> c_int;
    group_end = "ncclGroupEnd" () -> c_int;
    /// Send, receive, elements, type, reduction.
    all_reduce = "ncclAllReduce"
        (*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) -> c_int;
    /// Send, receive, elements, type, reduction, root.
    reduce = "ncclReduce"
        (*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, c_int, ncclComm_t, cudaStream_t) -> c_int;
    /// Send, receive, elements received, type, reduction.
    reduce_scatter = "ncclReduceScatter"
        (*const c_void, *mut c_void, usize, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) -> c_int;
    /// Send, receive, elements sent, type.
    all_gather = "ncclAllGather"
        (*const c_void, *mut c_void, usize, ncclDataType_t, ncclComm_t, cudaStream_t) -> c_int;
    /// Send, receive, elements, type, root.
    broadcast = "ncclBroadcast"
        (*const c_void, *mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_int;
    /// Data, elements, type, peer.
    send = "ncclSend" (*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_int;
    /// Data, elements, type, peer.
    receive = "ncclRecv" (*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t) -> c_int;
}

/// NCCL, loaded into this process. Clones are the same library.
#[derive(Clone, Debug)]
pub struct Nccl {
    loaded: Arc<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    functions: Functions,
    version: Version,
    path: PathBuf,
    /// Never unloaded: its threads may outlive the last communicator.
    _library: ManuallyDrop<Library>,
}

impl Nccl {
    /// Loads the library from the usual places ([`Search::from_environment`]). Says nothing of driver and devices:
    /// [`detect`](crate::detect) does.
    pub fn load() -> Result<Self, Unavailable> {
        Self::find(&Search::from_environment())
    }

    /// Loads the library from the first of these places that has one. One that is there but unusable is an error,
    /// not a reason to go on: another library than the one a person means would be worse.
    pub fn find(search: &Search) -> Result<Self, Unavailable> {
        for candidate in search.candidates() {
            match candidate {
                Candidate::File(file) => return Self::open(&file),
                Candidate::Name(name) => {
                    if let Ok(library) = dlopen(OsStr::new(&name)) {
                        return Self::check(library, PathBuf::from(name));
                    }
                }
            }
        }
        Err(Unavailable::NotFound { looked_for: search.places() })
    }

    /// Loads this file.
    pub fn open(path: &Path) -> Result<Self, Unavailable> {
        let failed = |error: libloading::Error| Unavailable::NotLoadable {
            path: path.to_owned(),
            cause: described(&error),
        };
        Self::check(dlopen(path.as_os_str()).map_err(failed)?, path.to_owned())
    }

    fn check(library: Library, path: PathBuf) -> Result<Self, Unavailable> {
        let symbol = "ncclGetVersion";
        // SAFETY: a library that exports NCCL's name has NCCL's function, in every version with this signature.
        let Ok(get_version) = (unsafe { library.get::<GetVersion>(symbol) }) else {
            return Err(Unavailable::Foreign { path, symbol });
        };
        let mut code = 0;
        // SAFETY: it writes one number to the address.
        unsafe { get_version(&raw mut code) };
        let version = Version::of_nccl(code);
        if version < OLDEST || version.major != OLDEST.major {
            return Err(Unavailable::WrongVersion { path, found: version, oldest: OLDEST });
        }
        // SAFETY: the version was checked.
        let functions = unsafe { Functions::of(&library, &path)? };
        tracing::debug!(%version, path = %path.display(), "NCCL loaded");
        let library = ManuallyDrop::new(library);
        Ok(Self { loaded: Arc::new(Loaded { functions, version, path, _library: library }) })
    }

    /// What was loaded.
    pub fn version(&self) -> Version {
        self.loaded.version
    }

    /// The file, or the name under which the loader found it.
    pub fn path(&self) -> &Path {
        &self.loaded.path
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.loaded.functions
    }

    /// What a result means, in NCCL's words.
    pub(crate) fn describe(&self, code: i32) -> String {
        // SAFETY: any number may be asked for, and the answer is a string that is never freed.
        unsafe { text((self.functions().error_string)(code)) }
    }

    /// What NCCL says about the last error of this thread or communicator; often the host or the device at fault.
    ///
    /// # Safety
    ///
    /// The communicator must be null or live.
    pub(crate) unsafe fn last_error(&self, communicator: ncclComm_t) -> String {
        // SAFETY: the caller's promise; the string is copied before another call can change it.
        unsafe { text((self.functions().last_error)(communicator)) }
    }
}

/// # Safety
///
/// Null, or a string that lives during the call.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().trim().to_owned()
}

pub(crate) fn dlopen(name: &OsStr) -> Result<Library, libloading::Error> {
    // SAFETY: runs the library's initialisers: those of the driver or of NCCL, which are made for that, or of what
    // a person has put in their place.
    unsafe { Library::new(name) }
}

/// libloading keeps the loader's words in the source.
pub(crate) fn described(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use cudarc::nccl::sys;

    use super::*;

    /// The arguments of a function.
    trait Signature {
        type Arguments;
    }

    macro_rules! signatures {
        ($($($argument:ident)*;)*) => {$(
            impl<$($argument,)* R> Signature for unsafe extern "C" fn($($argument),*) -> R {
                type Arguments = ($($argument,)*);
            }
            impl<$($argument,)* R> Signature for unsafe fn($($argument),*) -> R {
                type Arguments = ($($argument,)*);
            }
        )*};
    }

    signatures! {
        A;
        A B;
        A B C D E F;
        A B C D E F G;
        A B C D E F G H;
    }

    fn same<Ours: Signature, Theirs: Signature<Arguments = Ours::Arguments>>(
        _: fn(&Functions) -> Ours,
        _: Theirs,
    ) {
    }

    #[test]
    fn arguments_are_those_of_the_bindings_that_were_generated_from_the_header() {
        // Nothing is called: that it compiles is the proof.
        type F6<A, B, C, D, E, G> = unsafe fn(A, B, C, D, E, G) -> sys::ncclResult_t;
        type F7<A, B, C, D, E, G, H> = unsafe fn(A, B, C, D, E, G, H) -> sys::ncclResult_t;
        same(|table| table.all_reduce, sys::ncclAllReduce as F7<_, _, _, _, _, _, _>);
        same(|table| table.reduce_scatter, sys::ncclReduceScatter as F7<_, _, _, _, _, _, _>);
        same(|table| table.broadcast, sys::ncclBroadcast as F7<_, _, _, _, _, _, _>);
        same(|table| table.reduce, sys::ncclReduce as unsafe fn(_, _, _, _, _, _, _, _) -> sys::ncclResult_t);
        same(|table| table.all_gather, sys::ncclAllGather as F6<_, _, _, _, _, _>);
        same(|table| table.send, sys::ncclSend as F6<_, _, _, _, _, _>);
        same(|table| table.receive, sys::ncclRecv as F6<_, _, _, _, _, _>);
        same(|table| table.count, sys::ncclCommCount as unsafe fn(_, _) -> sys::ncclResult_t);
        same(|table| table.user_rank, sys::ncclCommUserRank as unsafe fn(_, _) -> sys::ncclResult_t);
        same(|table| table.abort, sys::ncclCommAbort as unsafe fn(_) -> sys::ncclResult_t);
        same(|table| table.finalize, sys::ncclCommFinalize as unsafe fn(_) -> sys::ncclResult_t);
        same(|table| table.destroy, sys::ncclCommDestroy as unsafe fn(_) -> sys::ncclResult_t);
        same(|table| table.get_unique_id, sys::ncclGetUniqueId as unsafe fn(_) -> sys::ncclResult_t);
    }
}
