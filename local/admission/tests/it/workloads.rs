//! Stateful sets, daemon sets, cron jobs and revisions: what is filled in, refused and printed.

use muster_admission::{defaults, prepare, printing, validate};
use serde_json::{Value, json};

fn object(kind: &str, spec: Value) -> Value {
    let mut whole = match kind {
        "CronJob" => json!({ "schedule": "* * * * *", "jobTemplate": { "spec": { "template": {
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } } } }),
        _ => json!({ "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } }),
    };
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({ "metadata": { "name": "w", "namespace": "n", "uid": "u" }, "spec": whole })
}

fn version(kind: &str) -> &'static str {
    if kind == "CronJob" { "batch/v1" } else { "apps/v1" }
}

fn refusals(kind: &str, spec: Value) -> Vec<String> {
    let mut object = object(kind, spec);
    defaults::apply(version(kind), kind, &mut object);
    prepare::create(version(kind), kind, &mut object);
    validate::create(version(kind), kind, &object).iter().map(ToString::to_string).collect()
}

#[test]
fn the_pace_of_a_rollout_must_make_sense() {
    let rolling =
        |update: Value| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": update } });
    for (kind, update, expected) in [
        ("StatefulSet", json!({ "partition": 1, "maxUnavailable": "10%" }), None),
        ("StatefulSet", json!({ "partition": -1 }), Some("spec.updateStrategy.rollingUpdate.partition")),
        (
            "StatefulSet",
            json!({ "maxUnavailable": 0 }),
            Some("spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ),
        (
            "StatefulSet",
            json!({ "maxUnavailable": "x" }),
            Some("spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ),
        ("DaemonSet", json!({}), None),
        ("DaemonSet", json!({ "maxUnavailable": 0, "maxSurge": "5%" }), None),
        ("DaemonSet", json!({ "maxSurge": 1 }), Some("spec.updateStrategy.rollingUpdate.maxSurge")),
        (
            "DaemonSet",
            json!({ "maxUnavailable": 0 }),
            Some("spec.updateStrategy.rollingUpdate.maxUnavailable"),
        ),
    ] {
        let refused = refusals(kind, rolling(update.clone()));
        match expected {
            None => assert_eq!(refused, Vec::<String>::new(), "{kind} {update}"),
            Some(field) => {
                assert_eq!(refused.len(), 1, "{kind} {update}: {refused:?}");
                assert!(refused[0].starts_with(&format!("{field}: ")), "{refused:?}");
            }
        }
    }
    let mounts = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [
        { "name": "c", "image": "i", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }] } });
    let claims = json!([{ "metadata": { "name": "data" } }]);
    let spec = json!({ "template": mounts, "volumeClaimTemplates": claims });
    assert_eq!(refusals("StatefulSet", spec), Vec::<String>::new(), "claims are volumes");
    let refused = refusals("StatefulSet", json!({ "template": mounts }));
    assert!(refused[0].starts_with("spec.template.spec.containers[0].volumeMounts[0].name"), "{refused:?}");
    let spec = json!({ "ordinals": { "start": -1 }, "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Keep" } });
    let refused = refusals("StatefulSet", spec);
    assert_eq!(refused.len(), 2, "{refused:?}");
}

#[test]
fn schedules_and_time_zones_are_read_when_they_are_written() {
    assert_eq!(refusals("CronJob", json!({ "timeZone": "Europe/Berlin" })), Vec::<String>::new());
    for (spec, message) in [
        (
            json!({ "schedule": "61 * * * *" }),
            "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61",
        ),
        (
            json!({ "schedule": "TZ=UTC * * * * *" }),
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone \
             field instead",
        ),
        (
            json!({ "timeZone": "Mars/Olympus" }),
            "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
        ),
        (
            json!({ "timeZone": "local" }),
            "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in \
             https://www.iana.org/time-zones",
        ),
        (
            json!({ "timeZone": "" }),
            "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
        ),
    ] {
        assert_eq!(refusals("CronJob", spec), [message]);
    }
}

#[test]
fn a_daemon_set_counts_the_changes_of_its_template_itself() {
    const GENERATION: &str = "deprecated.daemonset.template.generation";
    let mut old = object("DaemonSet", json!({}));
    defaults::apply("apps/v1", "DaemonSet", &mut old);
    prepare::create("apps/v1", "DaemonSet", &mut old);
    let mut new = old.clone();
    new["metadata"]["annotations"][GENERATION] = json!("7");
    new["spec"]["minReadySeconds"] = json!(3);
    prepare::update("apps/v1", "DaemonSet", &old, &mut new, None);
    assert_eq!(new["metadata"]["annotations"][GENERATION], "1");
    new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    prepare::update("apps/v1", "DaemonSet", &old, &mut new, None);
    assert_eq!(
        (&new["metadata"]["annotations"][GENERATION], &new["metadata"]["generation"]),
        (&json!("2"), &json!(2))
    );
}

#[test]
fn a_revision_keeps_its_data_and_tells_whose_it_is() {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true });
    let old = json!({
        "metadata": { "name": "web-1", "namespace": "n", "uid": "r", "resourceVersion": "1", "ownerReferences": [owner] },
        "data": { "spec": {} }, "revision": 3,
    });
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let row = printing::row("apps/v1", "ControllerRevision", &old, now);
    assert_eq!(row[..3], [json!("web-1"), json!("statefulset.apps/web"), json!(3)]);
    let mut new = old.clone();
    new["revision"] = json!(4);
    assert_eq!(validate::update("apps/v1", "ControllerRevision", &old, &new, None), []);
    new["data"] = json!({ "spec": { "replicas": 1 } });
    let refused = validate::update("apps/v1", "ControllerRevision", &old, &new, None);
    assert_eq!(refused.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), ["data"]);
}
