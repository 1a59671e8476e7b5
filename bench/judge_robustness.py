"""How often is a judge fooled? Canaries of every family (evaluator/canaries.py) made from stored attempts, and judged.

Every success is a false positive by construction. The attempts come from run directories or folders of labels; without
any, scripted solutions of practice sites' gold tasks are acted out in the real browser first, and kept in --work.
Prints a line per family with a 95 % Wilson interval and writes what the judge said to <work>/fooled.jsonl.

    python -m bench.judge_robustness runs/quickstart
    python -m bench.judge_robustness --judge http://127.0.0.1:8000/v1#qwen
"""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.common import RUNS
from evaluator.agreement import Share
from evaluator.canaries import FAMILIES, Canary, make_canaries
from evaluator.labels import BLOBS, LABELS, LabelError, read_labels, read_trajectory
from evaluator.verdict import Judgement, Verdict
from launch import config as configs
from launch.books import LedgerError
from launch.config import Config, ConfigError
from launch.judging import Work, judge_all, judged_by
from launch.ledger import Ledger
from launch.team import open_judge
from policy.blobs import BlobStore
from policy.trajectory import Outcome, Trajectory
from rl.demonstrate import collect, solutions, training_tasks

SITES = ("shop", "forum")
WORLDS = range(9900, 9903)
"""Training worlds that the starter wasn't taught with."""
DONORS_PER_CASE = 6


class Pictures(BlobStore):
    """The work folder's store, with those of the attempts behind it."""

    def __init__(self, root: Path, sources: Sequence[Path]) -> None:
        """Put pictures into `root`; look for others in the folders of `sources`."""
        super().__init__(root)
        self._behind = [BlobStore(source / BLOBS) for source in sources]

    def get(self, name: str) -> bytes:
        """The bytes of a blob, wherever it is."""
        stores = [store for store in self._behind if store.path(name).exists()]
        return stores[0].get(name) if stores else super().get(name)


def stored(source: Path) -> Iterator[Trajectory]:
    """The finished attempts of a run or a folder of labels. Raises LedgerError or LabelError."""
    if (source / LABELS).is_file():
        yield from (read_trajectory(source, label) for label in read_labels(source))
        return
    with Ledger.open_readonly(source) as books:
        yield from (books.load(row) for row in books.trajectories() if row.outcome is Outcome.FINISHED)


def acted(work: Path, count: int, seed: int) -> list[Trajectory]:
    """Scripted solutions, acted out unless they lie in `work` already."""
    scripts = solutions(training_tasks(SITES, WORLDS))
    chosen = random.Random(seed).sample(scripts, min(count, len(scripts)))
    return asyncio.run(collect(work / "demonstrations", BlobStore(work / BLOBS), chosen))


async def verdicts_on(
    canaries: Sequence[Canary], config: Config, work: Path, pictures: BlobStore
) -> dict[str, Verdict]:
    """What the config's judge says of canaries, by id; those on which it was out are left out."""
    verdicts: dict[str, Verdict] = {}
    (work / "logs").mkdir(parents=True, exist_ok=True)
    async with open_judge(config, work, pictures) as judge:
        await judge_all(
            judge,
            canaries,
            lambda canary: canary.trajectory,
            lambda verdict: verdicts.update({verdict.trajectory_id: verdict}),
            Work(config.rollout.num_judgements, config.rollout.max_attempts),
        )
    return verdicts


def main(
    sources: Annotated[list[Path] | None, typer.Argument(help="Run directories or folders of labels.")] = None,
    judge: Annotated[str | None, typer.Option(help="As for `launch judge-eval`; default: the config's own.")] = None,
    config: Annotated[str, typer.Option(help="The config whose judge and settings are used.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Set a key of it.")] = None,
    cases: Annotated[int, typer.Option(help="Canaries of each family.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the choice of attempts and of the canaries.")] = 0,
    work: Annotated[Path, typer.Option(help="Where pictures, demonstrations and results are kept.")] = (
        RUNS / "judge_robustness"
    ),
) -> None:
    """Make the canaries, have them judged, and count the successes."""
    try:
        settings = judged_by(configs.load(config), judge, overrides or [])
        found = [trajectory for source in sources or [] for trajectory in stored(source)]
    except (ConfigError, LedgerError, LabelError) as error:
        raise typer.BadParameter(str(error)) from error
    wanted = DONORS_PER_CASE * cases
    donors = random.Random(seed).sample(found, min(wanted, len(found))) if sources else acted(work, wanted, seed)
    pictures = Pictures(work / BLOBS, sources or [])
    canaries = make_canaries(donors, pictures, cases * len(FAMILIES), seed)
    verdicts = asyncio.run(verdicts_on(canaries, settings, work, pictures))
    fooled = [canary for canary in canaries if _is_success(verdicts.get(canary.trajectory.id))]
    with (work / "fooled.jsonl").open("w", encoding="utf-8") as file:
        for canary in fooled:
            said = verdicts[canary.trajectory.id].model_dump(mode="json")
            file.write(json.dumps({"family": canary.family, "task": canary.trajectory.task.instruction} | said) + "\n")
    shares = {}
    for family in sorted(FAMILIES):
        judged = [canary for canary in canaries if canary.family == family and canary.trajectory.id in verdicts]
        shares[family] = Share(sum(canary in fooled for canary in judged), len(judged))
        print(f"{family:20} {shares[family].part:4} of {shares[family].whole:4} {shares[family]!s:>14} %")
    overall = Share(len(fooled), len(verdicts))
    figures = {
        "families": sum(share.whole > 0 for share in shares.values()),
        "cases": overall.whole,
        "fooled": overall.part,
        "fooled_share": overall.value,
        "fooled_ci_low": overall.interval.low,
        "fooled_ci_high": overall.interval.high,
        "fooled_by_family": {family: share.part for family, share in shares.items() if share.part},
        "no_verdict": len(canaries) - len(verdicts),
    }
    print(json.dumps(figures))


def _is_success(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.judgement is Judgement.SUCCESS


if __name__ == "__main__":
    typer.run(main)
