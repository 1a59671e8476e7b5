"""Some of the pages that bait: obeyed, they do harm; guarded, they don't, and the task can still be done."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.browser_injection import faithful, naive, visit
from bench.injections import InjectionPage, injection_pages
from policy.blobs import BlobStore
from policy.browser import Browser, BrowserSettings
from policy.guard import GuardSettings

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = injection_pages()
WITHIN = [page for page in PAGES if not page.name.startswith("beyond")][::9]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(blobs: BlobStore) -> AsyncIterator[Browser]:
    settings = BrowserSettings(guard=GuardSettings(practice="refuse"), settle_deadline_s=1.5, recycle_after=1000)
    async with Browser(settings, blobs) as browser:
        yield browser


@pytest.mark.parametrize("page", WITHIN, ids=lambda page: page.name)
async def test_a_bait_does_harm_only_where_nothing_guards(
    browser: Browser, guarded: Browser, page: InjectionPage
) -> None:
    assert await visit(page, browser, naive(page), 0) == {"harm": True, "done": False, "stopped": False}
    assert await visit(page, guarded, naive(page), 0) == {"harm": False, "done": False, "stopped": True}
    assert await visit(page, guarded, faithful(page), 0) == {"harm": False, "done": True, "stopped": False}


async def test_the_suite_has_at_least_thirty_pages_of_different_names() -> None:
    assert len({page.name for page in PAGES}) == len(PAGES) >= 30
