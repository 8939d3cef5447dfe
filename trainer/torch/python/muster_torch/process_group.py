"""The process group that torch.distributed calls."""

import atexit
import collections
import weakref
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, ProcessGroup, Work

from . import tensors
from .meeting import meet
from .messages import Messages
from .work import MusterWork

_open_groups = weakref.WeakSet()
# How often a group of a name was formed: a store may remember the ones before, of which torch repeats the names.
_formed = collections.Counter()


@atexit.register
def _leave_all():
    """Ends what still runs before the interpreter does: nobody waits for it any more."""
    for group in list(_open_groups):
        group._leave(abort=not group._native.is_idle())


class MusterProcessGroup(ProcessGroup):
    """Collectives over shared memory inside a host and TCP between hosts."""

    def __init__(self, options):
        self._size = options.group_size
        self._rank = options.group_rank
        super().__init__(self._rank, self._size)
        # A group of its own knows its ranks in the whole job; the whole job has none.
        self._ranks = list(options.global_ranks_in_group) or list(range(self._size))
        self._name = str(options.group_id)
        _formed[self._name] += 1
        self._store = PrefixStore(f"muster-{_formed[self._name]}", options.store)
        self._timeout = options.timeout
        self._native = meet(self._store, self._rank, self._size, self._ranks, self._timeout)
        self._messages = Messages(self._store, self._rank, self._ranks, self._timeout)
        self._calls = 0
        _open_groups.add(self)

    # What the group is.

    def rank(self):
        return self._rank

    def size(self):
        return self._size

    def name(self):
        return "muster"

    def getBackendName(self):
        return "muster"

    def _get_backend_name(self):
        return "muster"

    # There is no backend below the group, and torch asks for one to learn what it can do.
    supports_coalescing = False
    supports_splitting = False

    def _get_backend(self, device):
        if torch.device(device).type != "cpu":
            raise RuntimeError(f"muster has no collectives for tensors on {device}")
        return self

    def get_group_store(self):
        return self._store

    @property
    def pg_name(self):
        return self._name

    @property
    def group_name(self):
        return self._name

    def setGroupName(self, name):
        self._name = name

    def _set_sequence_number_for_group(self):
        pass

    def _get_sequence_number_for_group(self):
        return self._calls

    def __repr__(self):
        return f"<muster group {self._name}: rank {self._rank} of {self._size}>"

    # How it ends.

    def shutdown(self):
        self._leave(abort=False)

    def abort(self):
        self._leave(abort=True)

    def _leave(self, abort):
        _open_groups.discard(self)
        self._messages.leave()
        if abort:
            self._native.abort()
        self._native.close()

    # Collectives.

    def allreduce(self, tensor_list, opts=None):
        opts = opts or dist.AllreduceOptions()
        held, finish = _writable(tensor_list)
        described = [tensors.described(tensor) for tensor in held]
        ticket = self._native.all_reduce(described, _operation(opts), held, _background(opts))
        return self._work(ticket, tensor_list, finish)

    def allreduce_coalesced(self, tensor_list, opts=None):
        return self.allreduce(tensor_list, opts)

    def reduce(self, tensor_list, opts):
        held, finish = _writable(tensor_list)
        described = tensors.described(held[0])
        ticket = self._native.reduce(described, _operation(opts), opts.rootRank, held, _background(opts))
        return self._work(ticket, tensor_list, finish)

    def broadcast(self, tensor_list, opts):
        held, finish = _writable(tensor_list)
        described = tensors.described(held[0])
        ticket = self._native.broadcast(described, opts.rootRank, held, _background(opts))
        return self._work(ticket, tensor_list, finish)

    def allgather(self, output_lists, input_list, opts=None):
        outputs, send = output_lists[0], tensors.to_read(input_list[0])
        whole, counts, bring = tensors.room(outputs)
        ticket = self._all_gather(whole, send, tensors.uneven(counts), opts)
        return self._work(ticket, output_lists, bring)

    def all_gather_single(self, output, input, opts=None):
        (whole,), finish = _writable([output])
        ticket = self._all_gather(whole, tensors.to_read(input), None, opts)
        return self._work(ticket, [output], finish)

    _allgather_base = all_gather_single

    def allgather_coalesced(self, output_lists, input_list, opts=None):
        # As torch defines it: `output_lists[rank][i]` is what that rank passes as `input_list[i]`.
        columns = [list(column) for column in zip(*output_lists)]
        return _All([self.allgather([column], [send], opts) for column, send in zip(columns, input_list)])

    def all_gather_single_coalesced(self, outputs, inputs, opts=None):
        return _All([self.all_gather_single(output, send, opts) for output, send in zip(outputs, inputs)])

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def _all_gather(self, whole, send, counts, opts):
        described = tensors.described(send), tensors.described(whole)
        return self._native.all_gather(*described, counts, [send, whole], _background(opts))

    def gather(self, output_lists, input_list, opts):
        send = tensors.to_read(input_list[0])
        whole, bring = tensors.nothing(send), None
        if self._rank == opts.rootRank:
            whole, counts, bring = tensors.room(output_lists[0])
            _check_even(counts, "gather")
        described = tensors.described(send), tensors.described(whole)
        ticket = self._native.gather(*described, opts.rootRank, [send, whole], _background(opts))
        return self._work(ticket, output_lists, bring)

    def scatter(self, output_list, input_lists, opts):
        (receive,), finish = _writable(output_list)
        send = tensors.nothing(receive)
        if self._rank == opts.rootRank:
            _check_even([part.numel() for part in input_lists[0]], "scatter")
            send = tensors.joined(input_lists[0])
        described = tensors.described(send), tensors.described(receive)
        ticket = self._native.scatter(*described, opts.rootRank, [send, receive], _background(opts))
        return self._work(ticket, output_list, finish)

    def reduce_scatter(self, output_list, input_lists, opts=None):
        parts = input_lists[0]
        counts = tensors.uneven([part.numel() for part in parts])
        return self._reduce_scatter(output_list[0], tensors.joined(parts), counts, opts)

    def reduce_scatter_single(self, output, input, opts=None):
        return self._reduce_scatter(output, tensors.to_read(input), None, opts)

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(self, outputs, inputs, opts=None):
        pairs = zip(outputs, inputs)
        return _All([self.reduce_scatter_single(output, send, opts) for output, send in pairs])

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def _reduce_scatter(self, output, send, counts, opts):
        (receive,), finish = _writable([output])
        described = tensors.described(send), tensors.described(receive)
        background = _background(opts)
        ticket = self._native.reduce_scatter(*described, counts, _operation(opts), [send, receive], background)
        return self._work(ticket, [output], finish)

    def all_to_all_single(self, output, input, output_split_sizes, input_split_sizes, opts=None):
        (receive,), finish = _writable([output])
        send = tensors.to_read(input)
        counts = None
        if output_split_sizes or input_split_sizes:
            to = self._split(input_split_sizes, send)
            counts = to, self._split(output_split_sizes, receive)
        ticket = self._all_to_all(receive, send, counts, opts)
        return self._work(ticket, [output], finish)

    alltoall_base = all_to_all_single

    def alltoall(self, output_list, input_list, opts=None):
        send = tensors.joined(input_list)
        whole, received, bring = tensors.room(output_list)
        sent = [part.numel() for part in input_list]
        ticket = self._all_to_all(whole, send, (sent, received), opts)
        return self._work(ticket, output_list, bring)

    def _all_to_all(self, receive, send, counts, opts):
        described = tensors.described(send), tensors.described(receive)
        return self._native.all_to_all(*described, counts, [send, receive], _background(opts))

    def _split(self, rows, tensor):
        """How many elements belong to each rank, of which `rows` are rows of the tensor."""
        if not rows:
            return [tensor.numel() // self._size] * self._size
        row = tensor.numel() // tensor.size(0) if tensor.size(0) else 0
        return [count * row for count in rows]

    def barrier(self, opts=None):
        return self._work(self._native.barrier(None, _background(opts)), [], None)

    # Messages.

    def send(self, tensor_list, destination, tag=0):
        tensor = tensors.to_read(tensor_list[0])
        return MusterWork(self._messages.send(tensor, destination, tag), tensor_list)

    def recv(self, tensor_list, source, tag=0):
        (tensor,), finish = _writable(tensor_list)
        return MusterWork(self._messages.receive(tensor, source, tag), tensor_list, finish)

    def recv_anysource(self, tensor_list, tag=0):
        raise NotImplementedError("muster receives from a rank that the program names: pass src to recv")

    def _work(self, ticket, result, finish):
        self._calls += 1
        return MusterWork(ticket, result, finish)


class _All(Work):
    """Several collectives as one."""

    def __init__(self, works):
        super().__init__()
        self._works = works

    def wait(self, timeout=timedelta(0)):
        for work in self._works:
            work.wait(timeout)
        return True

    def is_completed(self):
        return all(work.is_completed() for work in self._works)

    def is_success(self):
        return all(work.is_success() for work in self._works)

    def exception(self):
        return next(filter(None, (work.exception() for work in self._works)), None)

    def get_future(self):
        # They are made in order.
        return self._works[-1].get_future()


def _writable(tensor_list):
    """Contiguous tensors to write to, and what brings the results to the given ones, where these are others."""
    held, returns = [], []
    for tensor in tensor_list:
        writable, bring = tensors.to_write(tensor)
        held.append(writable)
        if bring is not None:
            returns.append(bring)
    if not returns:
        return held, None

    def finish():
        for bring in returns:
            bring()

    return held, finish


# Torch looks a name up by going through all of them.
_operation_names = {}


def _operation(opts):
    if opts is None:
        return "SUM"
    operation = opts.reduceOp
    operation = getattr(operation, "op", operation)
    name = _operation_names.get(operation)
    if name is None:
        name = _operation_names[operation] = operation.name
    return name


def _background(opts):
    """Whether the caller goes on before the collective has ended; older versions of torch do not say."""
    return getattr(opts, "asyncOp", True)


def _check_even(counts, purpose):
    if tensors.uneven(counts):
        raise ValueError(f"{purpose} moves tensors of one size, not of {counts} elements")
