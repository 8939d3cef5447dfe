//! A server of a test, gone with it.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use muster_apiserver::{Handle, Options, Service};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that anything in a test may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    pub handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    pub folder: Option<TempDir>,
}

impl Server {
    /// Starts a server in a fresh folder, in memory.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut options = Options::new(folder.path());
        options.in_memory = true;
        Self { folder: Some(folder), ..Self::run(options.build().await.expect("server")) }
    }

    /// Starts a server with options of the test's own.
    pub async fn with(options: Options) -> Self {
        Self::run(options.build().await.expect("server"))
    }

    fn run(service: Service) -> Self {
        let shutdown = CancellationToken::new();
        let handle = service.handle();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { service.run(token).await.expect("served") });
        Self { handle, shutdown, task, folder: None }
    }

    /// A client over TLS with the kubeconfig's token.
    pub async fn remote(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(self.handle.kubeconfig()).expect("kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("config")).expect("client")
    }

    /// Ends the server and waits for it.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("ended in time").expect("ended well");
    }
}
