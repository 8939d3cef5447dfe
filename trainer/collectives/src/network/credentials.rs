//! What ranks of different hosts prove to each other: that they know the token, and, where the options name files, that
//! the authority of the group has certified them.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};

use crate::options::{NetworkOptions, TlsFiles, Token};

/// Why the files with the certificates of a group cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no {expected} in PEM{}", file.display(), because(cause.as_ref()))]
    NotPem {
        /// The file.
        file: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Where it breaks off.
        cause: Option<pem::Error>,
    },
    /// The certificate of an authority cannot be one.
    #[error("{} holds a certificate that no authority can have: {cause}", file.display())]
    Authority {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The certificate and the key do not go together, or are of a kind that is not supported.
    #[error("the certificate {} cannot be used with the key {}: {cause}", certificate.display(), key.display())]
    Pair {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What is wrong.
        cause: rustls::Error,
    },
}

fn because(cause: Option<&pem::Error>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {cause}"))
}

/// What this rank shows to others, and wants to see of them.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) token: Token,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Credentials {
    /// Reads the files that the options name.
    pub(super) fn read(options: &NetworkOptions) -> Result<Self, CredentialsError> {
        let tls = options.tls.as_ref().map(Tls::read).transpose()?;
        Ok(Self { token: options.token.clone(), tls })
    }

    /// Whether connections are under TLS.
    pub(super) fn are_certified(&self) -> bool {
        self.tls.is_some()
    }

    /// The side that calls, if connections are under TLS.
    pub(super) fn calling(&self) -> Result<Option<ClientConnection>, rustls::Error> {
        // Ranks are at any address, so that certificates cannot say which; what counts is who issued them.
        let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        self.tls.as_ref().map(|tls| ClientConnection::new(Arc::clone(&tls.client), name)).transpose()
    }

    /// The side that listens, if connections are under TLS.
    pub(super) fn listening(&self) -> Result<Option<ServerConnection>, rustls::Error> {
        self.tls.as_ref().map(|tls| ServerConnection::new(Arc::clone(&tls.server))).transpose()
    }
}

impl Tls {
    fn read(files: &TlsFiles) -> Result<Self, CredentialsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authority = |cause: String| CredentialsError::Authority { file: files.authority.clone(), cause };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            roots.add(certificate).map_err(|error| authority(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents(&files.key)?)
            .map_err(|cause| not_pem(&files.key, "private key", Some(cause)))?;
        let pair = |cause| CredentialsError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            cause,
        };
        let versions = &[&rustls::version::TLS13];

        let verifier = Arc::new(Issued { roots: Arc::clone(&roots), provider: Arc::clone(&provider) });
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(pair)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(pair)?;
        client.resumption = Resumption::disabled();

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error: VerifierBuilderError| authority(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(pair)?;
        // A rank that has joined hears nothing until the group is complete.
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

fn contents(file: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(file).map_err(|source| CredentialsError::Unreadable { file: file.to_owned(), source })
}

fn not_pem(file: &Path, expected: &'static str, cause: Option<pem::Error>) -> CredentialsError {
    CredentialsError::NotPem { file: file.to_owned(), expected, cause }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents(file)?).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        result => Err(not_pem(file, "certificate", result.err())),
    }
}

/// Believes whom the authority of the group has certified, wherever it is.
#[derive(Debug)]
struct Issued {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Issued {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What an error of TLS says of the other side, if it is one.
pub(super) fn distrust(error: &io::Error) -> Option<String> {
    use rustls::Error as Tls;
    let error = error.get_ref()?.downcast_ref::<Tls>()?;
    let text = match error {
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "its certificate is not valid yet: compare the clocks",
        // The latter where both authorities have one name.
        Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not from the authority that this rank was given"
        }
        Tls::NoCertificatesPresented => "it shows no certificate",
        Tls::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "it was given another authority than that of this rank's certificate"
        }
        Tls::AlertReceived(AlertDescription::CertificateExpired) => {
            "it finds that this rank's certificate has expired or is not valid yet"
        }
        Tls::InvalidCertificate(cause) => return Some(format!("its certificate cannot be used: {cause}")),
        Tls::AlertReceived(alert) => {
            return Some(format!("it does not accept this rank's certificate: {alert:?}"));
        }
        other => return Some(format!("TLS fails: {other}")),
    };
    Some(text.into())
}
