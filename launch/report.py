"""One HTML file that shows a run: curves, a table per round, and sampled trajectories step by step.

In: a run directory, finished or not. Out: ``report.html`` in it, which needs nothing but itself: pictures are embedded,
its content security policy allows no connection and only its own script. Page text and model output are hostile; the
template escapes all of it. Success by ground truth and by the judge's verdict are labelled as what they are.
"""

import base64
import hashlib
import io
import json
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from evaluator.agreement import Share, wilson
from evaluator.changes import Changes
from evaluator.verdict import Judgement, Verdict
from launch.books import EventRow, LedgerError, LedgerReader, Phase, ProposalRow, Purpose, RoundRow, TrajectoryRow
from launch.charts import Point, Series, bars, curves
from launch.inbox import write_atomic
from launch.ledger import Ledger
from launch.summary import RoundSummary, summarise_round
from policy.blobs import BlobStore
from policy.trajectory import Action, Observation, Outcome, Step, Trajectory

logger = logging.getLogger(__name__)

REPORT = "report.html"
TEMPLATES_DIR = Path(__file__).parent / "templates"
PICTURE_WIDTH_PX = 640
PICTURE_QUALITY = 55  # marks stay readable, 30 kB or so each
MAX_PICTURE_BYTES = 10_000_000  # of all pictures together; a third more once embedded
SAMPLES_PER_KIND = 4  # trajectories of each kind in each round, while pictures fit


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as the page shows it."""

    observation: Observation
    thought: str
    action: str
    malformed: str
    response: str
    weights: int | None
    model_s: float
    browser_s: float


@dataclass(frozen=True, slots=True)
class TrajectoryView:
    """One sampled trajectory with what is said of it."""

    row: TrajectoryRow
    kind: str
    """Why it is shown; see `kind_of`."""
    trajectory: Trajectory
    steps: tuple[StepView, ...]
    verdict: Verdict | None
    changes: Changes | None

    @property
    def pictures(self) -> list[str]:
        """Blob names of the pictures in it, in order."""
        final = [self.trajectory.final] if self.trajectory.final else []
        return [seen.screenshot for seen in (*(step.observation for step in self.steps), *final)]


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows."""

    name: str
    config: str
    """As indented JSON."""
    environment: dict[str, str]
    states: list[RoundRow]
    rounds: list[RoundSummary]
    proposals: list[ProposalRow]
    events: list[EventRow]
    rows: list[TrajectoryRow]
    """Every committed trajectory."""
    sampled: list[TrajectoryView]
    pictures: dict[str, str]
    """Base64 JPEG by blob name."""


def write_report(run_dir: Path) -> Path:
    """Write the report of a run as it stands; its path. Raises LedgerError if the directory holds no run."""
    with Ledger.open_readonly(run_dir) as books:
        data = gather(books)
    path = run_dir / REPORT
    write_atomic(path, render(data).encode())
    return path


def gather(books: LedgerReader) -> ReportData:
    """What the page shows, read from the books and the files behind them."""
    states = books.rounds()
    rows = books.trajectories()
    facts_file = books.run_dir / "config.json"
    facts = json.loads(facts_file.read_text()) if facts_file.is_file() else {}
    sampled, pictures = _embed(books, sample(rows))
    return ReportData(
        name=books.run_dir.resolve().name,
        config=json.dumps(facts.get("config", {}), indent=2, ensure_ascii=False),
        environment=facts.get("environment", {}),
        states=states,
        rounds=[summarise_round(books, state.round) for state in states],
        proposals=[row for state in states for row in books.proposals(state.round)],
        events=books.events(),
        rows=rows,
        sampled=sampled,
        pictures=pictures,
    )


def kind_of(row: TrajectoryRow) -> str:
    """Which of the kinds of trajectories one is; ground truth decides where there is any, the judge elsewhere."""
    if not row.outcome.is_agents:
        return "not the agent's"
    judged = {Judgement.SUCCESS: True, Judgement.FAILURE: False}.get(row.judgement) if row.judgement else None
    if None not in (row.truth, judged) and row.truth != judged:
        return "judge was wrong"
    success = judged if row.truth is None else row.truth
    return "undecided" if success is None else "success" if success else "failure"


