"""Ground truth: what really happened, on practice sites, whose state can be read.

For measuring, and for experiments that ask what a flawless judge would be worth (`TruthJudge`).
"""

from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Trajectory
from sites.catalogue import SITES
from sites.contract import GoldTask, accomplished, gold_tasks


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


class NoGroundTruthError(ValueError):
    """Ground truth was asked for where there is none."""


class TruthJudge:
    """Ground truth as a `Judge`; it asks no model and is never undecided."""

    name = "truth"
    prompt_hash = ""

    async def __call__(self, trajectory: Trajectory) -> Verdict:
        """The truth. Raises NoGroundTruthError for tasks that aren't gold tasks of a practice site."""
        truth = ground_truth(trajectory)
        if truth is None:
            raise NoGroundTruthError(
                f"trajectory {trajectory.id}: the truth is known only of attempts at gold tasks of practice sites"
            )
        return Verdict(
            trajectory_id=trajectory.id,
            judgement=Judgement.SUCCESS if truth else Judgement.FAILURE,
            reason="ground truth",
            judge=self.name,
            prompt_hash=self.prompt_hash,
        )
