"""Messages between two ranks.

Collectives have one order for all ranks; messages have none but that of a sender, a receiver and a tag. So each such
three have a group of two of their own, formed at their first message, and no message waits for an unrelated one.
"""

import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

from torch.distributed import PrefixStore

from .errors import GroupFailed, TimedOut
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

    def leave(self):
        """Ends it. Messages that are under way are given up: who needs them waits for them before."""
        for lane in self._lanes.values():
            lane.leave()
        self._lanes.clear()

    def _lane(self, sender, receiver, tag):
        if sender == receiver:
            raise ValueError(f"rank {sender} cannot pass messages to itself")
        key = sender, receiver, tag
        if key not in self._lanes:
            store = PrefixStore(f"messages-{sender}-{receiver}-{tag}", self._store)
            ranks = [self._ranks[sender], self._ranks[receiver]]
            rank = 0 if self._rank == sender else 1
            self._lanes[key] = _Lane(lambda given_up: meet(store, rank, 2, ranks, self._timeout, given_up))
        return self._lanes[key]


class _Lane:
    """A sender's messages to a receiver, one after the other; the first waits for the other side to have one too."""

    def __init__(self, form):
        self._form = form
        self._group = None
        self._left = threading.Event()
        self._waiting = queue.SimpleQueue()
        # The interpreter does not wait for it as it ends, should it not end by itself.
        self._thread = threading.Thread(target=self._work, name="muster-messages", daemon=True)
        self._thread.start()

    def make(self, call):
        future = Future()
        self._waiting.put((call, future))
        return _Message(future)

    def leave(self):
        self._left.set()
        self._waiting.put(None)
        group = self._group
        if group is not None:
            if not group.is_idle():
                group.abort()
            group.close()
        # It asks the store several times a second. Only who waits in the rendezvous for a rank that has just died stays.
        self._thread.join(1)

    def _work(self):
        for call, future in iter(self._waiting.get, None):
            try:
                if self._left.is_set():
                    raise GroupFailed("the message was given up: its group was closed before")
                if self._group is None:
                    self._group = self._form(self._left.is_set)
                call(self._group).wait()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)


class _Message:
    """A ticket for a message."""

    def __init__(self, future):
        self._future = future

    def wait(self, longest=None):
        try:
            self._future.exception(longest)
        except NotYet:
            raise TimedOut(f"the message has not been passed after {longest} s; it is still on its way") from None
        self._future.result()

    def is_ended(self):
        return self._future.done()

    def exception(self):
        return self._future.exception() if self._future.done() else None

    def when_ended(self, listener):
        self._future.add_done_callback(lambda _: listener())
