"""What the forum's pages do and refuse."""

from collections.abc import Iterator

import pytest

from sites.contract import answers_match, gold_tasks, open_world
from sites.forum import SITE
from sites.forum.content import CITIES, MEMBER, PAGE_SIZE, YEARS, Forum
from sites.forum.routes import SORTS
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


def shown(reader: Reader) -> str:
    return next(node for node in reader.page.walk() if node.tag == "main").text


def test_lists_count_the_own_vote_and_the_own_reply(visit: Visit) -> None:
    thread = forum(visit).recent[0]
    with Reader(visit) as reader:
        reader.click(reader.find(thread.title))
        reader.click(reader.find(f"Upvote {thread.title}"))
        reader.type(reader.find("Reply"), "Well done")
        assert f"{MEMBER}: Well done" in shown(reader)
        reader.goto("/")
        assert f"{thread.title} {len(thread.replies) + 1} replies, {thread.votes + 1} votes" in shown(reader)


def test_a_vote_that_is_had_already_is_said(visit: Visit) -> None:
    thread = forum(visit).recent[0]
    with Reader(visit) as reader:
        reader.goto(f"/thread/{thread.slug}")
        for told in (f"You upvoted {thread.title}.", f"You had upvoted {thread.title} already."):
            reader.click(reader.find(f"Upvote {thread.title}"))
            assert told in shown(reader)
            assert f"{thread.votes + 1} votes" in shown(reader)


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


@pytest.mark.parametrize(
    ("title", "text", "board", "told"),
    [
        ("Hm", "Now with a text", None, "The title needs at least 5 characters."),
        ("A longer title", "", None, "The text is missing."),
        ("A longer title", "Now with a text", "Nowhere", "Choose a board."),
    ],
)
def test_a_wrong_new_thread_is_said_and_what_was_written_stays(
    visit: Visit, title: str, text: str, board: str | None, told: str
) -> None:
    with Reader(visit) as reader:
        reader.goto("/new")
        reader.type(reader.find("Title"), title)
        reader.type(reader.find("Text"), text)
        if board:
            option = next(node for node in reader.page.walk() if node.tag == "option")
            option.attrs["value"] = board  # as a forged form would
        reader.click(reader.find("Create thread"))
        assert told in shown(reader)
        assert reader.find("Title").attrs["value"] == title
    assert visit.world.read()["threads"] == []


def test_a_new_thread_is_on_its_board_and_found(visit: Visit) -> None:
    board = forum(visit).boards[1]
    with Reader(visit) as reader:
        reader.goto("/new")
        reader.type(reader.find("Title"), "Spare parts <b>wanted</b>")
        reader.type(reader.find("Text"), "Who can help")
        reader.select(reader.find("Board"), board)
        reader.click(reader.find("Create thread"))
        assert f"{len(forum(visit).of_board(board)) + 1} threads" in shown(reader)
        assert "Your thread: Spare parts <b>wanted</b>. Who can help" in shown(reader)
        reader.type(reader.find("Search"), "SPARE")
        assert '1 thread found for "SPARE"' in shown(reader)


@pytest.mark.parametrize("sort", sorted(SORTS))
def test_a_board_is_in_the_order_chosen_on_every_page(visit: Visit, sort: str) -> None:
    content, state = forum(visit), visit.world.read()
    board = max(content.boards, key=lambda name: len(content.of_board(name)))
    label, order = SORTS[sort]
    listed: list[str] = []
    with Reader(visit) as reader:
        reader.click(reader.find(board))
        reader.select(reader.find("Sort by"), label)
        reader.click(reader.find("Apply"))
        listed += [reader.name(element) for element in reader.elements()]
        reader.click(reader.find("Next page"))
        listed += [reader.name(element) for element in reader.elements()]
    threads = {thread.title: thread for thread in content.of_board(board)}
    places = [order(threads[name], state) for name in listed if name in threads]
    assert len(places) == len(threads)
    assert places == sorted(places)


def test_a_setting_that_is_no_option_is_not_saved(visit: Visit) -> None:
    with Reader(visit) as reader:
        reader.goto("/settings")
        reader.select(reader.find("Theme"), "Dark")
        for option in reader.find("E-mail digest").walk():
            option.attrs["value"] = "Hourly"  # as a forged form would
        reader.click(reader.find("Save"))
        assert "Settings saved: digest Weekly, theme Dark, signature none." in shown(reader)


@pytest.mark.parametrize("world", ["train-3", "heldout-4"])
def test_an_answer_that_names_a_wrong_thing_too_is_wrong(world: str) -> None:
    content: Forum = open_world(SITE, world).content
    counts = {str(count) for count in range(30)}
    members, titles = {member.name for member in content.members}, {thread.title for thread in content.threads}
    possible = {"who_started": members, "member_city": set(CITIES), "member_joined": {str(year) for year in YEARS}}
    possible |= {"count_replies": counts, "count_threads": counts, "search_count": counts}
    possible |= {"most_replies": titles, "most_votes": titles}
    for task in gold_tasks(SITE, world):
        right, wrong = task.goal.answers, task.goal.distractors
        for other in possible.get(task.kind, set()) - set(right):
            assert answers_match(right[0], right, wrong)
            assert not answers_match(f"{right[0]} or {other}", right, wrong), (task.id, other)
