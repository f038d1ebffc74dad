"""Start of the commands: nothing of ours is imported from PYTHONPATH or from a user's own packages.

A folder in PYTHONPATH that has a client.py, a server.py or a numpy.py would be taken for ours, by
a command and by what it starts. So a command begins itself anew where Python takes modules from
its own environment alone (`python -I`), before it imports anything.
"""

import os
import sys


def site() -> None:
    """Be `wardround-site`."""
    _apart()
    from client.cli.app import main

    main()


def coordinator() -> None:
    """Be `wardround-coordinator`."""
    _apart()
    from server.cli.app import main

    main()


def simulate() -> None:
    """Be `wardround-simulate`."""
    _apart()
    from simulations.cli.app import main

    main()


def _apart() -> None:
    """Begin anew without PYTHONPATH, for this process and what it starts, where there is one."""
    if os.environ.pop("PYTHONPATH", "") and not sys.flags.ignore_environment:
        os.execv(sys.executable, [sys.executable, "-I", *sys.orig_argv[1:]])  # noqa: S606 - ours
