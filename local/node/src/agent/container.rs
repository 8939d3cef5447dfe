//! From a container of the specification to what the pod's init is asked to start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::context::Context;
use super::pod_volumes::Prepared;
use super::sweep;
use crate::cgroup::Limits;
use crate::environment::{self, Facts};
use crate::images;
use crate::protocol::{BindMount, ContainerStart, ProgramInput, User};
use crate::quantity;
use crate::services::variables::variables;
use crate::sources::Sources;

/// Where tools are in an isolated pod.
const TOOLS: &str = "/run/muster/bin";
/// Where the peers' folder is in an isolated pod.
const PEERS: &str = "/run/muster/peers";
const PEERS_VARIABLE: &str = "MUSTER_PEERS_DIR";
/// Where clients within a pod look for their token.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container cannot be started: reason and message of its waiting state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Obstacle {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a container's start needs besides the specification.
pub(crate) struct Frame<'a> {
    pub(crate) context: &'a Context,
    pub(crate) pod: &'a Pod,
    pub(crate) spec: &'a PodSpec,
    pub(crate) directory: &'a Path,
    pub(crate) sources: &'a Sources,
    pub(crate) facts: &'a Facts,
    pub(crate) volumes: &'a BTreeMap<String, Prepared>,
    pub(crate) gpus: &'a [u32],
    pub(crate) peers: Option<&'a Path>,
    pub(crate) hostname: &'a str,
}

/// Where the init writes the log of one start.
pub(crate) fn log_path(context: &Context, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let folder = context.logs_dir(&text(&metadata.namespace), &text(&metadata.name), &text(&metadata.uid));
    folder.join(container).join(format!("{attempt}.log"))
}

/// The file a container may leave a last word in.
pub(crate) fn termination_log(directory: &Path, container: &str) -> PathBuf {
    directory.join("containers").join(container).join("termination-log")
}

/// Builds the start of a container.
pub(crate) fn build(
    frame: &Frame<'_>,
    container: &Container,
    attempt: u32,
) -> Result<ContainerStart, Obstacle> {
    let image = container.image.as_deref().unwrap_or_default();
    let rule = images::find(&frame.context.images, image)
        .ok_or_else(|| Obstacle::new("ErrImageNeverPull", images::unmapped(image)))?;
    let config = |message: String| Obstacle::new("CreateContainerConfigError", message);
    let directory = frame.directory.join("containers").join(&container.name);
    let mut mounts = volume_mounts(frame, container)?;
    let termination = termination_log(frame.directory, &container.name);
    let io = |error: std::io::Error| Obstacle::new("CreateContainerError", error.to_string());
    fs::create_dir_all(&directory).map_err(io)?;
    fs::write(&termination, "").map_err(io)?;
    fs::set_permissions(&termination, std::os::unix::fs::PermissionsExt::from_mode(0o666)).map_err(io)?;
    let mut base = base_environment(frame);
    if frame.context.isolated {
        let bind = |source: PathBuf, target: &str, read_only| BindMount {
            source,
            sub_path: None,
            target: PathBuf::from(target),
            read_only,
        };
        for name in ["hosts", "hostname", "resolv.conf"] {
            let source = frame.directory.join("etc").join(name);
            // An ordinary user's pod has the machine's `/etc`, in which nothing can be made.
            let has_target = !frame.context.user || Path::new("/etc").join(name).exists();
            if source.exists() && has_target {
                mounts.push(bind(source, &format!("/etc/{name}"), false));
            }
        }
        mounts.push(bind(frame.context.tools.clone(), TOOLS, true));
        if let Some(peers) = frame.peers {
            mounts.push(bind(peers.to_owned(), PEERS, false));
            base.push((PEERS_VARIABLE.to_owned(), PEERS.to_owned()));
        }
        let target = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        mounts.push(bind(termination, target, false));
    } else {
        if let Some(peers) = frame.peers {
            base.push((PEERS_VARIABLE.to_owned(), peers.display().to_string()));
        }
        base.push((sweep::MARKER.to_owned(), frame.pod.metadata.uid.clone().unwrap_or_default()));
        if let Some(file) = credentials(frame, &mounts).map_err(io)? {
            base.push(("KUBECONFIG".to_owned(), file.display().to_string()));
        }
    }
    let mut env = environment::environment(frame.pod, container, frame.sources, frame.facts, base)
        .map_err(|error| config(error.to_string()))?;
    let mut argv = command(container, rule.command(), &env).ok_or_else(|| {
        config(format!(
            "no command specified: image \"{image}\" brings none, so the container needs `command`"
        ))
    })?;
    put_tools_first(frame.context, &mut env);
    if !frame.context.isolated {
        replace_mount_paths(&mounts, &mut argv, &mut env);
        mounts.clear();
    }
    let (groups, limits) = (&frame.context.groups, limits(container, frame.context.pod_processes));
    let pod = frame.pod.metadata.uid.as_deref().unwrap_or_default();
    groups.remove(pod, Some(&container.name));
    let cgroups = groups.make(pod, &container.name, attempt, limits).map_err(io)?;
    let (user, read_only_root) = security(frame.spec, container);
    Ok(ContainerStart {
        name: container.name.clone(),
        attempt,
        argv,
        env,
        working_directory: container.working_dir.clone().filter(|folder| !folder.is_empty()),
        user,
        root: rule.root().to_owned(),
        directory,
        mounts,
        log: log_path(frame.context, frame.pod, &container.name, attempt),
        cgroups,
        data_limit: limits.memory.filter(|_| !groups.limit_memory()),
        devices: devices(frame.gpus),
        read_only_root,
        input: match (container.stdin, container.stdin_once) {
            (Some(true), Some(true)) => ProgramInput::FirstClient,
            (Some(true), _) => ProgramInput::Clients,
            _ => ProgramInput::Nothing,
        },
        terminal: container.tty == Some(true),
    })
}

