"""What the forum's pages do and refuse."""

from collections.abc import Iterator

import pytest

from sites.forum.content import PAGE_SIZE, Forum
from sites.server import PracticeServer, Visit
from tests.fakes import Reader


@pytest.fixture
def visit() -> Iterator[Visit]:
    with PracticeServer() as server:
        yield server.open("forum", "train-3")


def forum(visit: Visit) -> Forum:
    return visit.world.content


def test_a_vote_counts_once(visit: Visit) -> None:
    thread = forum(visit).recent[0]
    with Reader(visit) as reader:
        reader.click(reader.find(thread.title))
        reader.click(reader.find(f"Upvote {thread.title}"))
        reader.click(reader.find(f"Upvote {thread.title}"))
    assert visit.world.read()["votes"] == [thread.slug]


def test_following_twice_is_not_following(visit: Visit) -> None:
    thread = forum(visit).recent[0]
    with Reader(visit) as reader:
        reader.click(reader.find(thread.title))
        reader.click(reader.find(f"Follow {thread.title}"))
        reader.click(reader.find(f"Unfollow {thread.title}"))
    assert visit.world.read()["following"] == []


def test_an_empty_reply_is_not_posted(visit: Visit) -> None:
    with Reader(visit) as reader:
        reader.click(reader.find(forum(visit).recent[0].title))
        reader.click(reader.find("Post reply"))
    assert visit.world.read()["replies"] == []


def test_a_thread_needs_a_title_and_a_text(visit: Visit) -> None:
    with Reader(visit) as reader:
        reader.click(reader.find("New thread"))
        reader.type(reader.find("Title"), "Hm")
        reader.click(reader.find("Create thread"))
        reader.type(reader.find("Title"), "A longer title")
        reader.click(reader.find("Create thread"))
        assert visit.world.read()["threads"] == []
        reader.type(reader.find("Text"), "Now with a text")
        reader.click(reader.find("Create thread"))
    assert [thread["title"] for thread in visit.world.read()["threads"]] == ["A longer title"]


def test_a_long_board_goes_on_on_the_next_page(visit: Visit) -> None:
    content = forum(visit)
    board = max(content.boards, key=lambda name: len(content.of_board(name)))
    rest = content.of_board(board)[PAGE_SIZE:]
    assert rest, "a world whose longest board fits one page shows nothing here"
    with Reader(visit) as reader:
        reader.click(reader.find(board))
        reader.click(reader.find("Next page"))
        reader.click(reader.find(rest[0].title))
    assert visit.world.read()["location"] == f"/thread/{rest[0].slug}"
