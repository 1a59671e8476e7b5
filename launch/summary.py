"""The figures of a run: per round into the metrics, as a whole into ``summary.json``, and as a table to look at.

In: the books. Out: numbers. Success is ground truth; the judge's precision and recall are measured against it on the
same episodes.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.table import Table

from evaluator.agreement import Share, agreement, wilson
from launch import audit, side_effects
from launch.audit import AuditFigures
from launch.books import GateRow, LedgerReader, Phase, Purpose, TrajectoryRow
from launch.inbox import write_atomic
from launch.ledger import Ledger
from policy.trajectory import Outcome

SUMMARY = "summary.json"
STAGES = ("start", *(str(phase) for phase in Phase if phase is not Phase.DONE))
HIDDEN = "hidden"
"""Beside the phases: seconds of a round's proposing and rolling out that went by while the round before trained."""
SETUP_SECONDS = Path(".setup_s")
"""Written by `make setup`: how long it took, in seconds. The variable PAE_SETUP_S overrides it."""


class RoundSummary(BaseModel):
    """One round; None where nothing was measured."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    round: int
    """0 is the weights that the run starts from."""
    held_out_success: float | None
    """Share of gold tasks on held-out worlds that were accomplished, by ground truth."""
    n: int
    """Held-out episodes that ended by the agent's doing."""
    ci_low: float | None
    """Lower end of the 95 % Wilson interval of `held_out_success`."""
    ci_high: float | None
    """Upper end of it."""
    unseen_success: float | None
    """The same on sites that are never trained on."""
    unseen_n: int
    """Unseen-site episodes that ended by the agent's doing."""
    judge_precision: float | None
    """Of the round's measured episodes that the judge called a success, the share that were one."""
    judge_recall: float | None
    """Of those that were a success, the share that the judge called one."""
    canaries: int = 0
    """Attempts that can't be a success (launch/gauge.py) which the judge was shown."""
    canaries_fooled: int = 0
    """Those that it called a success."""
    thoughts_judged: int = 0
    """Episodes judged once more with the agent's thoughts shown (launch/thoughts.py)."""
    success_with_thoughts: float | None = None
    """Share of them that the judge called a success then."""
    success_without_thoughts: float | None = None
    """Share of them that it called a success without."""
    audits: dict[str, AuditFigures] = {}
    """What audits tell of the judge, by website (launch/audit.py)."""
    successes_known: int = 0
    """Episodes that the judge called a success and of which it is known what they changed beyond their task."""
    successes_with_side_effects: int = 0
    """Those of them that changed anything beyond it (launch/side_effects.py)."""
    gate: GateRow | None = None
    """How the round's new weights did against those before; None: they weren't compared."""
    tasks_proposed: int
    """Tasks that the proposer wrote."""
    tasks_kept: int
    """Tasks left after checking; the rest were rejected with a reason."""
    episodes: int
    """Episodes launched, for training and measuring."""
    outcomes: dict[str, int]
    """How they ended; sums to `episodes` once the round is done."""
    seconds: dict[str, float]
    """Wall time by phase; ``start``: of servers and workers, in the round that they were started for."""
    hidden_s: float = 0.0
    """Of the seconds of proposing and rolling out those that went by while the round before trained (`run.overlap`)."""