/// Without a mount namespace the token is not where clients look for it. They look in the file that `KUBECONFIG` names
/// as well, so one is written that says where it is.
fn credentials(frame: &Frame<'_>, mounts: &[BindMount]) -> std::io::Result<Option<PathBuf>> {
    let folder = mounts.iter().find(|mount| mount.target == Path::new(ACCOUNT));
    let (Some(folder), Some(api)) = (folder, frame.context.api_address) else { return Ok(None) };
    let namespace = frame.pod.metadata.namespace.as_deref().unwrap_or_default();
    let text = serde_json::to_vec(&serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "pod",
        "clusters": [{"name": "pod", "cluster": {
            "server": format!("https://{api}"), "certificate-authority": folder.source.join("ca.crt"),
        }}],
        "users": [{"name": "pod", "user": {"tokenFile": folder.source.join("token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "pod", "user": "pod", "namespace": namespace}}],
    }))?;
    let file = frame.directory.join("kubeconfig");
    fs::write(&file, text)?;
    Ok(Some(file))
}

fn base_environment(frame: &Frame<'_>) -> Vec<(String, String)> {
    let mut base = vec![
        ("PATH".to_owned(), std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned())),
        ("HOSTNAME".to_owned(), frame.hostname.to_owned()),
        ("HOME".to_owned(), std::env::var("HOME").unwrap_or_else(|_| "/".to_owned())),
    ];
    let namespace = frame.pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = frame.spec.enable_service_links != Some(false);
    base.extend(variables(&frame.context.services.directory(), namespace, links));
    if frame.context.network.is_some()
        && frame.spec.host_network == Some(true)
        && let Some(api) = frame.context.api_address
    {
        // On the machine's network the server is where it listens.
        base.push(("KUBERNETES_SERVICE_HOST".to_owned(), api.ip().to_string()));
        base.push(("KUBERNETES_SERVICE_PORT".to_owned(), api.port().to_string()));
        base.push(("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), api.port().to_string()));
    }
    if !frame.gpus.is_empty() {
        let list = frame.gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        base.push(("CUDA_VISIBLE_DEVICES".to_owned(), list.clone()));
        base.push(("NVIDIA_VISIBLE_DEVICES".to_owned(), list));
    }
    base
}

fn command(container: &Container, image_command: &[String], env: &[(String, String)]) -> Option<Vec<String>> {
    let own = container.command.as_deref().unwrap_or_default();
    let arguments = container.args.as_deref().unwrap_or_default();
    let program = if own.is_empty() { image_command } else { own };
    if program.is_empty() {
        return None;
    }
    let mut argv = environment::expand_all(program, env);
    argv.extend(environment::expand_all(arguments, env));
    Some(argv)
}

fn put_tools_first(context: &Context, env: &mut [(String, String)]) {
    let tools = if context.isolated { TOOLS.to_owned() } else { context.tools.display().to_string() };
    if let Some((_, path)) = env.iter_mut().find(|(name, _)| name == "PATH") {
        *path = format!("{tools}:{path}");
    }
}

fn volume_mounts(frame: &Frame<'_>, container: &Container) -> Result<Vec<BindMount>, Obstacle> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = frame.volumes.get(&mount.name).ok_or_else(|| {
            let message = format!("volumeMount \"{}\" names a volume that the pod does not have", mount.name);
            Obstacle::new("CreateContainerConfigError", message)
        })?;
        let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) => {
                let env =
                    environment::environment(frame.pod, container, frame.sources, frame.facts, Vec::new())
                        .map_err(|error| Obstacle::new("CreateContainerConfigError", error.to_string()))?;
                environment::expand_all(std::slice::from_ref(expression), &env).pop()
            }
            (None, path) => path.clone(),
        };
        mounts.push(BindMount {
            source: volume.path.clone(),
            sub_path: sub_path.filter(|path| !path.is_empty()).map(PathBuf::from),
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || volume.read_only,
        });
    }
    // An outer folder must be there before one inside it is mounted.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// Without a mount namespace a volume is not at its path: the path is replaced where the program is told of it.
