"""Data-parallel training with JAX by the processes of a JAXJob.

Each process has a part of the points; XLA adds the gradients up over all of them.
"""

import hashlib
import os
import sys

try:
    import jax
    import jax.numpy as jnp
    import numpy
    from jax.sharding import NamedSharding, PartitionSpec
except ImportError as missing:
    sys.exit(f"{missing}: this training needs JAX where its pods run; install it with `pip install jax`")


def loss(weights, x, y):
    return jnp.mean((x @ weights - y) ** 2)


def main():
    rank, ranks = int(os.environ["PROCESS_ID"]), int(os.environ["NUM_PROCESSES"])
    jax.distributed.initialize(
        coordinator_address=f"{os.environ['COORDINATOR_ADDRESS']}:{os.environ['COORDINATOR_PORT']}",
        num_processes=ranks,
        process_id=rank,
        # All is said; JAX would ask the Kubernetes API for the rest.
        cluster_detection_method="deactivate",
        initialization_timeout=120,
    )
    mesh = jax.make_mesh((jax.device_count(),), ("processes",))
    split = NamedSharding(mesh, PartitionSpec("processes"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    add = jax.jit(
        jax.shard_map(
            lambda part: jax.lax.psum(part, "processes"),
            mesh=mesh,
            in_specs=PartitionSpec("processes"),
            out_specs=PartitionSpec(),
        )
    )
    mine = numpy.full(jax.local_device_count(), rank + 1.0, numpy.float32)
    total = add(jax.make_array_from_process_local_data(split, mine))
    print(f"process {rank} of {ranks}: psum {float(total[0]):.1f}", flush=True)

    generator = numpy.random.default_rng(rank)
    x = generator.normal(size=(512, 8)).astype(numpy.float32)
    y = x @ numpy.arange(8, dtype=numpy.float32)
    x, y = (jax.make_array_from_process_local_data(split, part) for part in (x, y))
    weights = jax.device_put(numpy.zeros(8, numpy.float32), everywhere)
    step = jax.jit(lambda weights, x, y: weights - 0.1 * jax.grad(loss)(weights, x, y), out_shardings=everywhere)
    for _ in range(100):
        weights = step(weights, x, y)
    final = float(jax.jit(loss, out_shardings=everywhere)(weights, x, y))
    digest = hashlib.sha256(numpy.asarray(weights.addressable_data(0)).tobytes()).hexdigest()[:16]
    print(f"process {rank} of {ranks}: weights {digest}, loss {final:.6f}", flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
