"""Data-parallel training as it is usually written; the variable BACKEND names what carries the gradients.

Every rank learns from its share of the points of a noisy curve. Rank 0 prints the mean loss of each epoch. Where the
variable SNAPSHOT names a file, an epoch that is done is kept there, and a training that starts again goes on after it.
"""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def points(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 4, generator=generator) * 6 - 3
    noise = torch.randn(count, 1, generator=generator) * 0.05
    return TensorDataset(x, torch.sin(x).sum(1, keepdim=True) + noise)


def load(snapshot, model, optimizer):
    """Takes over what was kept; the first epoch that is still to be done."""
    if not snapshot or not os.path.exists(snapshot):
        return 0
    kept = torch.load(snapshot, weights_only=True)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    return kept["epoch"] + 1


def save(snapshot, model, optimizer, epoch):
    """Keeps an epoch: the whole new file or, after a crash, the whole old one."""
    kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    torch.save(kept, snapshot + ".new")
    os.replace(snapshot + ".new", snapshot)


def main():
    dist.init_process_group(os.environ.get("BACKEND", "gloo"))
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = points(8192)
    sampler = DistributedSampler(data, num_replicas=ranks, rank=rank, seed=2)
    snapshot = os.environ.get("SNAPSHOT")
    # All ranks have it before rank 0 can end an epoch and keep another: they add up their gradients first.
    for epoch in range(load(snapshot, model, optimizer), int(os.environ.get("EPOCHS", "5"))):
        sampler.set_epoch(epoch)
        total = torch.zeros(1)
        batches = DataLoader(data, batch_size=64, sampler=sampler)
        for x, y in batches:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch} on {ranks} ranks: loss {total.item() / len(batches) / ranks:.6f}", flush=True)
            if snapshot:
                save(snapshot, model, optimizer, epoch)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
