//! The folder that the pods of one controller share on this machine.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

/// Joining and leaving take turns: a folder must not go while a new member comes.
static TURN: Mutex<()> = Mutex::new(());

/// Makes the folder of the pod's controller, if it has one, and notes the pod as a member.
pub(super) fn join(state_dir: &Path, pod: &Pod) -> io::Result<Option<PathBuf>> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
        return Ok(None);
    };
    let _turn = TURN.lock();
    let folder = state_dir.join("peers").join(&owner.uid);
    let members = members_of(state_dir, &folder);
    fs::create_dir_all(&members)?;
    fs::write(members.join(pod.metadata.uid.as_deref().unwrap_or_default()), "")?;
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    Ok(Some(folder))
}

/// Removes the pod from the members, and the folder with the last of them.
pub(super) fn leave(state_dir: &Path, folder: &Path, uid: &str) {
    let _turn = TURN.lock();
    let members = members_of(state_dir, folder);
    let _ = fs::remove_file(members.join(uid));
    if fs::remove_dir(&members).is_ok() {
        let _ = fs::remove_dir_all(folder);
    }
}

fn members_of(state_dir: &Path, folder: &Path) -> PathBuf {
    state_dir.join("peers-members").join(folder.file_name().unwrap_or_default())
}
