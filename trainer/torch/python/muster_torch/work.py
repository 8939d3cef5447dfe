"""A collective under way, as torch.distributed wants it."""

import threading
from datetime import timedelta

import torch
from torch.distributed import Work


class MusterWork(Work):
    """Waits for a ticket. `finish` puts results where the caller wants them, once, before anyone is told of the end."""

    def __init__(self, ticket, result, finish=None):
        Work.__init__(self)
        self._ticket = ticket
        self._result = result
        self._finish = finish
        self._finishes = finish is not None
        self._lock = threading.Lock()
        self._future = None

    def wait(self, timeout=timedelta(0)):
        longest = timeout.total_seconds() if timeout else None
        self._ticket.wait(longest)
        self._complete()
        return True

    def synchronize(self):
        self.wait()

    def is_completed(self):
        if not self._ticket.is_ended():
            return False
        if self._ticket.exception() is None:
            self._complete()
        return True

    def is_success(self):
        return self.is_completed() and self._ticket.exception() is None

    def exception(self):
        return self._ticket.exception()

    def result(self):
        self.wait()
        return self._result

    def get_future(self):
        with self._lock:
            future = self._future
            if future is not None:
                return future
            ended = torch.futures.Future()
            # What is raised in a continuation reaches waiters in C++ too, such as DDP's; `set_exception` does not.
            future = self._future = ended.then(lambda _: self.result())
        self._ticket.when_ended(lambda: ended.set_result(None))
        return future

    def _complete(self):
        if not self._finishes:
            return
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is not None:
                finish()
