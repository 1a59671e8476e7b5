"""Does the page get what the agent meant? The torture site's cases (bench/torture.py), each by the page's own state.

Every case is played on marks; those whose elements are still where they were seen are played again at points.

- passed: cases that ended as they must: the page's state, what the agent was told, how its action went;
- cases: all of them.

    python -m bench.browser_faithful --seed 0
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.torture import CASES, FILE_TEXT, Case, play, settings
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserError
from policy.trajectory import ActionSpace, Effect


def cases_in(space: ActionSpace) -> list[tuple[str, Case]]:
    """The cases that can be played in an action space, each with the name of its group."""
    named = [(group, case) for group, cases in CASES.items() for case in cases]
    return named if space is ActionSpace.FULL else [(group, case) for group, case in named if _fits_points(case)]


def _fits_points(case: Case) -> bool:
    """Whether it makes sense at points: whoever points at a place means what is there, not what was."""
    return case.effect is Effect.DONE and not any(deed.stale for deed in case.deeds) and not case.marks_only


async def run(folder: Path, only: str) -> dict[str, int]:
    """Play every case whose name holds `only`; the figures."""
    figures = {"passed": 0, "cases": 0}
    file = folder / "list.txt"
    file.write_text(FILE_TEXT)
    for space in (ActionSpace.FULL, ActionSpace.POINTS):
        async with Browser(settings(space, str(file)), BlobStore(folder)) as browser:
            for group, case in cases_in(space):
                if only not in case.name:
                    continue
                try:
                    wrong = await play(case, browser)
                except BrowserError as error:
                    wrong = f"{error.outcome}: {error}"
                figures["passed"] += not wrong
                figures["cases"] += 1
                print(f"{space:7} {group:8} {case.name:60} {wrong or 'ok'}", flush=True)
    return figures


def main(
    seed: Annotated[int, typer.Option(help="Unused: every case is played.", min=0)] = 0,
    only: Annotated[str, typer.Option(help="Only cases whose name holds this.")] = "",
) -> None:
    """Play every case of the torture site, and count those that end as they must."""
    with tempfile.TemporaryDirectory(prefix="pae-faithful-") as folder:
        print(json.dumps(asyncio.run(run(Path(folder), only))))


if __name__ == "__main__":
    typer.run(main)
