//! Tokens by which pods say who they are, each for one audience, in a volume of its own.

use k8s_openapi::api::core::v1::{
    Container, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

/// The file of the token in its volume.
pub(crate) const TOKEN: &str = "token";
/// How long a token holds; it is renewed before.
const SECONDS: i64 = 3600;

/// The token for an audience.
pub(crate) fn projection(audience: String) -> VolumeProjection {
    let token = ServiceAccountTokenProjection {
        audience: Some(audience),
        expiration_seconds: Some(SECONDS),
        path: TOKEN.to_owned(),
    };
    VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }
}

/// Gives a pod the volume, in the place of one of the same name.
pub(crate) fn put_volume(spec: &mut PodSpec, name: &str, sources: Vec<VolumeProjection>) {
    let projected = ProjectedVolumeSource { sources: Some(sources), ..ProjectedVolumeSource::default() };
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| volume.name != name);
    volumes.push(Volume { name: name.to_owned(), projected: Some(projected), ..Volume::default() });
}

/// Shows a container the volume in a folder.
pub(crate) fn mount(container: &mut Container, name: &str, folder: &str) {
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| mount.name != name);
    mounts.push(VolumeMount {
        name: name.to_owned(),
        mount_path: folder.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
}
