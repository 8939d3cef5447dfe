"""Starts a script as torchrun does, or says what is missing: `launch.py SCRIPT [ARGUMENT...]`.

How many processes, and where they meet, torchrun reads from the variables PET_* that every PyTorchJob has.
"""

import sys

try:
    from torch.distributed.run import main
except ImportError as missing:
    sys.exit(f"{missing}: this training needs PyTorch where its pods run; install it with `pip install torch`")

main()
