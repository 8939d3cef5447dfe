//! From a URL to the store it names.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::{Error, FolderStore, Store};

/// Opens the place that `url` names: a path, `file:///path`, or with the crate's features `s3://bucket/prefix` (`s3`),
/// `gs://bucket/prefix` (`gcs`), `az://container/prefix` (`azure`).
///
/// Credentials, regions and endpoints come from the environment, by the names that each provider's own tools use:
/// `AWS_…`, `GOOGLE_…`, `AZURE_…`.
pub fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    let refused = |reason: String| Error::Url { url: without_credentials(url), reason };
    if !url.contains("://") {
        return Ok(Arc::new(FolderStore::open(PathBuf::from(url))?));
    }
    let parsed = Url::parse(url).map_err(|error| refused(error.to_string()))?;
    match parsed.scheme() {
        "file" => match parsed.to_file_path() {
            Ok(path) => Ok(Arc::new(FolderStore::open(path)?)),
            Err(()) => Err(refused("a folder of this machine is file:///path, with three slashes".into())),
        },
        "s3" | "s3a" if cfg!(feature = "s3") => cloud(&parsed, "AWS_").map_err(refused),
        "gs" if cfg!(feature = "gcs") => cloud(&parsed, "GOOGLE_").map_err(refused),
        "az" | "abfs" | "abfss" if cfg!(feature = "azure") => cloud(&parsed, "AZURE_").map_err(refused),
        "s3" | "s3a" => Err(refused("this build lacks the feature s3".into())),
        "gs" => Err(refused("this build lacks the feature gcs".into())),
        "az" | "abfs" | "abfss" => Err(refused("this build lacks the feature azure".into())),
        scheme => Err(refused(format!(
            "{scheme} is not known; use a path, file:///path, s3://bucket/prefix, gs://bucket/prefix or \
             az://container/prefix"
        ))),
    }
}

/// Messages and logs do not repeat what stands before the host.
fn without_credentials(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
        None => url.to_owned(),
    }
}

#[cfg(feature = "cloud")]
fn cloud(url: &Url, variables: &str) -> Result<Arc<dyn Store>, String> {
    // The provider that the whole of Muster uses; one that the process chose before stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Only the provider's own variables: the builders would also take `TOKEN` or `TIMEOUT` for theirs.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(variables));
    let (objects, prefix) =
        object_store::parse_url_opts(url, environment).map_err(|error| error.to_string())?;
    let folder = super::ObjectFolder::new(objects.into(), prefix.as_ref());
    Ok(Arc::new(folder.map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "cloud"))]
fn cloud(_: &Url, _: &str) -> Result<Arc<dyn Store>, String> {
    Err("this build reaches no object store".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::write_whole;

    #[test]
    fn paths_and_file_urls_name_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        for url in [format!("{path}/a b"), format!("file://{path}/a%20b")] {
            write_whole(&*open(&url).unwrap(), "file", b"").unwrap();
        }
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
        assert!(folder.path().join("a b/file").is_file());
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_is_opened_without_asking_it() {
        let store = open("s3://bucket/runs/one").unwrap();
        assert!(format!("{store:?}").contains("runs/one"));
    }

    #[test]
    fn what_cannot_be_reached_is_told_without_credentials() {
        let message = open("ftp://ann:secret@host/x").unwrap_err().to_string();
        assert!(
            message.starts_with("cannot keep checkpoints at ftp://…@host/x: ftp is not known"),
            "{message}"
        );
        assert!(open("file://host/x").unwrap_err().to_string().contains("three slashes"));
        if !cfg!(feature = "azure") {
            assert!(open("az://c/x").unwrap_err().to_string().ends_with("lacks the feature azure"));
        }
    }
}