def sample(rows: Sequence[TrajectoryRow]) -> list[TrajectoryRow]:
    """Some of each kind in each round, in the order in which they deserve room: one of each first, then a second ..."""
    groups: dict[tuple[int, str], list[TrajectoryRow]] = {}
    for row in rows:
        groups.setdefault((row.round, kind_of(row)), []).append(row)
    chosen = []
    for (number, kind), members in sorted(groups.items()):
        picked = random.Random(f"{number} {kind}").sample(members, min(SAMPLES_PER_KIND, len(members)))
        chosen += [(rank, number, row) for rank, row in enumerate(picked)]
    return [row for _, _, row in sorted(chosen, key=lambda item: item[:2])]


def _embed(books: LedgerReader, rows: Iterable[TrajectoryRow]) -> tuple[list[TrajectoryView], dict[str, str]]:
    """The trajectories that fit, by round, and their pictures; each picture once, however often it was seen."""
    blobs = BlobStore(books.run_dir / "blobs")
    views: list[TrajectoryView] = []
    pictures: dict[str, str] = {}
    room = MAX_PICTURE_BYTES
    for view in _views(books, rows):
        new = {name: _picture(blobs, name) for name in view.pictures if name not in pictures}
        room -= sum(map(len, new.values())) * 3 // 4
        if room < 0:
            break
        views.append(view)
        pictures |= new
    return sorted(views, key=lambda view: (view.row.round, view.row.id)), pictures


def _views(books: LedgerReader, rows: Iterable[TrajectoryRow]) -> Iterator[TrajectoryView]:
    for row in rows:
        try:
            trajectory = books.load(row)
        except (OSError, LedgerError) as error:
            logger.warning("not shown: %s", error)
            continue
        steps = tuple(map(_step_view, trajectory.steps))
        yield TrajectoryView(row, kind_of(row), trajectory, steps, books.verdict(row.id), books.changes(row.id))


def _step_view(step: Step) -> StepView:
    return StepView(
        observation=step.observation,
        thought=step.thought,
        action=describe(step.action, step.observation) if step.action else "",
        malformed=step.malformed,
        response=step.response,
        weights=step.weights,
        model_s=step.model_s,
        browser_s=step.browser_s,
    )


def describe(action: Action, observation: Observation) -> str:
    """An action for people: its name, what it was done to, its text."""
    names = {element.mark: f"[{element.mark}] <{element.tag}> {element.name}" for element in observation.elements}
    target = "" if action.mark is None else names.get(action.mark, f"[{action.mark}]")
    name = action.kind.replace("_", " ").capitalize()
    return " · ".join(part for part in (name, target, action.text) if part)


def _picture(blobs: BlobStore, name: str) -> str:
    """A screenshot as base64 JPEG at the report's size; empty if it is missing or no picture."""
    try:
        with Image.open(io.BytesIO(blobs.get(name))) as picture:
            height_px = round(picture.height * PICTURE_WIDTH_PX / picture.width)
            small = picture.convert("RGB").resize((PICTURE_WIDTH_PX, height_px), Image.Resampling.LANCZOS)
    except OSError as error:
        logger.warning("picture %s not shown: %s", name, error)
        return ""
    out = io.BytesIO()
    small.save(out, "JPEG", quality=PICTURE_QUALITY, optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def render(data: ReportData) -> str:
    """The page as HTML."""
    script = _file("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            charts=[chart for chart in charts(data) if chart],
            measured=[figures for figures in data.rounds if figures.held_out_success is not None],
            running=any(state.phase is not Phase.DONE for state in data.states),
            style=Markup(_file("report.css")),
            script=Markup(script),
            script_digest=digest,
        )
    )


