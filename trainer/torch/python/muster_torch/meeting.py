"""How the ranks of a group find each other, through the store that torch gives them.

Ranks that see the same folder of the same machine share memory; where there are several such hosts, rank 0 listens and
tells the others where. The folder is made for one meeting and removed after it.
"""

import contextlib
import json
import os
import secrets
import socket
import stat
import tempfile
import time

from ._native import Group
from .errors import GroupFailed, TimedOut

FOLDER_VARIABLE = "MUSTER_TORCH_DIR"
ADDRESS_VARIABLE = "MUSTER_TORCH_ADDRESS"


def meet(store, rank, size, ranks, timeout, given_up=lambda: False):
    """Forms the group of `size` ranks, of which this is number `rank`; `ranks` are their numbers in the whole job.

    Ends early, with an exception, once `given_up()`.
    """
    board = _Board(store, ranks, timeout.total_seconds(), given_up)
    if rank == 0:
        store.set("secret", secrets.token_hex(16))
    secret = board.read("secret", 0)
    folder = _folder(secret)
    try:
        own = {"host": socket.gethostname(), "identity": _identity(folder)}
        store.set(f"host-{rank}", json.dumps(own))
        hosts = [json.loads(board.read(f"host-{other}", other)) for other in range(size)]
        address = None
        if len({host["identity"] for host in hosts}) > 1:
            address = _address(board, rank)
        return Group.connect(
            directory=folder,
            name="torch",
            rank=rank,
            world_size=size,
            host=own["host"],
            timeout=timeout.total_seconds(),
            ranks=ranks,
            address=address,
            token=secret.encode(),
        )
    finally:
        # The last to leave finds it empty.
        with contextlib.suppress(OSError):
            os.rmdir(folder)


class _Board:
    """What the ranks tell each other in the store.

    A store that waits lets nobody else use it meanwhile, and somebody else may have to before the awaited rank comes: so
    it is asked again and again.
    """

    def __init__(self, store, ranks, seconds, given_up):
        self.store = store
        self._ranks = ranks
        self._seconds = seconds
        self._given_up = given_up
        self._deadline = time.monotonic() + seconds

    def read(self, key, rank):
        """What the rank has written, once it has."""
        pause = 0.001
        while not self.store.check([key]):
            if self._given_up():
                raise GroupFailed("the group was given up before all its ranks had come")
            if time.monotonic() > self._deadline:
                lost = self._ranks[rank]
                raise TimedOut(f"rank {lost} did not come to its group within {self._seconds} s", lost)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return self.store.get(key).decode()


def _folder(secret):
    """The folder of one meeting, which no other user can write to."""
    parent = os.environ.get(FOLDER_VARIABLE) or tempfile.gettempdir()
    folder = os.path.join(parent, f"muster-torch-{secret}")
    # One that another rank has left is no longer needed by those who come late: it is made anew.
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else: let {FOLDER_VARIABLE} name another folder")
    return folder


def _identity(folder):
    """Equal for ranks that can share memory, and for nobody else."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    status = os.stat(folder)
    return f"{boot}:{status.st_dev}:{status.st_ino}"


def _address(board, rank):
    """Where rank 0 listens, as this rank reaches it."""
    server = _server(board.store)
    if rank == 0:
        own = os.environ.get(ADDRESS_VARIABLE) or _own_address(server)
        board.store.set("address", f"{own}:{_free_port()}")
    host, port = board.read("address", 0).rsplit(":", 1)
    if rank != 0 and server and _is_loopback(host):
        # Rank 0 serves the store itself, and knows only how it reaches itself.
        host = server[0]
    return f"{host}:{port}"


def _server(store):
    """Host and port of the server behind a store, if it has one."""
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    host, port = getattr(store, "host", None), getattr(store, "port", None)
    return (host, port) if host and port else None


def _own_address(server):
    """The address from which this machine reaches the store's server."""
    for host, port in filter(None, [server]):
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
                # Sends nothing.
                probe.connect(address)
                own = probe.getsockname()[0]
                return f"[{own}]" if family == socket.AF_INET6 else own
    return socket.gethostname()


def _is_loopback(host):
    return host.strip("[]") in ("::1", "localhost") or host.startswith("127.")


def _free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
