"""Every practice site keeps the contract: private worlds, separate splits, tasks that are solvable and not by luck."""

import http.client
import random
import re
import socket
from collections.abc import Iterator

import pytest

from sites.catalogue import SITES
from sites.contract import accomplished, answers_match, gold_tasks, in_split, open_world, split_of
from sites.server import PracticeServer, Visit, normal_location
from tests.fakes import Reader, play

WORLDS = ("train-0", "train-1", "train-17", "heldout-0", "heldout-3")
MAX_ELEMENTS = 30
MAX_TEXT = 1200


@pytest.fixture(scope="module")
def server() -> Iterator[PracticeServer]:
    with PracticeServer() as server:
        yield server


@pytest.fixture(params=sorted(SITES))
def site(request: pytest.FixtureRequest) -> str:
    return request.param


def fetch(server: PracticeServer, host: str, path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path, headers={"Host": host})
    status = connection.getresponse().status
    connection.close()
    return status


def host_of(visit: Visit) -> str:
    return visit.url.removeprefix("http://").rstrip("/")


def test_same_world_name_makes_the_same_content(site: str) -> None:
    make = SITES[site].make_content
    first, again = (make(random.Random(f"{site}/train-4"), "train") for _ in range(2))
    assert first == again
    assert first != make(random.Random(f"{site}/train-5"), "train")


def test_no_proper_name_is_in_both_splits(site: str) -> None:
    train, heldout = (
        set[str]().union(*(open_world(SITES[site], f"{split}-{n}").content.names() for n in range(20)))
        for split in ("train", "heldout")
    )
    assert train and heldout
    assert not train & heldout


def test_gold_tasks_are_the_same_every_time_and_differ_between_worlds(site: str) -> None:
    tasks = gold_tasks(SITES[site], "train-2")
    assert tasks == gold_tasks(SITES[site], "train-2")
    other = {task.instruction for task in gold_tasks(SITES[site], "heldout-2")}
    assert len(other - {task.instruction for task in tasks}) > len(tasks) / 2


def test_at_least_eight_kinds_each_in_every_world(site: str) -> None:
    kinds = [{task.kind for task in gold_tasks(SITES[site], world)} for world in WORLDS]
    assert all(found == kinds[0] for found in kinds)
    assert len(kinds[0]) >= 8


@pytest.mark.parametrize("world", WORLDS)
def test_ids_and_instructions_are_unique(site: str, world: str) -> None:
    tasks = gold_tasks(SITES[site], world)
    assert len({task.id for task in tasks}) == len({task.instruction for task in tasks}) == len(tasks)
    assert all(task.id.startswith(f"{site}/{world}/{task.kind}-") for task in tasks)


@pytest.mark.parametrize("world", WORLDS)
def test_scripted_solutions_accomplish_their_tasks(server: PracticeServer, site: str, world: str) -> None:
    for task in gold_tasks(SITES[site], world):
        visit = server.open(site, world)
        answer = play(visit, task.solution)
        assert task.solution[-1].action == "answer"
        assert accomplished(task.goal, visit.world.read(), answer), (task.id, visit.world.read(), task.goal)
        server.close_visit(visit)


@pytest.mark.parametrize("world", WORLDS)
def test_near_misses_do_not_accomplish_their_tasks(server: PracticeServer, site: str, world: str) -> None:
    for task in gold_tasks(SITES[site], world):
        assert len(task.near_misses) >= 2, task.id
        for moves in task.near_misses:
            visit = server.open(site, world)
            answer = play(visit, moves)
            assert not accomplished(task.goal, visit.world.read(), answer), (task.id, moves)
            server.close_visit(visit)


@pytest.mark.parametrize("world", WORLDS)
def test_doing_nothing_accomplishes_no_task(server: PracticeServer, site: str, world: str) -> None:
    visit = server.open(site, world)
    play(visit, ())
    state = visit.world.read()
    assert not [task.id for task in gold_tasks(SITES[site], world) if accomplished(task.goal, state, "done")]


def test_pages_on_the_way_of_solutions_stay_small(server: PracticeServer, site: str) -> None:
    for task in gold_tasks(SITES[site], "heldout-1"):
        with Reader(server.open(site, "heldout-1")) as reader:
            for move in task.solution:
                body = next(node for node in reader.page.walk() if node.tag == "body")
                assert len(reader.elements()) <= MAX_ELEMENTS, reader.url
                assert len(body.text) <= MAX_TEXT, reader.url
                reader.play([move])


def test_visits_do_not_see_each_other(server: PracticeServer, site: str) -> None:
    one, two = server.open(site, "train-0"), server.open(site, "train-0")
    play(two, ())
    untouched = two.world.read()
    for task in gold_tasks(SITES[site], "train-0"):
        play(one, task.solution)
        one.world.reset()
    task = next(t for t in gold_tasks(SITES[site], "train-0") if "location" not in t.goal.state and not t.goal.answers)
    play(one, task.solution)
    assert one.world.read() != untouched
    assert two.world.read() == untouched


def test_snapshot_restore_and_reset_bring_a_state_back(server: PracticeServer, site: str) -> None:
    visit = server.open(site, "heldout-0")
    first = visit.world.read()
    task = next(
        t for t in gold_tasks(SITES[site], "heldout-0") if "location" not in t.goal.state and not t.goal.answers
    )
    play(visit, task.solution)
    snapshot, changed = visit.world.snapshot(), visit.world.read()
    assert changed != first
    visit.world.reset()
    assert visit.world.read() == first
    visit.world.restore(snapshot)
    assert visit.world.read() == changed
    visit.world.read().clear()
    assert visit.world.read() == changed