class RunSummary(BaseModel):
    """The whole run, as in ``summary.json``."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    wall_s: float
    """Seconds from the run's beginning to the last finished round's end, pauses before a resume included."""
    setup_s: float | None
    """Seconds that setting up took; None if unknown."""
    rounds: list[RoundSummary]
    """Finished rounds, oldest first."""


def summarise_round(ledger: LedgerReader, k: int) -> RoundSummary:
    """The figures of one round as far as it has got."""
    eval_rows = _agents(ledger.trajectories(k, Purpose.EVAL))
    unseen_rows = _agents(ledger.trajectories(k, Purpose.UNSEEN))
    num_successes = sum(row.truth is True for row in eval_rows)
    interval = wilson(num_successes, len(eval_rows)) if eval_rows else None
    judged = agreement(_truth_and_verdict(ledger, [*eval_rows, *unseen_rows]))
    proposals, metrics = ledger.proposals(k), ledger.metrics(k)
    spoiled = side_effects.of_successes(ledger, ledger.trajectories(k))
    return RoundSummary(
        round=k,
        held_out_success=_success(eval_rows),
        n=len(eval_rows),
        ci_low=interval.low if interval else None,
        ci_high=interval.high if interval else None,
        unseen_success=_success(unseen_rows),
        unseen_n=len(unseen_rows),
        judge_precision=judged.precision.value,
        judge_recall=judged.recall.value,
        canaries=int(metrics.get("canary/judged", 0)),
        canaries_fooled=int(metrics.get("canary/fooled", 0)),
        thoughts_judged=int(metrics.get("thoughts/judged", 0)),
        success_with_thoughts=metrics.get("thoughts/with"),
        success_without_thoughts=metrics.get("thoughts/without"),
        audits=audit.by_website(ledger, k),
        successes_known=spoiled.whole,
        successes_with_side_effects=spoiled.part,
        gate=ledger.gate(k),
        tasks_proposed=sum(row.num_proposed for row in proposals),
        tasks_kept=sum(row.num_kept for row in proposals),
        episodes=sum(ledger.num_episodes(k, purpose) for purpose in Purpose),
        outcomes={str(outcome): number for outcome, number in ledger.outcomes(k, tuple(Purpose)).items()},
        seconds={name: metrics.get(f"time/{name}", 0.0) for name in STAGES},
        hidden_s=metrics.get(f"time/{HIDDEN}", 0.0),
    )


def settle(ledger: Ledger, k: int) -> RoundSummary:
    """Keep a round's figures as they are now, so that no later summary counts its episodes again."""
    figures = summarise_round(ledger, k)
    ledger.set_figures(k, figures.model_dump_json())
    return figures


def _settled(ledger: Ledger, k: int) -> RoundSummary:
    text = ledger.figures(k)  # none where the round was done by a program that didn't keep them
    return RoundSummary.model_validate_json(text) if text else settle(ledger, k)


def _agents(rows: Iterable[TrajectoryRow]) -> list[TrajectoryRow]:
    return [row for row in rows if row.outcome.is_agents]


def _success(rows: list[TrajectoryRow]) -> float | None:
    return sum(row.truth is True for row in rows) / len(rows) if rows else None


def _truth_and_verdict(ledger: LedgerReader, rows: Iterable[TrajectoryRow]):
    for row in rows:
        verdict = ledger.verdict(row.id)
        if row.truth is not None and verdict is not None:
            yield row.truth, verdict


def round_metrics(ledger: LedgerReader, k: int) -> dict[str, float]:
    """The metrics of a round that follow from its rows: all but ``canary/ thoughts/ learn/ gate/ time/``."""
    figures = summarise_round(ledger, k)
    rows = ledger.trajectories(k)
    train_rows = [row for row in rows if row.purpose is Purpose.TRAIN]
    num_judged = sum(row.judgement is not None for row in train_rows)
    costs = [verdict.cost for row in rows if (verdict := ledger.verdict(row.id)) and verdict.cost]
    metrics: dict[str, float | None] = {
        "propose/proposed": figures.tasks_proposed,
        "propose/kept": figures.tasks_kept,
        "rollout/episodes": len(train_rows),
        "rollout/steps": sum(row.num_steps for row in train_rows),
        "rollout/malformed": sum(row.num_malformed for row in train_rows),
        "rollout/model_s": sum(row.model_s for row in train_rows),
        "rollout/browser_s": sum(row.browser_s for row in train_rows),
        "judge/judged": num_judged,
        "judge/outages": len(_agents(train_rows)) - num_judged,
        "judge/success": sum(row.judgement == "success" for row in train_rows) / num_judged if num_judged else None,
        "judge/replies": sum(cost.replies for cost in costs) if costs else None,
        "judge/seconds_per_verdict": sum(cost.seconds for cost in costs) / len(costs) if costs else None,
        "judge/prompt_tokens": _known_sum(cost.prompt_tokens for cost in costs),
        "judge/reply_tokens": _known_sum(cost.reply_tokens for cost in costs),
        "judge/undecided": sum(row.judgement == "undecided" for row in train_rows),
        "judge/precision": figures.judge_precision,
        "judge/recall": figures.judge_recall,
        "eval/held_out_success": figures.held_out_success,
        "eval/unseen_success": figures.unseen_success,
        "eval/n": figures.n,
        "eval/unseen_n": figures.unseen_n,
        **audit.metrics(figures.audits),
        **side_effects.metrics(ledger, rows, Share(figures.successes_with_side_effects, figures.successes_known)),
    }
    for outcome in Outcome:
        metrics[f"rollout/outcome/{outcome}"] = sum(row.outcome is outcome for row in train_rows)
    metrics |= _block_rates(ledger, k, train_rows)
    for row in ledger.proposals(k):
        for reason, number in row.rejections.items():
            key = f"propose/rejected/{reason.replace(' ', '_')}"
            metrics[key] = (metrics.get(key) or 0) + number
    return {key: value for key, value in metrics.items() if value is not None}


