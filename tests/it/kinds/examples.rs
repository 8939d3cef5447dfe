//! The examples with frameworks of others, unmodified.

use std::collections::BTreeSet;

use regex::Regex;

use super::{apply_example, job, log_of_ended, python};
use crate::harness::Cluster;

#[tokio::test]
async fn all_ranks_of_xgboost_end_with_the_same_good_model() {
    let Some(python) = python() else { return };
    let cluster = Cluster::start(&[]).await;
    apply_example(&cluster, "xgboost", "xgboostjob.yaml", &python).await;
    cluster.wait_for("xgboostjob/xgboost", "condition=Succeeded").await;
    let shape =
        Regex::new(r"(?m)^rank (\d) of 3: model ([0-9a-f]{16}), test accuracy (\S+)$").expect("pattern");
    let mut models = BTreeSet::new();
    for (rank, pod) in ["xgboost-master-0", "xgboost-worker-0", "xgboost-worker-1"].into_iter().enumerate() {
        let log = log_of_ended(&cluster, pod).await;
        let line = shape.captures(&log).unwrap_or_else(|| panic!("no result in\n{log}"));
        assert_eq!(line[1], rank.to_string(), "the tracker's ranks are those of the pods");
        models.insert(line[2].to_owned());
        let accuracy: f64 = line[3].parse().expect("a number");
        assert!(accuracy > 0.9, "accuracy {accuracy}");
    }
    assert_eq!(models.len(), 1, "{models:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn both_processes_of_jax_add_up_and_end_with_the_same_weights() {
    let Some(python) = python() else { return };
    let cluster = Cluster::start(&[]).await;
    apply_example(&cluster, "jax", "jaxjob.yaml", &python).await;
    cluster.wait_for("jaxjob/jax", "condition=Succeeded").await;
    let mut weights = BTreeSet::new();
    for rank in 0..2 {
        let log = log_of_ended(&cluster, &format!("jax-worker-{rank}")).await;
        // Ranks from one: 1 + 2.
        assert!(log.contains(&format!("process {rank} of 2: psum 3.0\n")), "{log}");
        let shape = Regex::new(&format!(r"(?m)^process {rank} of 2: weights ([0-9a-f]{{16}}), loss (\S+)$"));
        let line = shape.expect("pattern").captures(&log).unwrap_or_else(|| panic!("no result in\n{log}"));
        weights.insert(line[1].to_owned());
        let loss: f64 = line[2].parse().expect("a number");
        assert!(loss < 1e-3, "loss {loss}");
    }
    assert_eq!(weights.len(), 1, "{weights:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_framework_that_is_missing_is_named_with_the_command_that_installs_it() {
    let cluster = Cluster::start(&[]).await;
    // Without the site's packages, whatever the machine has.
    for (script, kind, container, specs, type_, advice) in [
        ("xgboost/train.py", "XGBoostJob", "xgboost", "xgbReplicaSpecs", "Master", "pip install xgboost-cpu"),
        ("jax/train.py", "JAXJob", "jax", "jaxReplicaSpecs", "Worker", "pip install jax"),
        (
            "torch-ddp/launch.py",
            "PyTorchJob",
            "pytorch",
            "pytorchReplicaSpecs",
            "Master",
            "pip install torch",
        ),
    ] {
        let script = crate::harness::program::repository().join("examples").join(script);
        let command = ["python3", "-S", "-E", &script.display().to_string()];
        let text = job(kind, container, container, specs, &[(type_, 1)], &command);
        let mut manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        manifest["spec"][specs][type_]["restartPolicy"] = "Never".into();
        cluster.home.write("job.yaml", &manifest.to_string());
        let run = cluster.muster(&["run", "job.yaml"]).await;
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.contains(advice), "no `{advice}` in\n{}", run.stderr);
    }
    cluster.stop().await;
}
