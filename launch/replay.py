"""Replaying what was recorded: an episode of a run, or one in a folder of labelled trajectories (`record` writes such).

In: where it lies and its id, or the id's beginning. Out: where the replay first differs; nothing is written.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from pydantic import ValidationError

from evaluator.labels import LabelError, read_labels, read_trajectory
from launch import config as configs
from launch.books import DamagedError, LedgerError
from launch.driver import stored_config
from launch.ledger import Ledger
from policy.blobs import MemoryBlobs
from policy.browser import Browser, BrowserSettings
from policy.replay import Difference, changed_facts, replay
from policy.trajectory import Trajectory
from sites.server import PracticeServer


def find_in_run(run_dir: Path, episode: str, overrides: Sequence[str]) -> tuple[Trajectory, BrowserSettings]:
    """An episode and the settings of its browser. Raises LedgerError and ConfigError."""
    settings = stored_config(run_dir, list(overrides)).rollout.browser
    with Ledger.open_readonly(run_dir) as books:
        rows = {row.id: row for row in books.trajectories()}
        name = _pick(episode, list(rows), LedgerError, run_dir)
        path = run_dir / rows[name].path
        try:
            return books.load(rows[name]), settings
        except FileNotFoundError:
            raise LedgerError(f"{path}: no such file, but it was committed") from None
        except ValidationError as error:
            raise LedgerError(f"{path}: not a trajectory: {error.errors()[0]['msg']}") from None
        except DamagedError as error:  # nothing was begun, and exit code 1 says that something differs
            raise LedgerError(str(error)) from None


def find_in_folder(
    folder: Path, episode: str, config: str, overrides: Sequence[str]
) -> tuple[Trajectory, BrowserSettings]:
    """An episode of a folder of labelled trajectories, and the browser settings of a config.

    Raises LabelError and ConfigError.
    """
    labels = {label.id: label for label in read_labels(folder)}
    name = _pick(episode, list(labels), LabelError, folder)
    return read_trajectory(folder, labels[name]), configs.load(config, overrides).rollout.browser


async def replay_once(
    trajectory: Trajectory, settings: BrowserSettings, tell: Callable[[str], None]
) -> Difference | None:
    """Replay in a browser of its own; `tell` hears in what that differs from the one of the record."""
    is_practice = trajectory.task.website.practice_site is not None
    with PracticeServer() if is_practice else nullcontext() as practice:
        async with Browser(settings, MemoryBlobs()) as browser:
            for line in changed_facts(trajectory, browser.facts):
                tell(line)
            return await replay(trajectory, browser, practice)


def _pick(episode: str, ids: Sequence[str], error: type[ValueError], where: Path) -> str:
    """The one id that is, or begins with, what was given."""
    found = [name for name in ids if name == episode] or [name for name in ids if name.startswith(episode)]
    if len(found) == 1:
        return found[0]
    those = ", ".join((found or list(ids))[:3]) or "none"
    raise error(f"{where}: {len(found)} of {len(ids)} episodes begin with {episode!r}; there are {those}")
