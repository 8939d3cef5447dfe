"""Gradient-boosted trees, trained by all replicas of an XGBoostJob as XGBoost itself offers it.

The master runs XGBoost's tracker, by which the ranks find each other, and is rank 0 itself. Every rank has a part of the
rows; what each learns of its part is added up, so that all of them end with the same trees.
"""

import hashlib
import os
import socket
import sys
import time

try:
    import numpy
    import xgboost
    from xgboost import collective
    from xgboost.tracker import RabitTracker
except ImportError as missing:
    sys.exit(f"{missing}: this training needs XGBoost where its pods run; install it with `pip install xgboost-cpu`")


def address_of(name, seconds=120):
    """The address behind a name, which is known once the pod behind it runs."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.gethostbyname(name)
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                sys.exit(f"{name} cannot be resolved after {seconds} s: {error}")
            time.sleep(0.1)


def rows(count, seed):
    """Points in a cube, and whether they are inside a wavy shell."""
    points = numpy.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(numpy.float32)
    radius = numpy.square(points).sum(axis=1)
    return points, (radius + 0.3 * numpy.sin(5 * points[:, 0]) > 1.3).astype(numpy.float32)


def main():
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = address_of(os.environ["MASTER_ADDR"]), int(os.environ["MASTER_PORT"])
    tracker = None
    if rank == 0:
        # Sorted by task, so that ranks are those of the pods.
        tracker = RabitTracker(n_workers=ranks, host_ip=address, port=port, sortby="task", timeout=120)
        tracker.start()
    where = {"dmlc_tracker_uri": address, "dmlc_tracker_port": port, "dmlc_task_id": f"{rank:06}"}
    with collective.CommunicatorContext(dmlc_retry=10, dmlc_timeout=60, **where):
        points, inside = rows(6_000, seed=1)
        own = xgboost.DMatrix(points[rank::ranks], inside[rank::ranks])
        options = {"objective": "binary:logistic", "max_depth": 5, "eta": 0.3, "nthread": 1, "seed": 7}
        model = xgboost.train(options, own, num_boost_round=40)
        digest = hashlib.sha256(model.save_raw("json")).hexdigest()[:16]
        points, inside = rows(2_000, seed=2)
        accuracy = float(((model.predict(xgboost.DMatrix(points)) > 0.5) == inside).mean())
        if collective.broadcast(digest, 0) != digest:
            sys.exit(f"rank {collective.get_rank()} has another model than rank 0")
        print(f"rank {collective.get_rank()} of {ranks}: model {digest}, test accuracy {accuracy:.4f}", flush=True)
    if tracker is not None:
        tracker.wait_for(60)


if __name__ == "__main__":
    main()
