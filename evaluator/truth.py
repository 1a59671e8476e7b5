"""Ground truth: what really happened, on practice sites, whose state can be read. For measuring only."""

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
