"""Many light sites: a process each, which share what the first has loaded.

python benchmarks/light_sites.py HOME ...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from random_site import main

from client.site.home import Home


def _serve(homes: list[Home]) -> None:
    torch.set_num_threads(1)
    pids = []
    for home in homes:
        pid = os.fork()
        if pid == 0:
            try:
                main(home)
            finally:
                os._exit(0)
        pids.append(pid)
    signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in pids])
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve([Home(Path(argument)) for argument in sys.argv[1:]])
