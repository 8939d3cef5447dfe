//! `Options` → [`Service`] → [`Handle`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Request;
use muster_store::{Durability, Log, MemoryLog, SqliteLog, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::User;
use crate::registry::Registry;
use crate::respond::BodyError;
use crate::tls::{Credentials, TlsError, write_private};
use crate::{bootstrap, custom, http_server, janitor, own_service};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Certificates and tokens.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The objects.
    #[error("cannot open the object store: {0}")]
    Store(#[from] muster_store::Error),
    /// The listener.
    #[error("cannot listen on {address}, choose another address or port 0: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state folder.
    #[error("cannot use the state folder {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first objects.
    #[error("cannot create the cluster's first objects: {0}")]
    Bootstrap(String),
}

/// How to run the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the objects, certificates, tokens and the kubeconfig.
    pub state_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Every write survives a power loss, not only a crash.
    pub durable: bool,
    /// Keep the objects in memory only.
    pub in_memory: bool,
    /// The node's unix socket, for logs and statistics.
    pub node_socket: Option<PathBuf>,
}

impl Options {
    /// The defaults: loopback, a free port, objects on disk.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            durable: false,
            in_memory: false,
            node_socket: None,
        }
    }

    /// Opens the state and the listener; serving starts with [`Service::run`].
    pub async fn build(self) -> Result<Service, ServiceError> {
        let folder = |source| ServiceError::Folder { folder: self.state_dir.clone(), source };
        fs_err::create_dir_all(&self.state_dir).map_err(folder)?;
        let credentials = Credentials::load_or_create(&self.state_dir, self.listen.ip())?;
        let log: Box<dyn Log> = if self.in_memory {
            Box::new(MemoryLog::default())
        } else {
            let durability = if self.durable { Durability::Power } else { Durability::Process };
            Box::new(
                SqliteLog::open(self.state_dir.join("api.db"), durability)
                    .map_err(muster_store::Error::from)?,
            )
        };
        let store = Store::open(muster_store::Options::default(), log)?;
        let listen = |source| ServiceError::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tls = credentials.server_config()?;
        let kubeconfig = credentials.kubeconfig(&format!("https://{address}"));
        let kubeconfig_path = self.state_dir.join("kubeconfig");
        write_private(&kubeconfig_path, kubeconfig.as_bytes()).map_err(folder)?;
        let app = Arc::new(App {
            store,
            registry: Registry::default(),
            credentials,
            address: address.into(),
            definitions: tokio::sync::Mutex::default(),
            ending: parking_lot::Mutex::default(),
            requests: crate::telemetry::Requests::default(),
            lines: crate::lines::Lines::default(),
            documents: crate::openapi::Cache::default(),
            quotas: tokio::sync::Mutex::default(),
            node_socket: self.node_socket.clone(),
            shutdown: CancellationToken::new(),
        });
        let bootstrap = |error: crate::status::ApiError| ServiceError::Bootstrap(error.to_string());
        custom::refresh(&app).await.map_err(bootstrap)?;
        bootstrap::fill(&app).await.map_err(bootstrap)?;
        own_service::put_right(&app).await.map_err(bootstrap)?;
        let handle = Handle { app: app.clone(), address, kubeconfig: kubeconfig.into(), kubeconfig_path };
        Ok(Service { app, listener, tls, handle })
    }
}

/// A server that is ready to run.
pub struct Service {
    app: Arc<App>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    handle: Handle,
}

impl Service {
    /// The way to reach the server.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until the shutdown, then lets open requests end and closes the store.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let app = self.app.clone();
        let stop = async {
            shutdown.cancelled().await;
            app.shutdown.cancel();
        };
        let served = http_server::serve(self.app.clone(), self.listener, self.tls);
        tokio::join!(stop, served, janitor::run(self.app.clone()), own_service::keep(self.app.clone()));
        self.app.store.close().await?;
        Ok(())
    }
}

/// Reaches a running server.
#[derive(Debug, Clone)]
pub struct Handle {
    app: Arc<App>,
    address: SocketAddr,
    kubeconfig: Arc<str>,
    kubeconfig_path: PathBuf,
}

impl Handle {
    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://host:port`
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Where the kubeconfig lies (mode 0600).
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig_path
    }

    /// A client of the administrator that reaches the server inside the process, past TLS but through the same
    /// request path.
    pub fn client(&self) -> kube::Client {
        let app = self.app.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let app = app.clone();
            async move { Ok::<_, BodyError>(http_server::answer(&app, request, Some(User::admin())).await) }
        });
        kube::Client::new(service, "default")
    }
}
