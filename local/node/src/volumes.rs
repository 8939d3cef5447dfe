//! Volumes made of files: what they contain (pure), and how they are written so that readers see all or nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::{OpenOptionsExt as _, symlink};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use crate::environment::{self, Facts};
use crate::sources::{Reference, Sources};

const DEFAULT_MODE: i32 = 0o644;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectedFile {
    /// Below the volume's folder.
    pub(crate) path: String,
    /// Permission bits.
    pub(crate) mode: u32,
    /// What it says.
    pub(crate) content: Vec<u8>,
}

/// Why the files of a volume cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A value is missing.
    #[error("{0}")]
    Value(#[from] environment::Error),
    /// An item names a key that the object lacks.
    #[error("{object} references non-existent key: {key}")]
    Key {
        /// Which object.
        object: String,
        /// Which key.
        key: String,
    },
    /// A path would leave the volume.
    #[error("volume file path \"{0}\" must be relative and must not contain `..`")]
    Path(String),
    /// The token was not fetched.
    #[error("no token for audience \"{0}\" yet")]
    Token(String),
}

/// Audiences and lifetimes of the tokens that the pod's volumes need.
pub(crate) fn token_requests(pod: &Pod) -> Vec<(String, Option<i64>)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .flat_map(|volume| volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()))
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| (token.audience.clone().unwrap_or_default(), token.expiration_seconds))
        .collect()
}

/// After so many seconds the tokens of the pod's volumes should be fetched anew; `None` without tokens.
pub(crate) fn token_rotation(pod: &Pod) -> Option<i64> {
    let lifetimes = token_requests(pod).into_iter().map(|(_, seconds)| seconds.unwrap_or(3600));
    lifetimes.min().map(|seconds| (seconds / 3).max(60))
}

/// The files of a volume, or `None` if the volume is not made of files.
pub(crate) fn files(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    facts: &Facts,
    tokens: &BTreeMap<String, String>,
) -> Result<Option<Vec<ProjectedFile>>, Error> {
    let mut list = Vec::new();
    if let Some(map) = &volume.config_map {
        let reference = Reference::ConfigMap(map.name.clone());
        let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        entries(sources, &reference, map.items.as_deref(), mode, map.optional == Some(true), &mut list)?;
    } else if let Some(secret) = &volume.secret {
        let reference = Reference::Secret(secret.secret_name.clone().unwrap_or_default());
        let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        entries(
            sources,
            &reference,
            secret.items.as_deref(),
            mode,
            secret.optional == Some(true),
            &mut list,
        )?;
    } else if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        downward_files(pod, downward.items.as_deref(), mode, facts, &mut list)?;
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            projection(pod, source, mode, sources, facts, tokens, &mut list)?;
        }
    } else {
        return Ok(None);
    }
    for file in &list {
        let inside = Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
        if file.path.is_empty() || !inside {
            return Err(Error::Path(file.path.clone()));
        }
    }
    Ok(Some(list))
}

fn projection(
    pod: &Pod,
    source: &VolumeProjection,
    mode: i32,
    sources: &Sources,
    facts: &Facts,
    tokens: &BTreeMap<String, String>,
    list: &mut Vec<ProjectedFile>,
) -> Result<(), Error> {
    if let Some(map) = &source.config_map {
        let reference = Reference::ConfigMap(map.name.clone());
        entries(sources, &reference, map.items.as_deref(), mode, map.optional == Some(true), list)?;
    }
    if let Some(secret) = &source.secret {
        let reference = Reference::Secret(secret.name.clone());
        entries(sources, &reference, secret.items.as_deref(), mode, secret.optional == Some(true), list)?;
    }
    if let Some(downward) = &source.downward_api {
        downward_files(pod, downward.items.as_deref(), mode, facts, list)?;
    }
    if let Some(token) = &source.service_account_token {
        let audience = token.audience.clone().unwrap_or_default();
        let content = tokens.get(&audience).ok_or(Error::Token(audience))?.clone().into_bytes();
        list.push(ProjectedFile { path: token.path.clone(), mode: 0o600, content });
    }
    Ok(())
}

fn entries(
    sources: &Sources,
    reference: &Reference,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    list: &mut Vec<ProjectedFile>,
) -> Result<(), Error> {
    let Some(entries) = sources.entries(reference) else {
        return match reference {
            _ if optional => Ok(()),
            Reference::ConfigMap(name) => Err(environment::Error::NoConfigMap(name.clone()).into()),
            Reference::Secret(name) => Err(environment::Error::NoSecret(name.clone()).into()),
        };
    };
    let file = |path: &str, mode: i32, content: &Vec<u8>| ProjectedFile {
        path: path.to_owned(),
        mode: mode as u32 & 0o777,
        content: content.clone(),
    };
    match items.filter(|items| !items.is_empty()) {
        None => list.extend(entries.iter().map(|(key, content)| file(key, mode, content))),
        Some(items) => {
            for item in items {
                match entries.get(&item.key) {
                    Some(content) => list.push(file(&item.path, item.mode.unwrap_or(mode), content)),
                    None if optional => {}
                    None => {
                        let object = match reference {
                            Reference::ConfigMap(name) => format!("configmap {name}"),
                            Reference::Secret(name) => format!("secret {name}"),
                        };
                        return Err(Error::Key { object, key: item.key.clone() });
                    }
                }
            }
        }
    }
    Ok(())
}

