//! The server's own certificate authority, its certificate and the tokens, kept in the state folder.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fs_err as fs;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why the credentials could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the state folder.
    #[error("cannot read or write the server's credentials: {0}")]
    Io(#[from] std::io::Error),
    /// A certificate.
    #[error("cannot make the server's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library.
    #[error("cannot use the certificate in the state folder, remove `pki` there to have it made anew: {0}")]
    Rustls(#[from] rustls::Error),
    /// A PEM file.
    #[error("cannot parse the certificate in the state folder, remove `pki` there to have it made anew: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

/// What the server proves itself with and what it takes as proof.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// Certificate of the authority, PEM.
    pub ca_pem: String,
    /// Token of the administrator.
    pub admin_token: String,
    /// Key that signs service account tokens.
    pub signing_key: Vec<u8>,
    certificate_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials")
    }
}

/// Writes a file that only its owner may read, in one step.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = folder.join(format!(".{name}.{}", crate::meta::random_letters(8)));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn random_token() -> String {
    let mut bytes = [0_u8; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn kept(path: PathBuf, make: impl FnOnce() -> Result<String, TlsError>) -> Result<String, TlsError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make()?;
            write_private(&path, text.as_bytes())?;
            Ok(text)
        }
        Err(error) => Err(error.into()),
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "muster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn server_params(address: IpAddr) -> Result<CertificateParams, TlsError> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut params = CertificateParams::new(names.map(str::to_owned).to_vec())?;
    let mut addresses = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        IpAddr::from([10, 96, 0, 1]),
    ];
    if !addresses.contains(&address) && !address.is_unspecified() {
        addresses.push(address);
    }
    params.subject_alt_names.extend(addresses.into_iter().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "muster-apiserver");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Credentials {
    /// Reads the credentials of a state folder, making what is not there yet.
    pub(crate) fn load_or_create(state_dir: &Path, address: IpAddr) -> Result<Self, TlsError> {
        let folder = state_dir.join("pki");
        fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let ca_key_pem = kept(folder.join("ca.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let ca_key = KeyPair::from_pem(&ca_key_pem)?;
        let ca_pem = kept(folder.join("ca.crt"), || Ok(authority_params().self_signed(&ca_key)?.pem()))?;
        let key_pem = kept(folder.join("server.key"), || Ok(KeyPair::generate()?.serialize_pem()))?;
        let key = KeyPair::from_pem(&key_pem)?;
        // The server certificate follows the address and is cheap: made at each start, signed by the kept authority.
        let authority = authority_params();
        let issuer = Issuer::from_params(&authority, &ca_key);
        let certificate_pem = server_params(address)?.signed_by(&key, &issuer)?.pem();
        let admin_token = kept(folder.join("admin.token"), || Ok(random_token()))?;
        let signing_key = kept(folder.join("tokens.key"), || Ok(random_token()))?.into_bytes();
        Ok(Self { ca_pem, admin_token, signing_key, certificate_pem, key_pem })
    }

    /// The TLS side of the listener: HTTP/2 and HTTP/1.1.
    pub(crate) fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let chain =
            CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A kubeconfig with the administrator's token.
    pub(crate) fn kubeconfig(&self, server: &str) -> String {
        let ca = STANDARD.encode(&self.ca_pem);
        let token = &self.admin_token;
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: muster\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: admin\n  user:\n    token: {token}\ncontexts:\n- name: \
             muster\n  context:\n    cluster: muster\n    user: admin\n    namespace: default\ncurrent-context: muster\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn credentials_survive_a_restart_and_are_private() {
        let folder = tempfile::tempdir().expect("folder");
        let address = IpAddr::from([127, 0, 0, 1]);
        let first = Credentials::load_or_create(folder.path(), address).expect("first");
        let second = Credentials::load_or_create(folder.path(), address).expect("second");
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_eq!(first.admin_token, second.admin_token);
        second.server_config().expect("usable");
        for file in ["ca.key", "server.key", "admin.token", "tokens.key"] {
            let mode =
                std::fs::metadata(folder.path().join("pki").join(file)).expect(file).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