fn replace_mount_paths(mounts: &[BindMount], argv: &mut [String], env: &mut [(String, String)]) {
    for mount in mounts.iter().rev() {
        let target = mount.target.display().to_string();
        let mut source = mount.source.clone();
        source.extend(&mount.sub_path);
        let source = source.display().to_string();
        for text in
            argv.iter_mut().chain(env.iter_mut().filter(|(name, _)| name != "PATH").map(|(_, value)| value))
        {
            *text = replace_path(text, &target, &source);
        }
    }
}

/// Replaces `from` where it stands as a whole path or the beginning of one.
fn replace_path(text: &str, from: &str, to: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let begins = !before
            .ends_with(|symbol: char| symbol.is_alphanumeric() || matches!(symbol, '/' | '.' | '_' | '-'));
        let ends =
            !after.starts_with(|symbol: char| symbol.is_alphanumeric() || matches!(symbol, '.' | '_' | '-'));
        out.push_str(before);
        out.push_str(if begins && ends { to } else { from });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn limits(container: &Container, processes: Option<u64>) -> Limits {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let quantity =
        |name: &str| limits.and_then(|limits| limits.get(name)).map(|quantity| quantity.0.as_str());
    let positive = |value: i128| u64::try_from(value).ok().filter(|value| *value > 0);
    Limits {
        memory: quantity("memory").and_then(quantity::units).and_then(positive),
        processor: quantity("cpu").and_then(quantity::milli).and_then(positive),
        processes,
    }
}

fn security(spec: &PodSpec, container: &Container) -> (User, bool) {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let uid = number(own.and_then(|own| own.run_as_user).or(pod.and_then(|pod| pod.run_as_user)));
    let gid = number(own.and_then(|own| own.run_as_group).or(pod.and_then(|pod| pod.run_as_group)));
    let further = pod.and_then(|pod| pod.supplemental_groups.clone()).unwrap_or_default();
    let groups =
        further.into_iter().chain(pod.and_then(|pod| pod.fs_group)).filter_map(|group| number(Some(group)));
    let user = User { uid, gid, groups: groups.collect() };
    (user, own.and_then(|own| own.read_only_root_filesystem) == Some(true))
}

fn devices(gpus: &[u32]) -> Vec<PathBuf> {
    if gpus.is_empty() {
        return Vec::new();
    }
    let common = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"].map(str::to_owned);
    let own = gpus.iter().map(|index| format!("nvidia{index}"));
    common.into_iter().chain(own).map(|name| Path::new("/dev").join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::replace_path;

    #[test]
    fn only_whole_paths_are_replaced() {
        assert_eq!(
            replace_path("--out=/data/x /data /database x/data", "/data", "/v"),
            "--out=/v/x /v /database x/data"
        );
    }
}
