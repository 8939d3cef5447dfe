"""Messages between two ranks.

Collectives have one order for all ranks; messages have none but that of a sender, a receiver and a tag. So each such
three have a group of two of their own, formed at their first message, and no message waits for an unrelated one.
"""

from concurrent.futures import ThreadPoolExecutor

from torch.distributed import PrefixStore

from .errors import TimedOut
from .meeting import meet
from .tensors import described


class Messages:
    """The messages of one rank in a group whose ranks are `ranks` in the whole job."""

    def __init__(self, store, rank, ranks, timeout):
        self._store = store
        self._rank = rank
        self._ranks = ranks
        self._timeout = timeout
        self._lanes = {}

    def send(self, tensor, destination, tag):
        lane = self._lane(self._rank, destination, tag)
        return lane.make(lambda group: group.send(described(tensor), 1, tensor))

    def receive(self, tensor, source, tag):
        lane = self._lane(source, self._rank, tag)
        return lane.make(lambda group: group.receive(described(tensor), 0, tensor))

    def leave(self, abort):
        for lane in self._lanes.values():
            lane.leave(abort)
        self._lanes.clear()

    def _lane(self, sender, receiver, tag):
        if sender == receiver:
            raise ValueError(f"rank {sender} cannot pass messages to itself")
        key = sender, receiver, tag
        if key not in self._lanes:
            store = PrefixStore(f"messages-{sender}-{receiver}-{tag}", self._store)
            ranks = [self._ranks[sender], self._ranks[receiver]]
            rank = 0 if self._rank == sender else 1
            self._lanes[key] = _Lane(lambda: meet(store, rank, 2, ranks, self._timeout))
        return self._lanes[key]


class _Lane:
    """A sender's messages to a receiver, one after the other; the first waits for the other side to have one too."""

    def __init__(self, form):
        self._form = form
        self._group = None
        self._thread = ThreadPoolExecutor(1, "muster-messages")

    def make(self, call):
        return _Message(self._thread.submit(self._make, call))

    def _make(self, call):
        if self._group is None:
            self._group = self._form()
        call(self._group).wait()

    def leave(self, abort):
        if abort and self._group is not None:
            self._group.abort()
        self._thread.shutdown(wait=not abort, cancel_futures=abort)
        if self._group is not None and not abort:
            self._group.close()


class _Message:
    """A ticket for a message."""

    def __init__(self, future):
        self._future = future

    def wait(self, longest=None):
        try:
            self._future.result(longest)
        except TimeoutError:
            raise TimedOut(f"the message has not been passed after {longest} s; it still is on its way") from None

    def is_ended(self):
        return self._future.done()

    def exception(self):
        return self._future.exception() if self._future.done() else None

    def when_ended(self, listener):
        self._future.add_done_callback(lambda _: listener())
