"""Muster's collectives as a backend of torch.distributed.

    import torch.distributed as dist
    import muster_torch  # not needed with torch 2.5 and later, which loads it by itself

    dist.init_process_group("muster")
"""

from .errors import GroupFailed, PeerLost, TimedOut

__all__ = ["GroupFailed", "PeerLost", "TimedOut", "register"]

NAME = "muster"


def _create(options, _backend_options=None):
    # Not at the top: what takes part in no group needs none of it, and torch may still be loading.
    from .process_group import MusterProcessGroup

    return MusterProcessGroup(options)


def register():
    """Makes "muster" a backend of torch.distributed. Importing this package does it; again does nothing."""
    import torch.distributed as dist

    if dist.is_available() and not hasattr(dist.Backend, NAME.upper()):
        dist.Backend.register_backend(NAME, _create, extended_api=True, devices=["cpu"])


def autoload():
    """What torch calls as it is imported; importing this package has done it all."""


register()
