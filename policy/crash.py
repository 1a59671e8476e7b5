"""Crash points: named places where a test ends the process as `kill -9` would.

They do nothing unless the environment variable PAE_CRASH_AT names one: ``PAE_CRASH_AT=rollout:leased`` the first time
that place is reached, ``PAE_CRASH_AT=rollout:leased#3`` the third time. Workers that a process starts inherit it, and
count for themselves; where PAE_CRASH_MARK names a file, whoever crashes first makes it, and nobody crashes after that.
"""

import os
import signal
from collections import Counter
from pathlib import Path

VARIABLE = "PAE_CRASH_AT"
MARK = "PAE_CRASH_MARK"
_reached: Counter[str] = Counter()


def die() -> None:
    """End this process at once, with no clean-up of any kind."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash_point(name: str) -> None:
    """Die if this process was told to crash here."""
    wanted, _, number = os.environ.get(VARIABLE, "").partition("#")
    if wanted == name:
        _reached[name] += 1
        if _reached[name] == int(number or 1) and _is_first():
            die()


def _is_first() -> bool:
    mark = os.environ.get(MARK)
    if mark is None:
        return True
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
