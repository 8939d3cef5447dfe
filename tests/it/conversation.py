"""Drives a cluster with the Python clients; prints one line for each thing that held."""

import sys

import yaml
from kubeflow.training import KubeflowOrgV1PyTorchJob, TrainingClient
from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

NAMESPACE = "default"


def say(text):
    print(text, flush=True)


def plain_objects(core):
    data = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="plain"), data={"a": "1"})
    core.create_namespaced_config_map(NAMESPACE, data)
    core.patch_namespaced_config_map("plain", NAMESPACE, {"data": {"b": "2"}})
    read = core.read_namespaced_config_map("plain", NAMESPACE)
    assert read.data == {"a": "1", "b": "2"}, read.data
    listed = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=plain")
    assert [item.metadata.name for item in listed.items] == ["plain"]
    core.delete_namespaced_config_map("plain", NAMESPACE)
    try:
        core.read_namespaced_config_map("plain", NAMESPACE)
        raise AssertionError("still there")
    except ApiException as error:
        assert error.status == 404, error
    say("CoreV1Api: create, patch, read, list, delete")
    events = watch.Watch().stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        resource_version=listed.metadata.resource_version,
        field_selector="metadata.name=plain",
        timeout_seconds=30,
    )
    assert next(events)["type"] == "DELETED"
    say("watch: the deletion is replayed")


def a_pod(core):
    container = client.V1Container(name="main", image="busybox", command=["sh", "-c", "echo hello"])
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="hello"),
        spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
    )
    created = core.create_namespaced_pod(NAMESPACE, pod)
    phases = watch.Watch()
    stream = phases.stream(
        core.list_namespaced_pod,
        NAMESPACE,
        resource_version=created.metadata.resource_version,
        timeout_seconds=60,
    )
    for event in stream:
        if event["object"].metadata.name == "hello" and event["object"].status.phase == "Succeeded":
            phases.stop()
    assert core.read_namespaced_pod_log("hello", NAMESPACE) == "hello\n"
    say("pod: watched to its end, log read")
    core.delete_namespaced_pod("hello", NAMESPACE)


def dynamic_client(api_client):
    jobs = dynamic.DynamicClient(api_client).resources.get(api_version="kubeflow.org/v1", kind="PyTorchJob")
    items = jobs.get(namespace=NAMESPACE).items
    assert [item.metadata.name for item in items] == ["digits"], items
    say("DynamicClient: PyTorchJobs are listed")


def training(core, path):
    training_client = TrainingClient(namespace=NAMESPACE)
    job = None
    with open(path, encoding="utf-8") as file:
        for document in yaml.safe_load_all(file):
            if document["kind"] == "PyTorchJob":
                job = document
            elif document["kind"] == "ConfigMap":
                core.create_namespaced_config_map(NAMESPACE, document)
            else:
                core.create_namespaced_persistent_volume_claim(NAMESPACE, document)
    # The client's own model refuses a job without one when it reads it back.
    job["spec"].setdefault("runPolicy", {})
    training_client.create_job(
        KubeflowOrgV1PyTorchJob(
            api_version=job["apiVersion"],
            kind=job["kind"],
            metadata=client.V1ObjectMeta(name=job["metadata"]["name"]),
            spec=job["spec"],
        )
    )
    training_client.wait_for_job_conditions("digits", job_kind="PyTorchJob", timeout=100, polling_interval=1)
    assert training_client.is_job_succeeded("digits", job_kind="PyTorchJob")
    say("TrainingClient: created, waited for, succeeded")
    logs, _ = training_client.get_job_logs("digits", job_kind="PyTorchJob")
    assert any("test_accuracy=" in log for log in logs.values()), logs
    say("TrainingClient: logs of " + ", ".join(sorted(logs)))
    names = sorted(training_client.get_job_pod_names("digits"))
    say("TrainingClient: pods " + ", ".join(names))


def main():
    config.load_kube_config()
    core = client.CoreV1Api()
    plain_objects(core)
    a_pod(core)
    training(core, sys.argv[1])
    dynamic_client(client.ApiClient())
    TrainingClient(namespace=NAMESPACE).delete_job("digits", job_kind="PyTorchJob")
    say("TrainingClient: deleted")


main()
