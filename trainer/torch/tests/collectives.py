"""Every collective against what torch says it does: `python collectives.py`, as `cargo xtask bars trainer` runs it.

The tests run in the ranks of one group, which this program starts: some as one host, some as two.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

RANK = int(os.environ.get("RANK", "-1"))
SIZE = int(os.environ.get("WORLD_SIZE", "0"))
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int8, torch.uint8]
REDUCTIONS = {
    dist.ReduceOp.SUM: lambda all_: all_.sum(0),
    dist.ReduceOp.PRODUCT: lambda all_: all_.prod(0),
    dist.ReduceOp.MIN: lambda all_: all_.amin(0),
    dist.ReduceOp.MAX: lambda all_: all_.amax(0),
}


def filled(rank, shape=(3, 5), dtype=torch.float32):
    count = torch.Size(shape).numel()
    return ((torch.arange(count) + rank) % 4 + 1).reshape(shape).to(dtype)


def of_all(shape=(3, 5), dtype=torch.float32):
    return torch.stack([filled(rank, shape, dtype) for rank in range(SIZE)])


class Collectives(unittest.TestCase):
    def same(self, got, expected):
        self.assertTrue(torch.equal(got, expected.to(got.dtype)), f"rank {RANK}: {got} is not {expected}")

    def test_all_reduce_of_every_type(self):
        for dtype in FLOATS + INTEGERS:
            for operation, expected in REDUCTIONS.items():
                with self.subTest(dtype=dtype, operation=operation):
                    data = filled(RANK, dtype=dtype)
                    dist.all_reduce(data, operation)
                    self.same(data, expected(of_all(dtype=torch.float64)))
        for dtype in FLOATS:
            data = filled(RANK, dtype=dtype) * SIZE
            dist.all_reduce(data, dist.ReduceOp.AVG)
            self.same(data, of_all().sum(0))

    def test_all_reduce_of_bits_and_truth_values(self):
        whole = of_all(dtype=torch.int32)
        for operation, combine in [
            (dist.ReduceOp.BAND, torch.bitwise_and),
            (dist.ReduceOp.BOR, torch.bitwise_or),
            (dist.ReduceOp.BXOR, torch.bitwise_xor),
        ]:
            data, expected = whole[RANK].clone(), whole[0]
            for other in whole[1:]:
                expected = combine(expected, other)
            dist.all_reduce(data, operation)
            self.same(data, expected)
        truth = torch.tensor([RANK == 0, True, False])
        dist.all_reduce(truth)
        self.assertEqual(truth.tolist(), [True, True, False])

    def test_what_is_not_contiguous_is_brought_back(self):
        data = filled(RANK).t()
        dist.all_reduce(data)
        self.same(data, of_all().sum(0).t())
        output = torch.zeros(SIZE * 5, 3).t().reshape(3, -1)[:, : SIZE * 3].t()
        dist.all_gather_into_tensor(output, filled(RANK, (3, 3)).t())
        self.same(output, torch.cat([filled(rank, (3, 3)).t() for rank in range(SIZE)]))

    def test_wrong_requests_hurt_nobody(self):
        with self.assertRaisesRegex(ValueError, "BXOR does not reduce elements of torch.float32"):
            dist.all_reduce(filled(RANK), dist.ReduceOp.BXOR)
        with self.assertRaisesRegex(ValueError, "SUM does not reduce elements of torch.int16"):
            dist.all_reduce(filled(RANK, dtype=torch.int16))
        with self.assertRaises(ValueError):
            dist.all_reduce(torch.empty(3, device="meta"))
        dist.barrier()

    def test_broadcast_moves_any_type(self):
        for dtype in [torch.float32, torch.bool, torch.complex64, torch.int16, torch.float8_e4m3fn]:
            with self.subTest(dtype=dtype):
                data = filled(RANK).to(dtype)
                dist.broadcast(data, SIZE - 1)
                expected = filled(SIZE - 1).to(dtype)
                self.assertEqual(data.view(torch.uint8).tolist(), expected.view(torch.uint8).tolist())

    def test_all_gather(self):
        outputs = [torch.empty(3, 5) for _ in range(SIZE)]
        dist.all_gather(outputs, filled(RANK))
        self.same(torch.stack(outputs), of_all())
        uneven = [torch.empty(rank + 1) for rank in range(SIZE)]
        dist.all_gather(uneven, filled(RANK, (RANK + 1,)))
        for rank, output in enumerate(uneven):
            self.same(output, filled(rank, (rank + 1,)))
        whole = torch.empty(SIZE * 3, 5)
        # A part of the whole is sent in place, as FSDP does.
        part = whole[RANK * 3 : RANK * 3 + 3]
        part.copy_(filled(RANK))
        dist.all_gather_into_tensor(whole, part)
        self.same(whole, of_all().reshape(-1, 5))
        objects = [None] * SIZE
        dist.all_gather_object(objects, {"rank": RANK})
        self.assertEqual(objects, [{"rank": rank} for rank in range(SIZE)])

    def test_reduce_scatter(self):
        output = torch.empty(3, 5)
        dist.reduce_scatter(output, [filled(RANK + part) for part in range(SIZE)])
        expected = sum(filled(rank + RANK) for rank in range(SIZE))
        self.same(output, expected)
        whole = torch.cat([filled(RANK + part) for part in range(SIZE)])
        dist.reduce_scatter_tensor(output, whole, dist.ReduceOp.AVG)
        torch.testing.assert_close(output, expected / SIZE)
        uneven = torch.empty(RANK + 1)
        dist.reduce_scatter(uneven, [torch.full((part + 1,), float(RANK)) for part in range(SIZE)])
        self.same(uneven, torch.full((RANK + 1,), float(sum(range(SIZE)))))

    def test_reduce_gather_and_scatter(self):
        data = filled(RANK)
        dist.reduce(data, 1, dist.ReduceOp.MAX)
        self.same(data, of_all().amax(0) if RANK == 1 else filled(RANK))
        outputs = [torch.empty(3, 5) for _ in range(SIZE)] if RANK == 1 else None
        dist.gather(filled(RANK), outputs, 1)
        if RANK == 1:
            self.same(torch.stack(outputs), of_all())
        received = torch.empty(3, 5)
        dist.scatter(received, list(of_all()) if RANK == 0 else None, 0)
        self.same(received, filled(RANK))
        objects = [None]
        dist.scatter_object_list(objects, list("abcdefgh"[:SIZE]) if RANK == 0 else None, 0)
        self.assertEqual(objects, ["abcdefgh"[RANK]])

    def test_all_to_all(self):
        outputs = [torch.empty(2) for _ in range(SIZE)]
        dist.all_to_all(outputs, [torch.full((2,), 10.0 * RANK + to) for to in range(SIZE)])
        self.same(torch.stack(outputs)[:, 0], torch.tensor([10.0 * source + RANK for source in range(SIZE)]))
        output = torch.empty(SIZE, 2)
        dist.all_to_all_single(output, torch.full((SIZE, 2), float(RANK)))
        self.same(output[:, 1], torch.arange(SIZE))
        # Rank r sends r + 1 rows to everybody.
        rows = [source + 1 for source in range(SIZE)]
        output = torch.empty(sum(rows), 2)
        sent = torch.full((SIZE * (RANK + 1), 2), float(RANK))
        dist.all_to_all_single(output, sent, rows, [RANK + 1] * SIZE)
        self.same(output[:, 0], torch.cat([torch.full((count,), float(at)) for at, count in enumerate(rows)]))

    def test_messages_in_any_order(self):
        long = 3 << 20
        following, before = (RANK + 1) % SIZE, (RANK - 1) % SIZE
        received = [torch.empty(long), torch.empty(2, 2).t()]
        works = [
            dist.irecv(received[1], before, tag=7),
            dist.isend(torch.full((long,), float(RANK)), following),
            dist.irecv(received[0], before),
            dist.isend(filled(RANK, (2, 2)), following, tag=7),
        ]
        for work in works:
            work.wait(timedelta(seconds=60))
        self.same(received[0], torch.full((long,), float(before)))
        self.same(received[1], filled(before, (2, 2)))
        data = torch.empty(3)
        both = [
            dist.P2POp(dist.isend, torch.full((3,), float(RANK)), following),
            dist.P2POp(dist.irecv, data, before),
        ]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        self.same(data, torch.full((3,), float(before)))

    def test_work_in_the_background(self):
        tensors = [filled(RANK, (1000,)) for _ in range(20)]
        works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
        future = works[10].get_future().then(lambda done: done.value()[0] / SIZE)
        torch.testing.assert_close(future.wait(), of_all((1000,)).sum(0) / SIZE)
        for work, tensor in zip(works, tensors):
            self.assertTrue(work.wait())
            self.assertTrue(work.is_completed() and work.is_success())
            self.same(tensor, of_all((1000,)).sum(0))
        self.same(works[3].get_future().wait()[0], tensors[3])

    def test_work_that_nobody_waits_for(self):
        group = dist.new_group()
        for _ in range(20):
            dist.all_reduce(torch.ones(10_000), group=group, async_op=True)
        dist.irecv(torch.empty(3), (RANK + 1) % SIZE, tag=99)
        dist.destroy_process_group(group)
        dist.barrier()

    def test_coalesced(self):
        tensors = [filled(RANK, (size,)) for size in (1, 7, 100)]
        with dist._coalescing_manager():
            for tensor in tensors:
                dist.all_reduce(tensor)
        for tensor in tensors:
            self.same(tensor, of_all(tensor.shape).sum(0))

    def test_groups_of_some_ranks(self):
        odd, even = (dist.new_group(list(range(start, SIZE, 2))) for start in (1, 0))
        mine = odd if RANK % 2 else even
        data = filled(RANK)
        dist.all_reduce(data, group=mine)
        self.same(data, of_all()[RANK % 2 :: 2].sum(0))
        dist.broadcast(data, RANK % 2, group=mine)
        dist.destroy_process_group(mine)
        self.assertEqual(dist.get_backend(), "muster")

    def test_data_parallel_models_stay_equal(self):
        torch.manual_seed(RANK)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            parallel(torch.randn(4, 8)).square().mean().backward()
            optimizer.step()
        own = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        everyone = [torch.empty_like(own) for _ in range(SIZE)]
        dist.all_gather(everyone, own)
        for other in everyone:
            self.same(other, own)

    def test_fully_sharded_models_learn_as_whole_ones(self):
        def learnt(shard):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
            if shard:
                fully_shard(model, mesh=init_device_mesh("cpu", (SIZE,)))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(5):
                optimizer.zero_grad()
                model(torch.sin(torch.arange(32.0) + step).view(4, 8)).square().mean().backward()
                optimizer.step()
            return [getattr(p, "full_tensor", lambda p=p: p)() for p in model.parameters()]

        for sharded, whole in zip(learnt(True), learnt(False)):
            torch.testing.assert_close(sharded, whole)


def lose_a_rank():
    """The last rank is killed while the others are in a collective; each must say so, and at once."""
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 8))
    dist.barrier()
    if RANK == SIZE - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    began = time.monotonic()
    try:
        while True:
            dist.all_reduce(torch.ones(1000))
    except dist.DistBackendError as error:
        took = time.monotonic() - began
        assert type(error).__name__ == "PeerLost" and error.rank == SIZE - 1, repr(error)
        assert f"lost rank {SIZE - 1} on " in str(error), error
        # DDP waits for gradients in C++, which keeps the words but not the class.
        try:
            model(torch.ones(1, 8)).sum().backward()
        except RuntimeError as later:
            assert f"lost rank {SIZE - 1} on " in str(later), later
        else:
            raise AssertionError("the gradients of a failed group are no gradients")
        print(f"rank {RANK} knew after {took:.3f} s: {error}", file=sys.stderr)


def main():
    dist.init_process_group("muster", timeout=timedelta(seconds=60))
    if sys.argv[1] == "lose-a-rank":
        lose_a_rank()
        dist.distributed_c10d._abort_process_group()
        return
    outcome = unittest.main(argv=sys.argv[:1], exit=False, verbosity=2 if RANK == 0 else 0).result
    dist.destroy_process_group()
    sys.exit(not outcome.wasSuccessful())


def start(what, hosts):
    """Starts a rank for each entry of `hosts`, on the pretended host that it names; gives their exit codes."""
    with tempfile.TemporaryDirectory() as folder:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        ranks = []
        for rank, host in enumerate(hosts):
            os.makedirs(f"{folder}/{host}", exist_ok=True)
            environment = {
                "RANK": str(rank),
                "WORLD_SIZE": str(len(hosts)),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                # As torchrun says that it serves the store.
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "OMP_NUM_THREADS": "1",
                "MUSTER_TORCH_DIR": f"{folder}/{host}",
            }
            ranks.append(subprocess.Popen([sys.executable, __file__, what], env={**os.environ, **environment}))
        codes = [rank.wait(300) for rank in ranks]
        left = [entry for host in os.listdir(folder) for entry in os.listdir(f"{folder}/{host}")]
        assert not left, f"left behind: {left}"
        return codes


if __name__ == "__main__":
    if RANK >= 0:
        main()
        sys.exit()
    for layout in ([0, 0], [0, 0, 0], [0, 0, 1]):
        assert start("test", layout) == [0] * len(layout), f"the tests failed on hosts {layout}"
        assert start("lose-a-rank", layout) == [0] * (len(layout) - 1) + [-signal.SIGKILL], layout
    print("all collectives hold")