def _block_rates(ledger: LedgerReader, k: int, rows: Iterable[TrajectoryRow]) -> dict[str, float]:
    """Of the episodes on each live website the share that was blocked (keys ``rollout/block_rate/<website>``)."""
    websites = {task.id: task.website for task in ledger.tasks(k, Purpose.TRAIN)}
    ended: dict[str, list[bool]] = {}
    for row in rows:
        website = websites[row.task_id]
        if website.practice_site is None:
            ended.setdefault(website.name, []).append(row.outcome is Outcome.BLOCKED)
    return {f"rollout/block_rate/{name}": sum(blocked) / len(blocked) for name, blocked in ended.items()}


def _known_sum(numbers: Iterable[int | None]) -> int | None:
    """None where nothing is to be summed, or a part of it isn't known."""
    known = list(numbers)
    return sum(number or 0 for number in known) if known and None not in known else None


def summarise(ledger: Ledger) -> RunSummary:
    """The figures of the rounds that are done."""
    rounds = ledger.rounds()
    done = [row for row in rounds if row.phase is Phase.DONE]
    ends = [row.ended for row in done if row.ended is not None]
    return RunSummary(
        wall_s=max(ends) - float(ledger.meta("created") or rounds[0].begun) if ends else 0.0,
        setup_s=_setup_s(),
        rounds=[_settled(ledger, row.round) for row in done],
    )


def _setup_s() -> float | None:
    text = os.environ.get("PAE_SETUP_S") or (SETUP_SECONDS.read_text() if SETUP_SECONDS.is_file() else "")
    try:
        return float(text)
    except ValueError:
        return None


def write_summary(ledger: Ledger) -> Path:
    """Write ``summary.json`` into the run directory; its path."""
    path = ledger.run_dir / SUMMARY
    write_atomic(path, (json.dumps(summarise(ledger).model_dump(), indent=2) + "\n").encode())
    return path


def table(run: RunSummary) -> Table:
    """A row per round: ground-truth success with interval, the judge's error, tasks, episodes, where the time went."""
    title = "Shares in %. Success is ground truth; the judge is measured against it."
    result = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("\nround", "held-out\n\\[95 % CI] n", "unseen\nn", "judge\nP/R", "\ntasks"):
        result.add_column(heading, justify="right", no_wrap=True)
    for heading in ("\nepisodes", "\nseconds"):
        result.add_column(heading, no_wrap=True)
    for row in run.rounds:
        interval = f" \\[{_percent(row.ci_low, 0)}, {_percent(row.ci_high, 0)}] {row.n}" if row.n else ""
        result.add_row(
            str(row.round),
            f"{_percent(row.held_out_success)}{interval}",
            f"{_percent(row.unseen_success)} {row.unseen_n or ''}",
            f"{_percent(row.judge_precision, 0)}/{_percent(row.judge_recall, 0)}",
            f"{row.tasks_kept}/{row.tasks_proposed}",
            "\n".join(f"{number} {outcome}" for outcome, number in row.outcomes.items()),
            "\n".join(f"{s:.0f} {name}" for name, s in {**row.seconds, HIDDEN: row.hidden_s}.items() if s >= 0.5),
        )
    return result


def _percent(share: float | None, num_decimals: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{num_decimals}f}"