@pytest.mark.parametrize(
    "path", ["/state", "/api/state", "/_state", "/snapshot", "/reset", "/restore", "/admin", "/tasks"]
)
def test_the_state_is_not_served(server: PracticeServer, site: str, path: str) -> None:
    assert fetch(server, host_of(server.open(site, "train-0")), path) == 404


def test_a_message_is_shown_once_and_leaves_no_trace_in_the_state(server: PracticeServer, site: str) -> None:
    visit = server.open(site, "train-0")
    for task in gold_tasks(SITES[site], "train-0"):
        visit.world.reset()
        play(visit, task.solution)
        assert "notice" not in visit.world.read()


def test_unknown_hosts_and_closed_visits_are_not_found(server: PracticeServer, site: str) -> None:
    visit = server.open(site, "train-0")
    assert fetch(server, host_of(visit)) == 200
    assert fetch(server, f"nobody.{site}.localhost:{server.port}") == 404
    assert fetch(server, f"{visit.key}.elsewhere.localhost:{server.port}") == 404
    server.close_visit(visit)
    assert fetch(server, host_of(visit)) == 404


def test_pages_that_do_not_exist_lead_back_and_do_not_count_as_visited(server: PracticeServer, site: str) -> None:
    visit = server.open(site, "train-0")
    play(visit, ())
    assert fetch(server, host_of(visit), "/no/such/page") == 404
    assert visit.world.read()["location"] == "/"


def test_style_script_and_pictures_are_served(server: PracticeServer, site: str) -> None:
    host = host_of(server.open(site, "train-0"))
    for path in ("/static/site.css", "/static/site.js", "/static/pictures/mug-red.png"):
        assert fetch(server, host, path) == 200


def test_a_taken_port_is_an_os_error(server: PracticeServer) -> None:
    with pytest.raises(OSError):
        PracticeServer(server.port)


def test_a_closed_server_frees_its_port() -> None:
    with PracticeServer() as first:
        port = first.port
    with PracticeServer(port) as second:
        assert second.port == port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


@pytest.mark.parametrize(("site", "world"), [("bazaar", "train-0"), ("shop", "train"), ("shop", "test-1")])
def test_unknown_site_or_world_name_is_a_value_error(server: PracticeServer, site: str, world: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        server.open(site, world)


def test_world_names_tell_their_split() -> None:
    assert [split_of("train-3"), split_of("heldout-12")] == ["train", "heldout"]
    assert in_split("Amber Kettle", "train") != in_split("Amber Kettle", "heldout")


def test_locations_are_normalised() -> None:
    assert normal_location("/search", "q=b+c&a=&b=1") == "/search?b=1&q=b+c"
    assert normal_location("/cart", "") == "/cart"


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("$12.50", True),
        ("It costs 12.50.", True),
        ("112.50", False),
        ("12.50 or 14.00", False),
        ("", False),
    ],
)
def test_answers_match_whole_words_without_distractors(answer: str, accepted: bool) -> None:
    assert answers_match(answer, ["$12.50"], ["$14.00"]) is accepted


@pytest.mark.parametrize(
    ("answer", "wanted", "accepted"),
    [
        ("12.5", "$12.50", True),
        ("$12", "$12.00", True),
        ("12.", "$12.00", True),
        ("4", "4.0", True),
        ("12", "$12.50", False),
        ("$12.05", "$12.50", False),
        ("€12", "$12.00", False),
        ("012", "$12.00", False),
        ("$12 or $14", "$12.00", False),
        ("4 or 5", "4.0", False),
        ("I found 12 of them.", "$12.00", False),
        ("4.0", "4", False),  # a count
    ],
)
def test_a_bare_number_is_right_by_its_value_where_a_decimal_is_wanted(
    answer: str, wanted: str, accepted: bool
) -> None:
    assert answers_match(answer, [wanted], ["$14.00", "5.0"]) is accepted


@pytest.mark.parametrize("world", WORLDS)
def test_of_two_things_the_right_one_may_be_set_against_the_other_but_not_the_other_way_round(
    site: str, world: str
) -> None:
    compared = [task for task in gold_tasks(SITES[site], world) if task.kind.startswith("compare")]
    assert compared
    for task in compared:
        accepted, distractors = task.goal.answers, task.goal.distractors
        swap = {accepted[0]: distractors[0], distractors[0]: accepted[0]}
        sentences = [answer for answer in accepted if distractors[0] in answer]
        assert any(" than " in sentence for sentence in sentences)
        for sentence in sentences:
            swapped = re.sub("|".join(map(re.escape, swap)), lambda name, swap=swap: swap[name[0]], sentence)
            assert answers_match(f"{sentence.capitalize()}.", accepted, distractors), task.id
            wrong = (swapped, f"I wonder if {sentence}.", f"{sentence} or {swapped}", f"Not true: {sentence}")
            assert not any(answers_match(answer, accepted, distractors) for answer in wrong), task.id


def test_a_date_by_itself_may_be_written_month_first() -> None:
    worlds = [gold_tasks(SITES["helpdesk"], f"train-{number}") for number in range(9)]
    dated = [task.goal for tasks in worlds for task in tasks if "revision date" in task.instruction]
    assert dated
    for goal in dated:
        day, month = goal.answers[0].split()
        assert answers_match(f"{month} {day}.", goal.answers, goal.distractors)
        for wrong in (f"{month} {day}1", f"{month} {day} or Feb 14", f"{month} {int(day) % 28 + 1}"):
            assert not answers_match(wrong, goal.answers, goal.distractors)
