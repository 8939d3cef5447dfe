"""Runs an MPIJob of kubeflow.org/v1 with Kubeflow's TrainingClient; prints one line for each thing that held."""

import json
import sys

from kubeflow.training import KubeflowOrgV1MPIJob, TrainingClient
from kubernetes import client, config

config.load_kube_config()
with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
training = TrainingClient(namespace="default", job_kind="MPIJob")
training.create_job(
    KubeflowOrgV1MPIJob(
        api_version=job["apiVersion"],
        kind=job["kind"],
        metadata=client.V1ObjectMeta(name=job["metadata"]["name"], annotations=job["metadata"].get("annotations")),
        spec=job["spec"],
    )
)
training.wait_for_job_conditions("sdk", timeout=100, polling_interval=1)
assert training.is_job_succeeded("sdk")
print("created, waited for, succeeded", flush=True)
logs, _ = training.get_job_logs("sdk", is_master=True)
lines = sorted(line for log in logs.values() for line in log.splitlines())
print("the launcher printed " + ", ".join(lines), flush=True)
names = sorted(training.get_job_pod_names("sdk", replica_type="worker"))
print("workers " + ", ".join(names), flush=True)
training.delete_job("sdk")
print("deleted", flush=True)
