"""Fixtures that several test files share: one Chromium and one little website for all browser tests."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

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
