"""Times training steps of a small GPT under PyTorch's DDP over gloo: `torchrun ddp_step_torch.py STEPS`.

The model, the data and the optimizer are those of the example gpt_step of Muster's trainer runtime: 4 blocks of width
256 and 3.7 million parameters, a batch of 8 sequences of 128 tokens a rank, AdamW.
"""

import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

BATCH, CONTEXT, VOCABULARY = 8, 128, 1024
WIDTH, DEPTH, HEADS = 256, 4, 4


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside the residual stream."""

    def __init__(self):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        normal = self.attention_norm(x)
        split = lambda x: x.view(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)
        queries, keys, values = (split(layer(normal)) for layer in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.output(seen.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def batch(step, rank, ranks):
    places = torch.arange(BATCH * CONTEXT + 1) + (step * ranks + rank) * 977
    tokens = places * 7919 % 8191 % VOCABULARY
    return tokens[:-1].view(BATCH, CONTEXT), tokens[1:]


def main():
    steps = int(sys.argv[1])
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(Gpt(), gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01, fused=True)
    times, losses = [], []
    for step in range(steps):
        tokens, labels = batch(step, rank, ranks)
        began = time.perf_counter()
        loss = F.cross_entropy(model(tokens).view(-1, VOCABULARY), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append((time.perf_counter() - began) * 1e3)
    if rank == 0:
        print(
            f"ranks={ranks} min_ms={min(times):.1f} median_ms={statistics.median(times):.1f} "
            f"loss={losses[0]:.4f}->{losses[-1]:.4f}",
            flush=True,
        )
    dist.destroy_process_group()


main()
