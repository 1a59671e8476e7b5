"""The report of a run, made through the real ledger and looked at in a real Chromium."""

import hashlib
import io
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from evaluator.verdict import Judgement, Verdict
from launch.books import LedgerError, Phase, ProposalRow, Purpose
from launch.charts import Point, Series, bars, curves, nice_ticks
from launch.ledger import Ledger
from launch.report import SAMPLES_PER_KIND, describe, gather, kind_of, sample, write_report
from policy.blobs import BlobStore
from policy.browser import BrowserSettings, find_executable
from policy.marks import draw_marks
from policy.trajectory import Action, ActionKind, Element, Observation, Outcome, Step, Trajectory
from proposer.task import Task, Website

HOSTILE = "<script>window.owned = true</script><img src=x onerror='window.owned = true'>\"'{{ 7 * 7 }}"
ELEMENTS = (
    Element(mark=1, tag="input:search", name="Search products", box=(300, 20, 360, 36)),
    Element(mark=2, tag="button", name="Search", box=(670, 20, 90, 36)),
    Element(mark=3, tag="a", name="Copper kettle", box=(60, 200, 260, 24)),
)
NUM_ROUNDS = 3


@cache
def picture(seed: int) -> bytes:
    """A screenshot that looks a little like a page."""
    rng = random.Random(seed)
    page = Image.new("RGB", (1024, 768), "#fbfaf7")
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, 0, 1024, 76), fill=f"hsl({rng.randrange(360)}, 45%, 38%)")
    pen.rectangle((300, 20, 660, 56), fill="white")
    for number in range(8):
        left, top = 60 + 240 * (number % 4), 230 + 260 * (number // 4)
        pen.rectangle((left, top, left + 200, top + 170), fill=f"hsl({rng.randrange(360)}, 40%, 75%)")
        pen.text((left, top + 180), f"Product {rng.randrange(999)}", fill="#222", font_size=18)
    out = io.BytesIO()
    page.save(out, "JPEG", quality=80)
    return draw_marks(out.getvalue(), ELEMENTS, 80)


def observe(blobs: BlobStore, seed: int, notice: str = "") -> Observation:
    return Observation(
        url=f"http://w{seed}.shop.localhost:4000/search?q=mug&page={seed}",
        title="Search results - Corner Shop",
        elements=ELEMENTS,
        listing="[1] <input:search> Search products\n[2] <button> Search\n[3] <a> Copper kettle",
        screenshot=blobs.put(picture(seed)),
        notice=notice,
    )


def episode(blobs: BlobStore, trajectory_id: str, task: Task, outcome: Outcome, seed: int) -> Trajectory:
    actions = [
        Action(kind=ActionKind.TYPE, mark=1, text="kettle"),
        Action(kind=ActionKind.CLICK, mark=3),
        None,
        Action(kind=ActionKind.ANSWER, text="12.50"),
    ]
    steps = tuple(
        Step(
            observation=observe(blobs, seed % 7 + index, "" if index != 3 else "That was no action."),
            response="Klick the kettle!" if action is None else "Thought: ...",
            thought=HOSTILE if index == 0 else "The kettle is the first result, so its page has the price.",
            action=action,
            malformed="" if action else "no action in the response",
            weights=1,
            model_s=0.8,
            browser_s=0.3,
        )
        for index, action in enumerate(actions)
    )
    is_finished = outcome is Outcome.FINISHED
    return Trajectory(
        id=trajectory_id,
        task=task,
        steps=steps,
        outcome=outcome,
        error="" if outcome.is_agents else "Target crashed",
        answer="12.50" if is_finished else None,
        final=observe(blobs, seed % 7 + 4) if outcome.is_agents else None,
        seconds=5.0,
    )


def plan_round(ledger: Ledger, k: int) -> None:
    ledger.begin_round(k, Phase.PROPOSE)
    sites = [Website(name=name, url=f"practice:{name}") for name in ("shop", "forum")]
    unseen = Website(name="helpdesk", url="practice:helpdesk")
    for site in sites:
        gold = [
            Task(
                website=site,
                instruction=f"Find the price of item {n}",
                world="heldout-1",
                source="gold",
                gold_id=f"g{n}",
            )
            for n in range(12)
        ]
        ledger.plan(k, Purpose.EVAL, gold, 1)
        if k:
            proposed = [
                Task(website=site, instruction=f"Look up item {n} in round {k}", world="train-1") for n in range(8)
            ]
            ledger.add_proposals(ProposalRow(k, site.name, "train-1", 11, 8, {"duplicate": 3}), proposed, 2)
    gold = [
        Task(website=unseen, instruction=f"Close ticket {n}", world="heldout-1", source="gold", gold_id=f"u{n}")
        for n in range(8)
    ]
    ledger.plan(k, Purpose.UNSEEN, gold, 1)


def play_round(run_dir: Path, ledger: Ledger, k: int) -> None:
    rng = random.Random(k)
    blobs = BlobStore(run_dir / "blobs")
    wanted = [entry for purpose in Purpose for entry in ledger.missing_episodes(k, purpose)]
    for number, entry in enumerate(wanted):
        outcome = rng.choices([Outcome.FINISHED, Outcome.STEP_LIMIT, Outcome.BROWSER_CRASH], [7, 2, 1])[0]
        trajectory = episode(blobs, entry.id, entry.task, outcome, number)
        data = trajectory.model_dump_json().encode()
        path = f"trajectories/{entry.id}.json"
        (run_dir / path).parent.mkdir(exist_ok=True)
        (run_dir / path).write_bytes(data)
        success = rng.random() < 0.2 + 0.2 * k
        truth = success if entry.task.gold_id and outcome.is_agents else None
        ledger.commit_trajectory(trajectory, path, hashlib.sha256(data).hexdigest(), truth)
        if outcome.is_agents:
            said = success if rng.random() < 0.85 else not success
            judgement = Judgement.UNDECIDED if rng.random() < 0.1 else Judgement.SUCCESS if said else Judgement.FAILURE
            reason = "The last page shows the price that was asked for."
            ledger.commit_verdict(
                Verdict(trajectory_id=entry.id, judgement=judgement, reason=reason, judge="judge", prompt_hash="0")
            )
    for phase, seconds in {"propose": 20, "rollout": 160 - 20 * k, "judge": 15, "train": 60, "eval": 90}.items():
        ledger.add_seconds(k, phase, seconds if k or phase == "eval" else 0)
    ledger.set_metrics(k, {"canary/judged": 14, "canary/fooled": k} if k else {})
    ledger.set_phase(k, Phase.DONE)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds, its books kept by the real ledger."""
    directory = tmp_path_factory.mktemp("runs") / "two-sites"
    directory.mkdir()
    with Ledger(directory) as ledger:
        for k in range(NUM_ROUNDS):
            plan_round(ledger, k)
            play_round(directory, ledger, k)
        ledger.add_event("retry", f"one episode: {HOSTILE}", 1)
    facts = {"config": {"run": {"name": "two-sites", "note": HOSTILE}}, "environment": {"commit": "0a1b2c3d" * 5}}
    (directory / "config.json").write_text(json.dumps(facts))
    return directory


@pytest.fixture(scope="module")
def report(run_dir: Path) -> Path:
    return write_report(run_dir)


@pytest.fixture
def page(report: Path) -> Iterator[Page]:
    """The report in a real browser; what it logs or asks the network for is an error."""
    troubles: list[str] = []
    with sync_playwright() as playwright:
        executable = find_executable(BrowserSettings(), playwright.chromium.executable_path)
        with playwright.chromium.launch(executable_path=executable, chromium_sandbox=False) as chromium:
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.on("console", lambda message: troubles.append(message.text))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("request", lambda request: troubles.append(request.url) if request.url[:4] == "http" else None)
            page.goto(report.as_uri())
            yield page
            assert not troubles


def test_hostile_text_is_shown_and_does_not_run(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.get_by_text("<script>window.owned = true</script>").first.is_visible()
    assert page.evaluate("window.owned") is None
    assert page.locator("main script, img[src=x]").count() == 0


def test_canaries_that_fooled_the_judge_are_drawn_and_counted_where_any_were_judged(page: Page) -> None:
    figure = page.locator("figure", has_text="Canaries that the judge called a success")
    tips = figure.locator("svg title").all_text_contents()
    assert tips == [
        "false positives, round 1: 7.1 % (95 % interval 1.3 to 31.5 %, n = 14)",
        "false positives, round 2: 14.3 % (95 % interval 4.0 to 39.9 %, n = 14)",
    ]
    cells = page.locator("#rounds td", has_text="canaries called a success").all_text_contents()
    assert [cell.rpartition(" %")[2].strip() for cell in cells] == [
        "1 of 14 canaries called a success",
        "2 of 14 canaries called a success",
    ]


def test_filters_show_exactly_what_matches(page: Page, run_dir: Path) -> None:
    with Ledger.open_readonly(run_dir) as books:
        sampled = gather(books).sampled
    wanted = [view for view in sampled if view.row.round == 2 and view.row.judgement is Judgement.SUCCESS]
    page.get_by_label("Round", exact=True).select_option("2")
    page.get_by_label("Judge", exact=True).select_option("success")
    visible = page.locator(".trajectory:visible")
    assert visible.count() == len(wanted) > 0
    assert {node.get_attribute("id") for node in visible.all()} == {f"t-{view.row.id}" for view in wanted}
    assert page.locator("#shown").text_content() == str(len(wanted))
    page.get_by_label("Instruction contains").fill("no such instruction")
    assert visible.count() == 0
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("count => document.querySelector('#shown').textContent === count", arg=str(len(sampled)))
    assert visible.count() == len(sampled)


def test_a_trajectory_opens_from_the_keyboard_and_then_has_its_pictures(page: Page) -> None:
    card = page.locator(".trajectory").first
    assert card.locator("img[src]").count() == 0
    card.locator("> summary").focus()
    page.keyboard.press("Enter")
    first = card.locator("img").first
    first.scroll_into_view_if_needed()
    assert first.evaluate("async image => { await image.decode(); return image.naturalWidth }") == 640
    assert card.locator("img:not([src])").count() == 0


def test_a_link_to_a_trajectory_opens_it(page: Page, report: Path) -> None:
    name = page.locator(".trajectory").last.get_attribute("id")
    page.goto(f"{report.as_uri()}#{name}")
    assert page.locator(f"#{name}").evaluate("card => card.open")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_success_is_labelled_by_who_says_it(page: Page) -> None:
    assert page.get_by_role("img", name="Success by ground truth").is_visible()
    assert page.get_by_role("img", name="Practice episodes by the judge's verdict").is_visible()
    badges = page.locator(".trajectory .badge.success").all_text_contents()
    assert badges
    assert all(text.startswith(("judge: ", "ground truth: ")) for text in badges)


def test_every_kind_of_every_round_is_sampled_before_a_second_of_any(run_dir: Path) -> None:
    with Ledger.open_readonly(run_dir) as books:
        rows = books.trajectories()
    kinds = {(row.round, kind_of(row)) for row in rows}
    chosen = sample(rows)
    assert {(row.round, kind_of(row)) for row in chosen[: len(kinds)]} == kinds
    assert len(chosen) == len({row.id for row in chosen}) <= SAMPLES_PER_KIND * len(kinds)


def test_a_lost_picture_or_trajectory_costs_only_itself(run_dir: Path, tmp_path: Path) -> None:
    with Ledger.open_readonly(run_dir) as books:
        before = gather(books)
        lost = run_dir / before.sampled[0].row.path
        data = lost.read_bytes()
        blob = BlobStore(run_dir / "blobs").path(before.sampled[1].pictures[0])
        pixels = blob.read_bytes()
        lost.write_bytes(b"{}")
        blob.write_bytes(b"not a picture")
        try:
            after = gather(books)
        finally:
            lost.write_bytes(data)
            blob.write_bytes(pixels)
    assert len(after.sampled) == len(before.sampled) - 1
    assert after.pictures[blob.name] == ""


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        assert "has not begun" in write_report(tmp_path).read_text()
        ledger.begin_round(0, Phase.EVAL)
        assert "Running: round 0, phase eval" in write_report(tmp_path).read_text()


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not a run"):
        write_report(tmp_path)


def test_the_report_is_bounded(report: Path) -> None:
    assert report.stat().st_size < 15_000_000


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Action(kind=ActionKind.CLICK, mark=3), "Click · [3] <a> Copper kettle"),
        (Action(kind=ActionKind.CLICK, mark=99), "Click · [99]"),
        (Action(kind=ActionKind.GO_BACK), "Go back"),
        (Action(kind=ActionKind.ANSWER, text="12.50"), "Answer · 12.50"),
    ],
)
def test_actions_are_described_with_what_they_were_done_to(action: Action, text: str) -> None:
    seen = Observation(url="", title="", elements=ELEMENTS, listing="", screenshot="")
    assert describe(action, seen) == text


@pytest.mark.parametrize(
    ("top", "ticks"),
    [
        (7, [0, 2, 4, 6, 8]),
        (0.31, [0, 0.1, 0.2, 0.3, 0.4]),
        (1, [0, 0.25, 0.5, 0.75, 1]),
        (0, [0, 1]),
        (123, [0, 50, 100, 150]),
    ],
)
def test_ticks_are_round_and_reach_the_top(top: float, ticks: list[float]) -> None:
    assert nice_ticks(top) == pytest.approx(ticks)


def test_a_mark_tells_its_interval() -> None:
    drawn = curves("Success", [Series("held-out", (Point(0, 0.25, 0.2, 0.31, 150), Point(2, 0.5)))])
    assert "held-out, round 0: 25.0 % (95 % interval 20.0 to 31.0 %, n = 150)" in drawn
    assert "held-out, round 2: 50.0 %" in drawn


def test_what_was_not_measured_is_not_drawn() -> None:
    assert curves("Success", [Series("held-out", ())]) == ""
    assert bars("Outcomes", {0: {}, 1: {"finished": 0}}) == ""
