"""The help desk's pages do what their forms say, and refuse what they should."""

from collections.abc import Iterator

import httpx
import pytest

from sites.catalogue import SITES
from sites.contract import gold_tasks, open_world
from sites.helpdesk.content import Desk
from sites.server import PracticeServer, Visit
from tests.fakes import Reader

MAX_ELEMENTS = 25
MAX_TEXT = 900


@pytest.fixture(scope="module")
def server() -> Iterator[PracticeServer]:
    with PracticeServer() as server:
        yield server


@pytest.fixture
def visit(server: PracticeServer) -> Visit:
    return server.open("helpdesk", "heldout-0")


@pytest.fixture
def reader(visit: Visit) -> Iterator[Reader]:
    with Reader(visit) as reader:
        yield reader


@pytest.fixture
def desk(visit: Visit) -> Desk:
    return visit.world.content


def shown_text(reader: Reader) -> str:
    return next(node for node in reader.page.walk() if node.tag == "main").text


def numbers_on(reader: Reader) -> list[str]:
    links = [node for node in reader.elements() if node.attrs.get("href", "").startswith("/ticket/")]
    return [reader.name(node).removeprefix("#") for node in links]


@pytest.mark.parametrize("world", [f"heldout-{number}" for number in range(6)])
def test_no_page_is_crowded(server: PracticeServer, world: str) -> None:
    visit = server.open("helpdesk", world)
    desk: Desk = visit.world.content
    pages = ["/", "/articles", "/tickets", "/tickets/new", "/team", "/contact", "/bookmarks", "/settings", "/closing"]
    pages += [f"/article/{article.slug}" for article in desk.articles]
    pages += [f"/ticket/{ticket.number}" for ticket in desk.tickets] + ["/search?q=a"]
    with Reader(visit) as reader:
        for page in pages:
            reader.goto(page)
            body = next(node for node in reader.page.walk() if node.tag == "body")
            assert len(reader.elements()) <= MAX_ELEMENTS, page
            assert len(body.text) <= MAX_TEXT, (page, len(body.text))


@pytest.mark.parametrize("status", ["open", "pending", "closed"])
def test_the_filter_shows_all_tickets_of_a_status_and_no_others(reader: Reader, desk: Desk, status: str) -> None:
    reader.goto(f"/tickets?status={status}")
    wanted = [ticket.number for ticket in desk.tickets if ticket.status == status]
    assert numbers_on(reader) == wanted
    assert f"Tickets found: {len(wanted)}, only {status}" in shown_text(reader)


def test_a_filtered_table_can_be_sorted(reader: Reader, desk: Desk) -> None:
    reader.goto("/tickets")
    reader.select(reader.find("Status"), "open")
    reader.select(reader.find("Sort by"), "Newest first")
    reader.click(reader.find("Apply"))
    assert numbers_on(reader) == [ticket.number for ticket in reversed(desk.tickets) if ticket.status == "open"]


def test_a_page_of_the_table_holds_as_many_tickets_as_the_settings_say(reader: Reader, desk: Desk) -> None:
    reader.goto("/settings")
    reader.select(reader.find("Items per page"), "5")
    reader.click(reader.find("Save"))
    assert "5 items per page" in shown_text(reader)
    reader.goto("/tickets?sort=-number")
    first = numbers_on(reader)
    reader.click(reader.find("Next page"))
    assert len(first) == 5
    assert reader.url == "/tickets?sort=-number&page=2"
    assert (first + numbers_on(reader))[:8] == [ticket.number for ticket in reversed(desk.tickets)][:8]
    reader.goto("/tickets?page=99")
    assert reader.url.startswith("/tickets?page=")
    reader.goto("/tickets?page=1")
    assert reader.url == "/tickets"


def test_a_ticket_can_be_given_to_an_agent_or_to_nobody(reader: Reader, visit: Visit, desk: Desk) -> None:
    ticket = desk.tickets[0]
    agent = next(agent.name for agent in desk.agents if agent.name != ticket.assignee)
    reader.goto(f"/ticket/{ticket.number}")
    for name in (agent, "nobody yet"):
        reader.select(reader.find("Assignee"), name)
        reader.click(reader.find("Save assignee"))
        assert f"Assignee of #{ticket.number} set to {name}." in shown_text(reader)
        assert visit.world.read()["tickets"][ticket.number]["assignee"] == name


