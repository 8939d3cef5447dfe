"""What collectives raise."""

from torch.distributed import DistBackendError


class GroupFailed(DistBackendError):
    """The group has ended: every later call on it fails too. `rank` is whom to blame, or None."""

    def __init__(self, message, rank=None):
        super().__init__(message)
        self.rank = rank


class PeerLost(GroupFailed):
    """A rank is gone."""


class TimedOut(GroupFailed):
    """Ranks did not come in time, or a wait was shorter than what it waited for."""


def of_failure(kind, message, rank):
    """The exception for a failure as the native module describes it."""
    if kind == "invalid":
        return ValueError(message)
    classes = {"peer_lost": PeerLost, "timeout": TimedOut}
    return classes.get(kind, GroupFailed)(message, rank)
