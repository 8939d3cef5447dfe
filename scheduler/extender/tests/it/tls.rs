//! HTTPS, with and without client certificates.

use std::sync::Arc;

use muster_scheduler_core::Ledger;
use muster_scheduler_extender::server::{Options, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::support::InMemory;

struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// What a GET of `/healthz` gets, by a client with or without a certificate.
async fn ask(authority: &Authority, with_certificate: bool) -> Result<String, String> {
    let (certificate, key) = authority.sign("localhost");
    let tls = TlsOptions {
        certificate: certificate.into_bytes(),
        key: key.into_bytes(),
        client_authority: Some(authority.pem().into_bytes()),
    };
    let options = Options::loopback(Ledger::default(), Arc::new(InMemory(Arc::default())));
    let (service, handle) = Options { tls: Some(tls), ..options }.build().await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if with_certificate {
        let (certificate, key) = authority.sign("kube-scheduler");
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(handle.address()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange.await.map_err(|error| error.to_string());
    shutdown.cancel();
    running.await.unwrap();
    answer
}

#[tokio::test]
async fn only_callers_with_a_certificate_are_heard() {
    let authority = Authority::new();
    let answer = ask(&authority, true).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert!(ask(&authority, false).await.is_err());
}
