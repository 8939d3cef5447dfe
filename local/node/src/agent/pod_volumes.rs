//! Makes the volumes of a pod on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, ServiceAccount, Volume,
};
use kube::api::{Api, PostParams};
use serde::{Deserialize, Serialize};

use super::context::Context;
use crate::environment::Facts;
use crate::quantity;
use crate::sources::Sources;
use crate::volumes;

/// A volume that is ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepared {
    /// On the machine.
    pub(crate) path: PathBuf,
    /// Cannot be written by any container.
    pub(crate) read_only: bool,
}

/// The volumes of a pod, and those that live in memory with their size limits.
#[derive(Debug, Default)]
pub(crate) struct PodVolumes {
    pub(crate) prepared: BTreeMap<String, Prepared>,
    pub(crate) memory: Vec<(PathBuf, Option<u64>)>,
}

/// Makes every volume, or says which one cannot be made and why.
pub(crate) async fn prepare(
    context: &Context,
    pod: &Pod,
    spec: &PodSpec,
    directory: &Path,
    sources: &Sources,
    facts: &Facts,
) -> Result<PodVolumes, String> {
    let tokens = tokens(context, pod, spec).await?;
    let mut made = PodVolumes::default();
    for volume in spec.volumes.iter().flatten() {
        let name = &volume.name;
        let failed = |error: &dyn std::fmt::Display| {
            format!("MountVolume.SetUp failed for volume \"{name}\": {error}")
        };
        let folder = directory.join("volumes").join(name);
        let read_only = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some();
        let path = if let Some(files) =
            volumes::files(pod, volume, sources, facts, &tokens).map_err(|error| failed(&error))?
        {
            volumes::write(&folder, &files, fs_group(spec)).map_err(|error| failed(&error))?;
            folder
        } else if let Some(empty) = &volume.empty_dir {
            if empty.medium.as_deref() == Some("Memory") {
                let limit = empty.size_limit.as_ref().and_then(|limit| quantity::units(&limit.0));
                made.memory.push((folder.clone(), limit.and_then(|limit| u64::try_from(limit).ok())));
            }
            open_folder(&folder, spec).map_err(|error| failed(&error))?;
            folder
        } else if let Some(source) = &volume.host_path {
            host_path(source).map_err(|error| failed(&error))?
        } else {
            claim(context, pod, volume, spec).await.map_err(|error| failed(&error))?
        };
        let claimed = volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only) == Some(true);
        made.prepared.insert(name.clone(), Prepared { path, read_only: read_only || claimed });
    }
    Ok(made)
}

/// Writes again the volumes that are made of files; returns whether any changed.
pub(crate) async fn refresh(
    context: &Context,
    pod: &Pod,
    spec: &PodSpec,
    directory: &Path,
    sources: &Sources,
    facts: &Facts,
) -> Result<bool, String> {
    let tokens = tokens(context, pod, spec).await?;
    let mut changed = false;
    for volume in spec.volumes.iter().flatten() {
        if let Some(files) =
            volumes::files(pod, volume, sources, facts, &tokens).map_err(|error| error.to_string())?
        {
            let folder = directory.join("volumes").join(&volume.name);
            changed |= volumes::write(&folder, &files, fs_group(spec)).map_err(|error| error.to_string())?;
        }
    }
    Ok(changed)
}

fn fs_group(spec: &PodSpec) -> Option<u32> {
    spec.security_context.as_ref()?.fs_group.and_then(|group| u32::try_from(group).ok())
}

fn open_folder(folder: &Path, spec: &PodSpec) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let group = fs_group(spec);
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    if group.is_some() {
        std::os::unix::fs::chown(folder, None, group)?;
    }
    Ok(())
}

async fn tokens(context: &Context, pod: &Pod, spec: &PodSpec) -> Result<BTreeMap<String, String>, String> {
    let mut tokens = BTreeMap::new();
    let requests = volumes::token_requests(pod);
    if requests.is_empty() {
        return Ok(tokens);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), namespace);
    for (audience, expiration_seconds) in requests {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key = (uid.clone(), account.to_owned(), audience.clone(), expiration_seconds);
        if let Some(token) = context.tokens.get(&key, Instant::now()) {
            tokens.insert(audience, token);
            continue;
        }
        let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.clone()] };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audiences),
                expiration_seconds,
                // It ends with the pod, and says whose it is.
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: Some(uid),
                }),
            }),
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("fetch a token of service account \"{account}\": {error}"))?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        context.tokens.put(key, token.clone(), Instant::now());
        tokens.insert(audience, token);
    }
    Ok(tokens)
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    use std::os::unix::fs::FileTypeExt as _;
    let path = PathBuf::from(&source.path);
    let shown = path.display();
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("hostPath {shown} must be absolute and must not contain `..`"));
    }
    let kind = source.type_.as_deref().unwrap_or_default();
    if kind == "DirectoryOrCreate" {
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
    } else if kind == "FileOrCreate" && !path.exists() {
        fs::write(&path, "").map_err(|error| error.to_string())?;
    }
    let found =
        fs::metadata(&path).map_err(|_| format!("hostPath {shown} does not exist on this machine"))?;
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.file_type().is_socket(),
        "CharDevice" => found.file_type().is_char_device(),
        "BlockDevice" => found.file_type().is_block_device(),
        _ => true,
    };
    if fits { Ok(path) } else { Err(format!("hostPath type check failed: {shown} is not a {kind}")) }
}

/// The folder behind a claim: claim → bound volume → its hostPath.
async fn claim(context: &Context, pod: &Pod, volume: &Volume, spec: &PodSpec) -> Result<PathBuf, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => source.claim_name.clone(),
        (None, Some(_)) => format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name),
        (None, None) => return Err("this kind of volume is not supported by the embedded cluster".to_owned()),
    };
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let text = |error: kube::Error| error.to_string();
    let found = claims.get_opt(&name).await.map_err(text)?;
    let found = found.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
    let bound = found.spec.and_then(|spec| spec.volume_name).filter(|volume| !volume.is_empty());
    let bound = bound.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" is not bound yet"))?;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let found = volumes.get_opt(&bound).await.map_err(text)?;
    let found = found.ok_or_else(|| format!("persistentvolume \"{bound}\" not found"))?;
    let path = found.spec.and_then(|spec| spec.host_path).map(|source| PathBuf::from(source.path));
    let path = path.ok_or_else(|| format!("persistentvolume \"{bound}\" has no hostPath"))?;
    if !path.exists() {
        open_folder(&path, spec).map_err(|error| error.to_string())?;
    }
    Ok(path)
}