def test_choosing_without_applying_does_nothing(reader: Reader, visit: Visit) -> None:
    reader.goto("/tickets")
    reader.select(reader.find("Status"), "open")
    assert visit.world.read()["location"] == "/tickets"


def test_senseless_parameters_are_dropped(reader: Reader, desk: Desk) -> None:
    reader.goto("/tickets?status=lost&sort=sideways")
    assert reader.url == "/tickets"
    assert len(numbers_on(reader)) == len(desk.tickets)


def test_a_changed_status_is_confirmed_and_stands_in_the_table(reader: Reader, desk: Desk) -> None:
    ticket = next(ticket for ticket in desk.tickets if ticket.status != "closed")
    reader.goto(f"/ticket/{ticket.number}")
    reader.select(reader.find("Status"), "closed")
    reader.click(reader.find("Save status"))
    assert f"Status of #{ticket.number} set to closed." in shown_text(reader)
    reader.goto("/tickets?status=closed")
    assert ticket.number in numbers_on(reader)


def test_enter_sends_a_comment_and_an_empty_one_is_refused(reader: Reader, visit: Visit, desk: Desk) -> None:
    number = desk.tickets[0].number
    reader.goto(f"/ticket/{number}")
    reader.type(reader.find("Comment"), "  <b>Fixed</b> ")
    assert f"{desk.user}<b>Fixed</b>" in shown_text(reader)
    reader.click(reader.find("Add comment"))
    assert "Write a comment first." in shown_text(reader)
    assert len(visit.world.read()["tickets"][number]["comments"]) == 2


def test_a_new_ticket_needs_a_subject_and_a_room_and_keeps_what_was_typed(reader: Reader, visit: Visit) -> None:
    before = visit.world.read()["tickets"]
    reader.goto("/tickets/new")
    reader.type(reader.find("Subject"), "Lamp is out")
    reader.type(reader.find("Room"), "attic")
    reader.click(reader.find("Create ticket"))
    assert "Enter a room such as B12." in shown_text(reader)
    assert visit.world.read()["tickets"] == before
    assert reader.find("Subject").attrs["value"] == "Lamp is out"
    reader.type(reader.find("Room"), "b12")
    reader.click(reader.find("Create ticket"))
    (number,) = visit.world.read()["tickets"].keys() - before.keys()
    assert f"Ticket #{number} is created." in shown_text(reader)
    assert visit.world.read()["tickets"][number]["room"] == "B12"


def test_a_later_vote_replaces_an_earlier_one(reader: Reader, visit: Visit, desk: Desk) -> None:
    article = desk.articles[0]
    reader.goto(f"/article/{article.slug}")
    reader.click(reader.find("Helpful"))
    assert f"{article.num_helpful + 1} readers found this helpful" in shown_text(reader)
    reader.click(reader.find("Not helpful"))
    assert f"{article.num_helpful} readers found this helpful. Your vote: not helpful." in shown_text(reader)
    assert visit.world.read()["votes"] == {article.slug: "no"}


def test_closing_help_is_a_page_of_its_own_without_scripts(reader: Reader, desk: Desk) -> None:
    reader.goto(f"/ticket/{desk.tickets[0].number}")
    reader.click(reader.find("Closing help"))
    assert reader.url == "/closing"
    assert "has agreed" in shown_text(reader)


@pytest.mark.parametrize("path", ["/article/none", "/section/none", "/ticket/1"])
def test_what_the_desk_does_not_have_is_not_found(visit: Visit, path: str) -> None:
    with Reader(visit) as reader, pytest.raises(httpx.HTTPStatusError, match="404"):
        reader.goto(path)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_world_of_the_first_hundred_has_distinct_facts_and_short_solutions(split: str) -> None:
    for number in range(100):
        desk: Desk = open_world(SITES["helpdesk"], f"{split}-{number}").content
        assert 12 <= len(desk.articles) <= 20
        assert 8 <= len(desk.tickets) <= 14
        for fact in ("name", "error_code", "reset_s", "port", "revision_date"):
            assert len({getattr(article, fact) for article in desk.articles}) == len(desk.articles)
        lengths = [len(task.solution) for task in gold_tasks(SITES["helpdesk"], f"{split}-{number}")]
        assert max(lengths) <= 6
