"""A deliberately weak judge, for rehearsing what a policy makes of one: it believes whoever gives an answer."""

from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Trajectory


class CredulousJudge:
    """Answering as a success, as a `Judge`; it asks no model and is never undecided."""

    name = "credulous"
    prompt_hash = ""

    async def __call__(self, trajectory: Trajectory) -> Verdict:
        """Success if the agent answered, whatever it did and said."""
        answered = trajectory.answer is not None
        return Verdict(
            trajectory_id=trajectory.id,
            judgement=Judgement.SUCCESS if answered else Judgement.FAILURE,
            reason="it gave an answer" if answered else "it gave no answer",
            judge=self.name,
            prompt_hash=self.prompt_hash,
        )
