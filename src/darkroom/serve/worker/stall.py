"""Whether an engine that has work gets on with it: one that hangs ends its process, and its jobs go to another."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time

log = logging.getLogger(__name__)

_TIMES = 10
"""Of the longest step so far, after which one is taken for hanging, if that is more than what the setting says."""
STATUS = 70
"""Of a process that ended itself so (EX_SOFTWARE)."""


class Stall:
    """Watches the steps of an engine: `least` seconds without one, while there is work, are a hang."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._moved = time.monotonic()
        self._longest = 0.0

    def moved(self) -> None:
        """It made a step; from any thread."""
        here = time.monotonic()
        self._longest = max(self._longest, here - self._moved)
        self._moved = here

    def look(self, working: bool) -> None:
        """Ends the process where the engine is at work and has made no step for too long; says first where each thread
        is."""
        here = time.monotonic()
        if not working:
            self._moved = here
        elif here - self._moved > max(self._least, _TIMES * self._longest):
            give_up(f"the engine has made no step for {here - self._moved:.0f} s")


def give_up(why: str) -> None:
    """End the process at once, as if it had been killed, after saying why, and where each thread is. A job that does
    this to worker after worker is known by it (`darkroom.serve.claims`)."""
    log.critical("%s: this worker ends", why)
    faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    logging.shutdown()
    os._exit(STATUS)
