"""Creates, waits for, reads and deletes a job of each kind with Kubeflow's TrainingClient; prints what held."""

from kubeflow.training import TrainingClient, models
from kubeflow.training.constants import constants
from kubernetes import client

# Kind, field of its spec, and replicas.
KINDS = [
    ("PyTorchJob", "PyTorch", "pytorch_replica_specs", {"Master": 1, "Worker": 1}),
    ("TFJob", "TF", "tf_replica_specs", {"Chief": 1, "PS": 1, "Worker": 1}),
    ("XGBoostJob", "XGBoost", "xgb_replica_specs", {"Master": 1, "Worker": 1}),
    ("JAXJob", "JAX", "jax_replica_specs", {"Worker": 2}),
    ("PaddleJob", "Paddle", "paddle_replica_specs", {"Worker": 2}),
]


def job_of(kind, framework, field, replicas):
    parameters = constants.JOB_PARAMETERS[kind]
    container = client.V1Container(
        name=parameters["container"], image="host", command=["sh", "-c", f"echo {framework} on $HOSTNAME"]
    )
    template = client.V1PodTemplateSpec(spec=client.V1PodSpec(containers=[container]))
    specs = {
        type_: models.KubeflowOrgV1ReplicaSpec(replicas=count, template=template, restart_policy="OnFailure")
        for type_, count in replicas.items()
    }
    spec = getattr(models, parameters["model"] + "Spec")(
        run_policy=models.KubeflowOrgV1RunPolicy(clean_pod_policy="None", backoff_limit=0), **{field: specs}
    )
    return getattr(models, parameters["model"])(
        api_version=constants.API_VERSION, kind=kind, metadata=client.V1ObjectMeta(name=kind.lower()), spec=spec
    )


def main():
    for kind, framework, field, replicas in KINDS:
        name = kind.lower()
        training = TrainingClient(namespace="default", job_kind=kind)
        training.create_job(job_of(kind, framework, field, replicas))
        training.wait_for_job_conditions(name, timeout=100, polling_interval=1)
        assert training.is_job_succeeded(name) and training.is_job_created(name) and not training.is_job_failed(name)
        read = training.get_job(name)
        assert type(read).__name__ == constants.JOB_PARAMETERS[kind]["model"], type(read)
        assert set(getattr(read.spec, field)) == set(replicas), read.spec
        assert [job.metadata.name for job in training.list_jobs()] == [name]
        pods = sorted(training.get_job_pod_names(name))
        leaders = training.get_job_pod_names(name, is_master=True)
        logs, _ = training.get_job_logs(name)
        assert logs == {pod: f"{framework} on {pod}\n" for pod in leaders}, logs
        print(f"{kind}: created, succeeded; pods {', '.join(pods)}; the leader's log read", flush=True)
        training.delete_job(name)
        assert training.list_jobs() == []


main()
