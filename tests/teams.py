"""A team with real books and neither servers nor workers, for tests of single stages."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launch import config as configs
from launch import inbox
from launch.ledger import Ledger
from launch.team import Team, make_team
from launch.tracking import Tracker


@contextmanager
def idle_team(directory: Path, *settings: str) -> Iterator[Team]:
    """A team of the quickstart's config with these settings, whose new books are in the directory."""
    config = configs.load("quickstart", [f"run.runs_dir={directory}", "tracking.wandb=off", *settings])
    (directory / inbox.INBOX).mkdir()
    with Ledger(directory) as ledger, Tracker(directory, config.tracking, {}) as tracker:
        yield make_team(config, ledger, tracker, lambda *_: None, asyncio.Event())
