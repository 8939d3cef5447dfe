//! The TLS side of a server: its certificate, which can be renewed while it runs, and who may call.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("cannot read the server's {what}: {source}")]
    Pem {
        /// Which file.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Nothing in it.
    #[error("the server's {0} holds no certificate")]
    Empty(&'static str),
    /// The library refuses it.
    #[error("cannot use the server's certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authority of the clients cannot be used.
    #[error("cannot use the certificate authority of the server's clients: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate, its key, and who may call.
#[derive(Clone)]
pub struct TlsOptions {
    /// The certificate and its chain, PEM.
    pub certificate: Vec<u8>,
    /// Its key, PEM.
    pub key: Vec<u8>,
    /// Certificate authority of the clients, PEM; when given, only callers with a certificate of it are heard.
    pub client_authority: Option<Vec<u8>>,
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TlsOptions")
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|source| TlsError::Pem { what, source })?;
    if certificates.is_empty() { Err(TlsError::Empty(what)) } else { Ok(certificates) }
}

fn certified(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem { what: "key", source })?;
    let provider = rustls::crypto::ring::default_provider();
    // Refuses a key that is not the certificate's.
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
}

/// The certificate that new connections are served with.
#[derive(Debug)]
pub struct Served(RwLock<Arc<CertifiedKey>>);

impl Served {
    /// Serves new connections with this one.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used; the one before stays.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        *self.0.write() = certified(certificate, key)?;
        Ok(())
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl TlsOptions {
    /// What a listener needs, and the certificate to renew.
    ///
    /// # Errors
    /// What is wrong with the certificate, its key or the authority of the clients.
    pub fn server_config(&self) -> Result<(Arc<rustls::ServerConfig>, Arc<Served>), TlsError> {
        let served = Arc::new(Served(RwLock::new(certified(&self.certificate, &self.key)?)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.client_authority {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem, "clients' certificate authority")? {
                    roots.add(certificate)?;
                }
                builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(served.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((Arc::new(config), served))
    }
}
