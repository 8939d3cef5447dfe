"""Drives a cluster with Kubeflow's TrainerClient; prints one line for each thing that held."""

import logging
import os
import shutil
import sys

from kubeflow.trainer import CustomTrainer, TrainerClient
from kubeflow.trainer.options import Name

PROGRAMS = os.path.dirname(sys.executable)


def say(text):
    print(text, flush=True)


def count(steps):
    import os

    rank = os.environ.get("JAX_PROCESS_ID") or os.environ["RANK"]
    nodes = os.environ.get("JAX_NUM_PROCESSES") or os.environ["WORLD_SIZE"]
    for step in range(steps):
        print("rank", rank, "of", nodes, "step", step, flush=True)


def main():
    warnings = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("kubeflow.trainer").addHandler(listener)
    client = TrainerClient()
    assert warnings == [], warnings
    say("runtimes: " + ", ".join(sorted(runtime.name for runtime in client.list_runtimes())))
    torch = client.get_runtime("torch-distributed")
    assert torch.trainer.framework == "torch" and torch.trainer.num_nodes == 1, torch
    # The torch runtime starts torchrun, which this machine may not have.
    has_torch = shutil.which("torchrun", path=PROGRAMS) is not None
    runtime = torch if has_torch else client.get_runtime("jax-distributed")
    trainer = CustomTrainer(
        func=count,
        func_args={"steps": 2},
        num_nodes=2,
        resources_per_node={"cpu": "100m"},
        env={"PATH": PROGRAMS + os.pathsep + os.environ["PATH"]},
    )
    name = client.train(runtime=runtime, trainer=trainer, options=[Name("counting")])
    job = client.wait_for_job_status(name, timeout=90, polling_interval=1)
    say(f"{job.name}: {job.status}, {job.num_nodes} nodes")
    for step in sorted(job.steps, key=lambda step: step.name):
        say(f"step {step.name}: {step.status}")
        for line in client.get_job_logs(name, step=step.name, follow=False):
            if line.startswith("rank"):
                say(f"  {line}")
    assert [job.name for job in client.list_jobs()] == [name]
    assert isinstance(client.get_job_events(name), list)
    client.delete_job(name)
    assert client.list_jobs() == []
    say("deleted")


main()
