//! A thousand training jobs of one pod, submitted at once: the processor time that their controller, in a process of its
//! own, takes for each, and the memory of the control plane meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::area::Settings;
use crate::cluster::{self, NAMESPACE};
use crate::process::{Up, own_proportional_set_size, processor_time};

const JOBS: usize = 1000;
/// Creates that are under way at once.
const CREATES: usize = 32;
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(200);
const MEGABYTE: f64 = 1_000_000.0;

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &["--only=apiserver,scheduler,built-in,node"]).await?;
    let kubeconfig = format!("--kubeconfig={}", up.kubeconfig().display());
    let mut command = up.home().command(["controller", "--only=trainer", &kubeconfig])?;
    command.stderr(std::process::Stdio::piped());
    let mut controller = command.spawn().context("cannot start muster controller")?;
    let mut lines = BufReader::new(controller.stderr.take().context("it has no standard error")?).lines();
    while !lines.next_line().await?.context("the controller ended")?.contains("connected to") {}
    // Nobody else reads what it says.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let processes = [up.pid()?, controller.id().context("the controller ended")?];

    let client = cluster::client(&up.kubeconfig()).await?;
    let kind = GroupVersionKind::gvk("kubeflow.org", "v1", "PyTorchJob");
    let kind = ApiResource::from_gvk_with_plural(&kind, "pytorchjobs");
    let jobs: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind);
    let version = jobs.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
    let mut events = jobs.watch(&WatchParams::default(), &version).await?.boxed();
    let before = processor_time(processes[1])?;
    let creating = async {
        let parameters = PostParams::default();
        let all: Vec<DynamicObject> = (0..JOBS).map(|index| job(index, &kind)).collect();
        let creates = stream::iter(&all).map(|job| jobs.create(&parameters, job)).buffer_unordered(CREATES);
        creates.try_for_each(|_| async { Ok(()) }).await.context("creating the jobs")
    };
    let ending = async {
        let mut succeeded = BTreeSet::new();
        while succeeded.len() < JOBS {
            match events.try_next().await?.context("the watch ended")? {
                WatchEvent::Modified(job) if has(&job, "Failed") => bail!("{} failed", job.name_any()),
                WatchEvent::Modified(job) if has(&job, "Succeeded") => drop(succeeded.insert(job.name_any())),
                WatchEvent::Error(status) => bail!("the watch broke: {}", status.message),
                _ => {}
            }
        }
        Ok(())
    };
    let mut most = 0;
    let watching = async {
        loop {
            let sizes = processes.map(own_proportional_set_size);
            most = most.max(sizes.into_iter().sum::<Result<u64>>()?);
            tokio::time::sleep(SAMPLE).await;
        }
    };
    tokio::select! {
        done = async { tokio::try_join!(creating, ending) } => drop(done?),
        error = watching => return error,
    }
    let took = processor_time(processes[1])?.saturating_sub(before);
    drop(controller);
    up.stop().await?;
    Ok(vec![took.as_secs_f64() * 1000.0 / JOBS as f64, most as f64 / MEGABYTE])
}

fn has(job: &DynamicObject, condition: &str) -> bool {
    let conditions = job.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|found| found["type"] == condition && found["status"] == "True")
}

fn job(index: usize, kind: &ApiResource) -> DynamicObject {
    let spec = json!({"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": {"spec": {
        "containers": [{"name": "pytorch", "image": "busybox", "command": ["/bin/true"]}],
    }}}}});
    DynamicObject::new(&format!("job-{index}"), kind).data(json!({"spec": spec}))
}
