//! Certificates for ranks that talk under TLS.

use std::path::Path;

use muster_collectives::{Options, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// An authority, whose files go with it.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is good.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Past,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::called("authority")
    }

    pub(crate) fn called(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let authority = Self { folder, issuer: Issuer::new(parameters, key) };
        authority.certify("rank", Validity::Now);
        authority
    }

    /// A certificate of this authority, for a rank that believes it alone.
    pub(crate) fn certify(&self, name: &str, validity: Validity) -> TlsFiles {
        self.issue(name, Vec::new(), validity)
    }

    /// A certificate for a host.
    pub(crate) fn certify_for(&self, name: &str, host: &str) -> TlsFiles {
        self.issue(name, vec![host.to_owned()], Validity::Now)
    }

    fn issue(&self, name: &str, hosts: Vec<String>, validity: Validity) -> TlsFiles {
        let mut parameters = CertificateParams::new(hosts).unwrap();
        if let Validity::Past = validity {
            parameters.not_before = date_time_ymd(2020, 1, 1);
            parameters.not_after = date_time_ymd(2020, 2, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let files = named(self.folder.path(), name);
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// The files of a rank of the group.
    pub(crate) fn files(&self) -> TlsFiles {
        files_in(self.folder.path())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a rank on a pretended host under TLS.
    pub(crate) fn secure(&self, options: &mut Options) {
        options.network.as_mut().unwrap().tls = Some(self.files());
    }
}

/// The files of a rank of the group whose authority keeps its own in `folder`.
pub(crate) fn files_in(folder: &Path) -> TlsFiles {
    named(folder, "rank")
}

fn named(folder: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        authority: folder.join("ca.pem"),
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}
