"""Tensors on their way to the native module and back."""

import torch

_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.bool: "bool",
}

_STRIDED = torch.strided


def described(tensor):
    """A contiguous tensor as the native module takes it; whoever passes it on must hold the tensor."""
    dtype = tensor.dtype
    name = _NAMES.get(dtype)
    if name is None:
        name = str(dtype).removeprefix("torch.")
    return tensor.data_ptr(), tensor.numel(), name, tensor.element_size()


def check(tensor):
    """Refuses what has no memory of its own on the CPU."""
    if not tensor.is_cpu:
        raise ValueError(f"muster moves tensors on the CPU, not on {tensor.device}: pass tensor.cpu()")
    if tensor.layout is not _STRIDED:
        raise ValueError(f"muster moves dense tensors, not {tensor.layout}: pass tensor.to_dense()")


def to_read(tensor):
    """The tensor, or a contiguous copy of it."""
    check(tensor)
    return tensor.contiguous()


def to_write(tensor):
    """A contiguous tensor with the same content, and what brings results back if it is a copy."""
    check(tensor)
    if tensor.is_contiguous():
        return tensor, None
    copy = tensor.contiguous()
    return copy, lambda: tensor.detach().copy_(copy)


def joined(parts):
    """One tensor with the elements of all, in order."""
    for part in parts:
        check(part)
    return torch.cat([part.detach().reshape(-1) for part in parts])


def room(parts):
    """An empty tensor with room for the elements of all, and what brings them there."""
    for part in parts:
        check(part)
    counts = [part.numel() for part in parts]
    whole = torch.empty(sum(counts), dtype=parts[0].dtype)

    def bring():
        for part, piece in zip(parts, whole.split(counts)):
            part.detach().copy_(piece.view(part.shape))

    return whole, counts, bring


def nothing(like):
    """A tensor without elements of the same type."""
    return torch.empty(0, dtype=like.dtype)


def uneven(counts):
    """The counts, unless they are all alike."""
    return None if len(set(counts)) <= 1 else counts
