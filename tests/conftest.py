"""Fixtures that several test files share: one Chromium and one little website for all browser tests, one whole run."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from bench.chaos import Arena, Tally, digest_of
from bench.small_site import SmallSite
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.browser_settings import BrowserSettings


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(tmp_path_factory.mktemp("blobs"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(blobs: BlobStore) -> AsyncIterator[Browser]:
    settings = BrowserSettings(settle_deadline_s=1.5, action_deadline_s=3.0, start_deadline_s=3.0, recycle_after=1000)
    async with Browser(settings, blobs) as browser:
        yield browser


@pytest.fixture
def site() -> Iterator[SmallSite]:
    with SmallSite() as site:
        yield site


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of a scripted run of one round (bench/chaos.py, seed 3) that nothing befalls."""
    with Arena(tmp_path_factory.mktemp("undisturbed"), seed=3) as arena:
        run_dir = arena.run_dir("undisturbed")
        assert arena.launch(run_dir, None, Tally(), ["run.rounds=1"]) == (0, False)
        return digest_of(run_dir)