fn downward_files(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    facts: &Facts,
    list: &mut Vec<ProjectedFile>,
) -> Result<(), Error> {
    for item in items.unwrap_or_default() {
        let content = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => environment::field(pod, selector, facts)?,
            (None, Some(selector)) => environment::resource(pod, None, selector, facts)?,
            (None, None) => String::new(),
        };
        let mode = item.mode.unwrap_or(mode) as u32 & 0o777;
        list.push(ProjectedFile { path: item.path.clone(), mode, content: content.into_bytes() });
    }
    Ok(())
}

/// Writes the files into `folder` so that a reader sees the old set or the new one: they lie in a folder of their
/// own, `..data` points at it, and the visible names point through `..data`. Returns whether anything changed.
pub(crate) fn write(folder: &Path, files: &[ProjectedFile], group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(folder)?;
    let data = folder.join("..data");
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && unchanged(&folder.join(old), files)
    {
        return Ok(false);
    }
    let number = old
        .as_ref()
        .and_then(|old| old.to_str())
        .and_then(|old| old.strip_prefix("..version-"))
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |number| number + 1);
    let name = format!("..version-{number}");
    let fresh = folder.join(&name);
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    for file in files {
        let path = fresh.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // With fsGroup the group may read what the owner may.
        let mode = if group.is_some() { file.mode | ((file.mode & 0o400) >> 3) } else { file.mode };
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut out, &file.content)?;
        out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        if group.is_some() {
            std::os::unix::fs::chown(&path, None, group)?;
        }
    }
    let next = folder.join("..data-next");
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    link_names(folder, files)?;
    if let Some(old) = old {
        let _ = fs::remove_dir_all(folder.join(old));
    }
    Ok(true)
}

fn link_names(folder: &Path, files: &[ProjectedFile]) -> io::Result<()> {
    let wanted: BTreeMap<&str, PathBuf> = files
        .iter()
        .filter_map(|file| file.path.split('/').next())
        .map(|name| (name, Path::new("..data").join(name)))
        .collect();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains_key(name.as_ref()) {
            let _ = fs::remove_file(folder.join(name.as_ref()));
        }
    }
    for (name, target) in wanted {
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(target, link)?;
        }
    }
    Ok(())
}

fn unchanged(version: &Path, files: &[ProjectedFile]) -> bool {
    fn count(folder: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(folder) else { return usize::MAX };
        entries.flatten().map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    let same =
        |file: &ProjectedFile| std::fs::read(version.join(&file.path)).is_ok_and(|old| old == file.content);
    files.iter().all(same) && count(version) == files.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(path: &str, content: &str) -> ProjectedFile {
        ProjectedFile { path: path.into(), mode: 0o640, content: content.into() }
    }

    #[test]
    fn an_update_swaps_all_files_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(write(path, &[file("a", "1"), file("sub/b", "2")], None).unwrap());
        assert!(!write(path, &[file("a", "1"), file("sub/b", "2")], None).unwrap(), "nothing changed");
        assert_eq!(fs::read_to_string(path.join("sub/b")).unwrap(), "2");
        assert!(write(path, &[file("a", "3")], None).unwrap());
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        assert!(!path.join("sub").exists());
        assert_eq!(fs::read_dir(path).unwrap().count(), 3, "a, ..data and one version");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path.join("a")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o640);
    }

    fn planned(volume: serde_json::Value) -> Result<Option<Vec<ProjectedFile>>, Error> {
        let mut sources = Sources::default();
        sources.add_config_map("m", serde_json::from_value(json!({"data": {"k": "v", "l": "w"}})).unwrap());
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap();
        let volume = serde_json::from_value(volume).unwrap();
        files(&pod, &volume, &sources, &Facts::default(), &BTreeMap::new())
    }

    #[test]
    fn items_choose_and_rename() {
        let items = json!([{"key": "k", "path": "x/y", "mode": 0o400}]);
        let list =
            planned(json!({"name": "v", "configMap": {"name": "m", "items": items}})).unwrap().unwrap();
        assert_eq!(list, [ProjectedFile { path: "x/y".into(), mode: 0o400, content: b"v".to_vec() }]);
        let projected = json!({"sources": [{"configMap": {"name": "m"}}, {"downwardAPI": {"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]});
        let list = planned(json!({"name": "v", "projected": projected})).unwrap().unwrap();
        assert_eq!(list.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["k", "l", "name"]);
        assert_eq!(planned(json!({"name": "v", "emptyDir": {}})), Ok(None));
    }

    #[test]
    fn paths_out_of_the_volume_are_refused() {
        let items = json!([{"key": "k", "path": "../y"}]);
        let result = planned(json!({"name": "v", "configMap": {"name": "m", "items": items}}));
        assert_eq!(result, Err(Error::Path("../y".into())));
        let missing = planned(json!({"name": "v", "secret": {"secretName": "s"}}));
        assert_eq!(missing.unwrap_err().to_string(), "secret \"s\" not found");
        assert_eq!(
            planned(json!({"name": "v", "secret": {"secretName": "s", "optional": true}})),
            Ok(Some(vec![]))
        );
    }
}
