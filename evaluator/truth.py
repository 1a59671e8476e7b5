"""Ground truth: what really happened, on practice sites, whose state can be read.

For measuring, and for experiments that ask what a judge would be worth that never errs, or at known rates
(`TruthJudge`).
"""

import hashlib
import re
from dataclasses import dataclass

from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Trajectory
from proposer.task import Task
from sites.catalogue import SITES
from sites.contract import GoldTask, accomplished, gold_tasks

_ASKS = re.compile(
    r"\?\s*$|^(?:what|which|who|whose|how|when|where|tell (?:me|us)|count|compare|find out|look up)\b", re.I
)
_WISHES = re.compile(
    r"""\b(?:can|could|would|will)[ ]you\b
    | (?:^|[.?!:][ ]|\b(?:and|then)[ ])(?:then[ ]|also[ ]|please[ ])?(?: add | put | remove | delete | empty | order
    | buy | book | check[ ]out | post | write | reply | comment | send | submit | follow | upvote | vote | rate | review
    | bookmark | save | subscribe | set | change | switch | turn | create | open[ ]a | mark | close | assign )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""A question's form in which something is to be done all the same."""


def gold_task(gold_id: str) -> GoldTask:
    """The gold task with this id. Raises ValueError if there is none."""
    site, world, _ = gold_id.split("/", 2)
    for task in gold_tasks(SITES[site], world):
        if task.id == gold_id:
            return task
    raise ValueError(f"gold task {gold_id!r}: world {world} of {site} has no such task")


def ground_truth(trajectory: Trajectory) -> bool | None:
    """Whether a gold task was accomplished; None for proposed tasks and where the outcome isn't the agent's."""
    gold_id = trajectory.task.gold_id
    if gold_id is None or not trajectory.outcome.is_agents or trajectory.final_state is None:
        return None
    finished = trajectory.answer is not None  # an agent that never says it is done hasn't done its task
    return finished and accomplished(gold_task(gold_id).goal, trajectory.final_state, trajectory.answer)


def is_question(task: Task) -> bool:
    """Whether all that a task wants is an answer: by the gold task where there is one, else by its (English) words.

    "Could you add it to my cart?" and "Tell me its price and add it to my cart" want more.
    """
    if task.gold_id is not None:
        return bool(gold_task(task.gold_id).goal.answers)
    return is_asked(task.instruction)


def is_asked(instruction: str) -> bool:
    """The same by the words alone, which are all that a judge may go by; what it takes for a question surely is one."""
    return bool(_ASKS.search(instruction)) and not _WISHES.search(instruction)


class NoGroundTruthError(ValueError):
    """Ground truth was asked for where there is none."""


@dataclass(frozen=True, slots=True)
class TruthJudge:
    """Ground truth as a `Judge`, by wish with errors at known rates; it asks no model and is never undecided.

    Which verdicts err depends on the trajectory's id alone, so a run that goes on errs alike.
    """

    flip_successes: float = 0.0
    """Share of the true successes that it calls failures."""
    flip_failures: float = 0.0
    """Share of the true failures that it calls successes."""

    @property
    def name(self) -> str:
        """What stands in its verdicts."""
        return "truth with errors" if self.prompt_hash else "truth"

    @property
    def prompt_hash(self) -> str:
        """The rates; empty where it never errs."""
        rates = (self.flip_successes, self.flip_failures)
        return f"flips {rates[0]:g} of successes, {rates[1]:g} of failures" if any(rates) else ""

    async def __call__(self, trajectory: Trajectory) -> Verdict:
        """The truth, or its opposite. Raises NoGroundTruthError for tasks that aren't gold tasks of a practice site."""
        truth = ground_truth(trajectory)
        if truth is None:
            raise NoGroundTruthError(
                f"trajectory {trajectory.id}: the truth is known only of attempts at gold tasks of practice sites"
            )
        errs = _number_of(trajectory.id) < (self.flip_successes if truth else self.flip_failures)
        return Verdict(
            trajectory_id=trajectory.id,
            judgement=Judgement.SUCCESS if truth is not errs else Judgement.FAILURE,
            reason="ground truth, flipped" if errs else "ground truth",
            judge=self.name,
            prompt_hash=self.prompt_hash,
        )


def _number_of(name: str) -> float:
    """A number from 0 up to 1 that a name gives: as good as random, and always the same."""
    return int.from_bytes(hashlib.sha256(f"flip {name}".encode()).digest()[:8]) / 2**64
