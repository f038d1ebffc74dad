"""Progress of the worker, counted at each file and each step of a network.

A long training is no hang and a parser in an endless loop is one; both use the processor. The count
rises without a word in the code that works, and a thread tells the daemon when it has risen. A loop
that lets no other thread run tells nothing, which the daemon takes for the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

#: How often it is told that the count has risen.
TELL_SECONDS = 2.0
_STEPS = frozenset({"open", "sqlite3.connect"})


class WorkProgress:
    """A count that rises while the process gets on; `watch` begins once for the process."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, tell: Callable[[int], None]) -> None:
        """Count from now on, and tell what was counted whenever it has risen."""
        from torch.nn.modules.module import register_module_forward_pre_hook

        sys.addaudithook(self._heard)
        register_module_forward_pre_hook(self._stepped)
        threading.Thread(target=self._tell, args=(tell,), daemon=True, name="progress").start()

    def _heard(self, event: str, _arguments: object) -> None:
        if event in _STEPS:
            self.count += 1

    def _stepped(self, _module: object, _inputs: object) -> None:
        self.count += 1

    def _tell(self, tell: Callable[[int], None]) -> None:
        told, pause = 0, threading.Event()
        while True:
            pause.wait(TELL_SECONDS)
            if self.count != told:
                told = self.count
                tell(told)
