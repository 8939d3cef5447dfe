"""All-reduce of torch.distributed, timed on request: `all_reduce_torch.py FOLDER RANK SIZE BACKEND`.

Every rank reads lines `BYTES REPETITIONS` from its pipe FOLDER/RANK, so that it sleeps while others are measured.
Rank 0 answers with the median over the repetitions of the slowest rank's seconds, or `wrong`.
"""

import os
import statistics
import sys
import time

import torch
import torch.distributed as dist

WARM_UP = 3


def part(rank):
    """Moves ranks to different processors, from where they may move on: a busy machine wakes them on the same one."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[rank % len(allowed)]})
    os.sched_setaffinity(0, allowed)


def measure(count, repetitions, rank, size):
    part(rank)
    times = []
    data = torch.empty(count)
    for repetition in range(WARM_UP + repetitions):
        data.fill_(rank + 1)
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(data)
        if repetition >= WARM_UP:
            times.append(time.perf_counter() - began)
    right = bool((data == size * (size + 1) // 2).all())
    slowest = torch.tensor([*times, 0.0 if right else 1.0], dtype=torch.float64)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    *times, wrong = slowest.tolist()
    return None if wrong else statistics.median(times)


def main():
    folder, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group(sys.argv[4], init_method=f"file://{folder}/store", rank=rank, world_size=size)
    with open(f"{folder}/{rank}") as requests:
        for line in requests:
            size_in_bytes, repetitions = map(int, line.split())
            median = measure(size_in_bytes // 4, repetitions, rank, size)
            if rank == 0:
                print("wrong" if median is None else f"{median:.9f}", flush=True)


main()
