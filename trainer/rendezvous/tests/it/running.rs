//! The service as tests run it, those of this crate and of the trainer runtime.

use std::net::SocketAddr;
use std::time::Duration;

use muster_rendezvous::ServiceOptions;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A service on a thread of its own; ends when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    shutdown: Option<DropGuard>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(options: ServiceOptions) -> Self {
        let shutdown = CancellationToken::new();
        let (told, address) = std::sync::mpsc::channel();
        let until = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bound = options.bind().await.unwrap();
                told.send(bound.address()).unwrap();
                bound.run(until).await.unwrap();
            });
        });
        let address = address.recv().unwrap();
        Self { address, shutdown: Some(shutdown.drop_guard()), thread: Some(thread) }
    }

    /// Anybody may come, and members of an earlier service soon.
    pub(crate) fn open(listen: SocketAddr) -> Self {
        Self::start(ServiceOptions { comeback: Duration::from_millis(500), ..ServiceOptions::open(listen) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown = None;
        self.thread.take().unwrap().join().unwrap();
    }
}
