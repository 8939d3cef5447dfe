//! A server of a test, gone with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use muster_apiserver::{Handle, Options, Service};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Longest that anything in a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct Server {
    pub(crate) handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    _folder: Option<TempDir>,
}

impl Server {
    /// Starts a server in a fresh folder, in memory.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut options = Options::new(folder.path());
        options.in_memory = true;
        Self { _folder: Some(folder), ..Self::run(options.build().await.expect("server")) }
    }

    /// Starts a server with options of the test's own.
    pub(crate) async fn with(options: Options) -> Self {
        Self::run(options.build().await.expect("server"))
    }

    fn run(service: Service) -> Self {
        let shutdown = CancellationToken::new();
        let handle = service.handle();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { service.run(token).await.expect("served") });
        Self { handle, shutdown, task, _folder: None }
    }

    /// A client over TLS with the kubeconfig's token.
    pub(crate) async fn remote(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(self.handle.kubeconfig()).expect("kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        kube::Client::try_from(config.expect("config")).expect("client")
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("ended in time").expect("ended well");
    }
}

/// A client that neither retries nor interprets: one TLS connection for each request.
pub(crate) struct Raw {
    connector: TlsConnector,
    address: std::net::SocketAddr,
    pub(crate) token: String,
}

impl Raw {
    pub(crate) fn new(server: &Server) -> Self {
        let folder = server.handle.kubeconfig_path().parent().expect("folder").join("pki");
        let certificate = CertificateDer::from_pem_file(folder.join("ca.crt")).expect("certificate");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let token = std::fs::read_to_string(folder.join("admin.token")).expect("token");
        Self { connector: TlsConnector::from(Arc::new(config)), address: server.handle.address(), token }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let shown = format!("{} {}", request.method(), request.uri());
        let sent = async {
            let stream = TcpStream::connect(self.address).await.expect("connected");
            let name = ServerName::try_from("localhost").expect("name");
            let stream = self.connector.connect(name, stream).await.expect("tls");
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = shaken.expect("http");
            tokio::spawn(connection);
            sender.send_request(request).await.expect("answer")
        };
        tokio::time::timeout(DEADLINE, sent).await.unwrap_or_else(|_| panic!("no answer to {shown}"))
    }
}

/// Sends a request through the client inside the process; the answer is its status and body.
pub(crate) async fn ask(
    client: &kube::Client,
    method: &str,
    path: &str,
    media: &str,
    body: impl Into<String>,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    let request = request.body(kube::client::Body::from(body.into().into_bytes())).expect("request");
    let response = client.send(request).await.expect("answer");
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
}

/// Creates an object.
pub(crate) async fn create(client: &kube::Client, path: &str, object: &Value) -> Value {
    let (status, answer) = ask(client, "POST", path, "application/json", object.to_string()).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

/// Asks again until the answer is the wanted one.
pub(crate) async fn until(client: &kube::Client, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let asked = async {
        loop {
            let (status, answer) = ask(client, "GET", path, "", "").await;
            if wanted(status, &answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("{path} never became as wanted"))
}
