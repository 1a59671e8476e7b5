"""Hostile pages end in a typed outcome: a few of those that bench/browser_hostile.py visits."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.browser_hostile import BROWSER, visit
from bench.hostile import HostilePage, hostile_pages
from policy.blobs import BlobStore
from policy.browser import Browser
from policy.trajectory import Outcome

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDS = {
    "elements 5,000 deep": {Outcome.FINISHED},
    "fields that bear the names of methods": {Outcome.FINISHED},
    "endless microtasks, on a click": {Outcome.SITE_ERROR},
    "removes itself": {Outcome.FINISHED},
    "chunks that are none": {Outcome.SITE_ERROR},
    "sends on to a file": {Outcome.SITE_ERROR},
    "status 429": {Outcome.BLOCKED},
}


@pytest.fixture(scope="module")
def pages() -> dict[str, HostilePage]:
    return {page.name: page for page in hostile_pages()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hardy(blobs: BlobStore) -> AsyncIterator[Browser]:
    async with Browser(BROWSER, blobs) as browser:
        yield browser


@pytest.mark.parametrize("name", ENDS)
async def test_a_hostile_page_ends_in_a_typed_outcome(hardy: Browser, pages: dict[str, HostilePage], name: str) -> None:
    outcome, said = await visit(pages[name], hardy)
    assert outcome in ENDS[name], said
