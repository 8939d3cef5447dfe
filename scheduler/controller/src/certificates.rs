//! The certificate in files, which somebody may renew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_machinery::tls::{TlsError, TlsOptions};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(30);

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the server's certificate: {0}")]
pub struct CertificateError(#[from] std::io::Error);

/// Where the certificate, its key and the callers' authority are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and its chain; read again when it changes.
    pub certificate: PathBuf,
    /// Its key; read again when it changes.
    pub key: PathBuf,
    /// Certificate authority of the callers: only those with a certificate of it are heard.
    pub client_authority: Option<PathBuf>,
}

fn contents(path: &Path) -> Result<Vec<u8>, CertificateError> {
    Ok(fs_err::read(path)?)
}

impl CertificateFiles {
    pub(crate) fn read(&self) -> Result<TlsOptions, CertificateError> {
        let client_authority = match &self.client_authority {
            Some(path) => Some(contents(path)?),
            None => None,
        };
        let (certificate, key) = self.certificate_and_key()?;
        Ok(TlsOptions { certificate, key, client_authority })
    }

    fn certificate_and_key(&self) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
        Ok((contents(&self.certificate)?, contents(&self.key)?))
    }
}

/// Serves what the files hold whenever that changes; does not end by itself.
pub(crate) async fn renew(
    files: &CertificateFiles,
    mut served: (Vec<u8>, Vec<u8>),
    serve: impl Fn(&[u8], &[u8]) -> Result<(), TlsError>,
) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        let files = files.clone();
        let read = tokio::task::spawn_blocking(move || files.certificate_and_key()).await;
        match read {
            Ok(Ok(read)) if read == served => {}
            Ok(Ok(read)) => match serve(&read.0, &read.1) {
                Ok(()) => {
                    tracing::info!("serving with the renewed certificate");
                    served = read;
                }
                // Half of it may be written; looked at again.
                Err(error) => tracing::warn!(%error, "the renewed certificate cannot be used yet"),
            },
            Ok(Err(error)) => tracing::warn!(%error, "the certificate cannot be looked at"),
            Err(error) => tracing::debug!(%error, "the certificate was not looked at"),
        }
    }
}