def charts(data: ReportData) -> list[Markup]:
    """The drawings above the table; empty ones for what was not measured."""
    verdicts = {figures.round: _verdicts(data.rows, figures.round) for figures in data.rounds}
    outcomes = {
        figures.round: {str(kind): figures.outcomes.get(kind, 0) for kind in Outcome} for figures in data.rounds
    }
    seconds = {figures.round: dict(figures.seconds) for figures in data.rounds}
    return [
        curves("Success by ground truth, 95 % intervals", success_series(data.rounds)),
        curves("The judge against ground truth", _judge_series(data.rounds)),
        curves("Canaries that the judge called a success, 95 % intervals", [_canary_series(data.rounds)]),
        curves("The judge's successes with side effects, 95 % intervals", [_side_effect_series(data.rounds)]),
        curves("Succeeded audits that the judge called a success, 95 % intervals", audit_series(data.rounds, "tpr")),
        curves("Failed audits that the judge called a success, 95 % intervals", audit_series(data.rounds, "fpr")),
        curves("Success by the judge, with and without the agent's thoughts", _thoughts_series(data.rounds)),
        bars("Practice episodes by the judge's verdict", verdicts),
        bars("Episodes by outcome", outcomes),
        bars("Seconds by phase", seconds, " s"),
    ]


def success_series(rounds: Sequence[RoundSummary]) -> list[Series]:
    """Held-out and unseen success by round, with intervals."""
    held_out = [
        Point(figures.round, figures.held_out_success, figures.ci_low, figures.ci_high, figures.n)
        for figures in rounds
        if figures.held_out_success is not None
    ]
    unseen = []
    for figures in rounds:
        if figures.unseen_success is not None:
            interval = wilson(round(figures.unseen_success * figures.unseen_n), figures.unseen_n)
            unseen.append(Point(figures.round, figures.unseen_success, interval.low, interval.high, figures.unseen_n))
    return [Series("held-out worlds", tuple(held_out)), Series("unseen site", tuple(unseen))]


def _judge_series(rounds: Sequence[RoundSummary]) -> list[Series]:
    shares = {
        "precision": [(figures.round, figures.judge_precision) for figures in rounds],
        "recall": [(figures.round, figures.judge_recall) for figures in rounds],
    }
    return _unmeasured_left_out(shares)


def _unmeasured_left_out(shares: Mapping[str, Sequence[tuple[int, float | None]]]) -> list[Series]:
    return [
        Series(name, tuple(Point(number, share) for number, share in pairs if share is not None))
        for name, pairs in shares.items()
    ]


def _canary_series(rounds: Sequence[RoundSummary]) -> Series:
    shares = [(figures.round, Share(figures.canaries_fooled, figures.canaries)) for figures in rounds]
    return _with_intervals("false positives", shares)


def _side_effect_series(rounds: Sequence[RoundSummary]) -> Series:
    shares = [
        (figures.round, Share(figures.successes_with_side_effects, figures.successes_known)) for figures in rounds
    ]
    return _with_intervals("with side effects", shares)


def _with_intervals(name: str, shares: Sequence[tuple[int, Share]]) -> Series:
    """Shares by round; those of nothing are left out."""
    return Series(
        name,
        tuple(
            Point(number, share.value, share.interval.low, share.interval.high, share.whole)
            for number, share in shares
            if share.value is not None
        ),
    )


def _thoughts_series(rounds: Sequence[RoundSummary]) -> list[Series]:
    shares = {
        "with thoughts": [(figures.round, figures.success_with_thoughts) for figures in rounds],
        "without": [(figures.round, figures.success_without_thoughts) for figures in rounds],
    }
    return _unmeasured_left_out(shares)


def audit_series(rounds: Sequence[RoundSummary], rate: Literal["tpr", "fpr"]) -> list[Series]:
    """One of the judge's rates by round, a series for each website that was audited."""
    websites = dict.fromkeys(website for figures in rounds for website in figures.audits)
    points = {
        website: tuple(
            Point(figures.round, share, *(getattr(row, f"{rate}_{end}") for end in ("low", "high", "n")))
            for figures in rounds
            if (row := figures.audits.get(website)) and (share := getattr(row, rate)) is not None
        )
        for website in websites
    }
    return [Series(website, found) for website, found in points.items()]


def _verdicts(rows: Iterable[TrajectoryRow], number: int) -> dict[str, int]:
    practised = [row for row in rows if row.round == number and row.purpose is Purpose.TRAIN]
    counts = {str(judgement): sum(row.judgement is judgement for row in practised) for judgement in Judgement}
    return counts | {"no verdict": sum(row.judgement is None for row in practised)}


def _file(name: str) -> str:
    return (TEMPLATES_DIR / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: "-" if share is None else f"{100 * share:.1f} %"
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment
