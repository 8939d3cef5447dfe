//! What is said when a job has ended: where it ran, how well, how long it talked, where the model lies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::state::JobState;
use crate::api;
use crate::connect::Connection;
use crate::error::Error;

/// The summary of a job that succeeded.
pub(crate) fn success(state: &JobState, job: &str, took: Duration, model: Option<&str>) -> String {
    let mut text = format!("{job} succeeded in {:.1} s\n", took.as_secs_f64());
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "  {name:<14} {value}");
    };
    line("placement", &placement(state));
    let value = |name: &str| state.result.get(name).map(String::as_str);
    if let Some(steps) = value("steps") {
        line("steps", steps);
    }
    if let Some(accuracy) = value("test_accuracy") {
        line("test accuracy", accuracy);
    }
    if let Some(seconds) = value("communication_seconds") {
        let share = share(seconds, value("elapsed_seconds")).unwrap_or_default();
        line("communication", &format!("{seconds} s{share}"));
    }
    if let Some(model) = model.or_else(|| value("model")) {
        line("model", model);
    }
    text
}

fn share(part: &str, whole: Option<&str>) -> Option<String> {
    let (part, whole): (f64, f64) = (part.parse().ok()?, whole?.parse().ok()?);
    (whole > 0.0).then(|| format!(" ({:.0} % of {whole:.1} s of training)", 100.0 * part / whole))
}

/// `node-0: digits-master-0 (GPU 0), digits-worker-0 (GPU 1); node-1: …`
fn placement(state: &JobState) -> String {
    let mut nodes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, pod) in &state.pods {
        let gpus = pod.gpus.as_ref().map(|gpus| format!(" (GPU {gpus})")).unwrap_or_default();
        nodes.entry(pod.node.as_deref().unwrap_or("nowhere")).or_default().push(format!("{name}{gpus}"));
    }
    nodes.iter().map(|(node, pods)| format!("{node}: {}", pods.join(", "))).collect::<Vec<_>>().join("; ")
}

/// Why a job failed: its condition, the pods that failed, and the last lines of the first of them.
pub(crate) fn failure(state: &JobState, job: &str, message: &str) -> String {
    let mut text = format!("{job} failed: {message}");
    let failed: Vec<_> =
        state.pods.iter().filter_map(|(name, pod)| Some((name, pod.failure.as_ref()?))).collect();
    for (name, failure) in &failed {
        let _infallible = write!(text, "\n{name}: {failure}");
    }
    if let Some(tail) = failed.first().and_then(|(name, _)| state.tails.get(*name)) {
        let _infallible = write!(text, "\nlast lines of {}:\n  {}", failed[0].0, tail.join("\n  "));
    }
    text
}

/// The first pod that failed and which of its containers did.
pub(crate) fn failed_container(state: &JobState) -> Option<(String, String)> {
    state.pods.iter().find_map(|(name, pod)| Some((name.clone(), pod.failed_container.clone()?)))
}

/// Where a file of the reporter's container lies outside the pod, when a volume holds it.
pub(crate) async fn locate(
    connection: &Connection,
    namespace: &str,
    pod: &str,
    file: &str,
) -> Result<Option<String>, Error> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    let Some(pod) = api::find(&connection.client, &path).await? else { return Ok(None) };
    let Some((volume, rest)) = volume_of(&pod, file) else { return Ok(None) };
    if let Some(folder) = volume["hostPath"]["path"].as_str() {
        return Ok(Some(format!("{folder}{rest}")));
    }
    let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() else { return Ok(None) };
    let claim = api::get(
        &connection.client,
        &format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"),
    )
    .await?;
    let Some(volume) = claim["spec"]["volumeName"].as_str() else { return Ok(None) };
    let volume = api::get(&connection.client, &format!("/api/v1/persistentvolumes/{volume}")).await?;
    let folder =
        volume["spec"]["hostPath"]["path"].as_str().or_else(|| volume["spec"]["local"]["path"].as_str());
    Ok(folder.map(|folder| format!("{folder}{rest}")))
}

/// The volume that holds `file` in the pod's first container, and the path below it.
fn volume_of<'a>(pod: &'a Value, file: &str) -> Option<(&'a Value, String)> {
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array()?;
    let covering = mounts.iter().filter_map(|mount| {
        let rest = file.strip_prefix(mount["mountPath"].as_str()?.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then_some((mount, rest.to_owned()))
    });
    let (mount, rest) = covering.min_by_key(|(_, rest)| rest.len())?;
    let volumes = pod["spec"]["volumes"].as_array()?;
    let below = mount["subPath"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
    volumes
        .iter()
        .find(|volume| volume["name"] == mount["name"])
        .map(|volume| (volume, format!("{below}{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_innermost_mount_holds_the_file() {
        let pod = json!({"spec": {"containers": [{"volumeMounts": [
            {"name": "a", "mountPath": "/"}, {"name": "m", "mountPath": "/model", "subPath": "v1"}, {"name": "x", "mountPath": "/mod"}]}],
            "volumes": [{"name": "m", "hostPath": {"path": "/srv"}}, {"name": "a"}]}});
        let (volume, rest) = volume_of(&pod, "/model/m.safetensors").unwrap();
        assert_eq!((volume["name"].as_str(), rest.as_str()), (Some("m"), "/v1/m.safetensors"));
    }

    #[test]
    fn the_summary_names_what_people_ask() {
        let mut state = JobState::default();
        state.line_seen("none", "");
        for (name, value) in [
            ("steps", "90"),
            ("test_accuracy", "0.97"),
            ("communication_seconds", "0.5"),
            ("elapsed_seconds", "2"),
        ] {
            state.result.insert(name.into(), value.into());
        }
        let text = success(&state, "digits", Duration::from_millis(4200), Some("/m.safetensors"));
        assert_eq!(
            text,
            "digits succeeded in 4.2 s\n  placement      \n  steps          90\n  test accuracy  0.97\n  communication  0.5 s (25 % of 2.0 s of training)\n  model          /m.safetensors\n"
        );
    }
}
