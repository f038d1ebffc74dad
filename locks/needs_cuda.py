"""Ends with 0 if the torch that is installed here is the build for GPUs, with 1 if it is not."""

import sys
from importlib.metadata import requires

needed = [line for line in requires("torch") or () if line.startswith(("nvidia-", "cuda-"))]
sys.exit(0 if needed and sys.platform == "linux" else 1)
