//! The role in a process of its own, so that it can be killed: this test program, started once more.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use muster_machinery::CancellationToken;
use muster_machinery::leader::{self, Election};
use muster_scheduler_controller::extender::{CertificateFiles, Endpoint, Options};
use muster_scheduler_extender::client::{CallError, Client};
use muster_scheduler_extender::core::Timing;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::time::{Instant, interval};

use crate::DEADLINE;

/// What the process is to do: a folder with all of its files; it works when this is set.
const FOLDER: &str = "MUSTER_TEST_EXTENDER";
/// The name under which replicas stand for election; without it there is no election.
const REPLICA: &str = "MUSTER_TEST_EXTENDER_REPLICA";
/// By this name the certificate of the service is checked.
const SERVER_NAME: &str = "muster-extender.muster-system.svc";
/// As short as a Lease allows, with room for a busy machine.
const LEASE: leader::Timing = leader::Timing {
    lease_duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(200),
};

/// The role itself; does nothing when it is run as a test.
#[tokio::test]
async fn the_role() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = PathBuf::from(folder);
    let kubeconfig = Kubeconfig::read_from(folder.join("kubeconfig")).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let replica = std::env::var(REPLICA).ok();
    let endpoint = replica.is_some().then(|| Endpoint {
        namespace: "default".to_owned(),
        service: "muster-extender".to_owned(),
        address: [127, 0, 0, 1].into(),
    });
    let options = Options {
        certificates: Some(CertificateFiles {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            client_authority: Some(folder.join("ca.crt")),
        }),
        timing: Timing { settle: 300, ..Timing::default() },
        endpoint,
        ..Options::new(config.try_into().unwrap())
    };
    let service = options.build().await.unwrap();
    let name = replica.as_deref().unwrap_or("alone");
    let written = folder.join(format!("{name}.new"));
    std::fs::write(&written, service.address().to_string()).unwrap();
    std::fs::rename(written, folder.join(format!("{name}.address"))).unwrap();
    let election =
        replica.map(|name| Election { timing: LEASE, ..Election::new("default", "muster-extender", name) });
    service.run(election, CancellationToken::new()).await;
}

/// Files for the role, and a trusted client's side of them.
pub(super) struct Files {
    folder: tempfile::TempDir,
    trusted: Arc<rustls::ClientConfig>,
}

impl Files {
    pub(super) fn new(kubeconfig: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(kubeconfig, folder.path().join("kubeconfig")).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::from_params(&params, &key);
        let sign = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (certificate, key) = sign(SERVER_NAME);
        for (name, text) in [("ca.crt", &authority), ("tls.crt", &certificate), ("tls.key", &key)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let (certificate, key) = sign("kube-scheduler");
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusted = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        Self { folder, trusted: Arc::new(trusted) }
    }

    /// A connection as kube-scheduler makes it.
    pub(super) async fn connect(&self, address: SocketAddr) -> Result<Client, CallError> {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        Client::connect_tls(address, name, self.trusted.clone()).await
    }

    /// Starts the role; a replica when it has a name.
    pub(super) async fn start(&self, replica: Option<&str>) -> Process {
        let file = self.folder.path().join(format!("{}.address", replica.unwrap_or("alone")));
        let _absent = std::fs::remove_file(&file);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "extender::process::the_role", "--nocapture"])
            .env(FOLDER, self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(replica) = replica {
            command.env(REPLICA, replica);
        }
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut every = interval(Duration::from_millis(20));
        let address = loop {
            every.tick().await;
            if let Ok(text) = std::fs::read_to_string(&file) {
                break text.parse().unwrap();
            }
            assert!(Instant::now() < deadline, "the role did not start");
        };
        Process { child, address }
    }
}

/// A running role; killed at the latest with the test.
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Process {
    /// SIGKILL; what it had under way with the API server may still land.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
