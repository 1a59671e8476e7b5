"""Several judges, best of different families, that have to agree: what one is talked into, another may not be.

A success or failure is one that all say; anything else is undecided, so it reaches no reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluator.judge import Judge, ModelJudge
from evaluator.verdict import Judgement, Verdict
from policy.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Panel:
    """Judges, at least two, as one `Judge`; they are asked in order until one disagrees."""

    judges: Sequence[Judge]

    @property
    def name(self) -> str:
        """The names of all, also of those that a verdict didn't need."""
        return " + ".join(judge.name for judge in self.judges)

    @property
    def prompt_hash(self) -> str:
        """The hashes of all."""
        return "+".join(judge.prompt_hash for judge in self.judges)

    async def __call__(self, trajectory: Trajectory) -> Verdict:
        """What all agree on, else undecided. Raises ModelError if one that is needed is out."""
        verdicts: list[Verdict] = []
        for judge in self.judges:
            verdicts.append(await judge(trajectory))
            if verdicts[-1].judgement is Judgement.UNDECIDED or verdicts[-1].judgement is not verdicts[0].judgement:
                break
        judgements = {verdict.judgement for verdict in verdicts}
        costs = [verdict.cost for verdict in verdicts if verdict.cost]
        return Verdict(
            trajectory_id=trajectory.id,
            judgement=judgements.pop() if len(judgements) == 1 else Judgement.UNDECIDED,
            reason=" | ".join(f"{verdict.judge}: {verdict.reason}" for verdict in verdicts),
            judge=self.name,
            prompt_hash=self.prompt_hash,
            votes=tuple(vote for verdict in verdicts for vote in verdict.votes or (verdict.judgement,)),
            cost=sum(costs[1:], costs[0]) if costs else None,
        )


def seeing_thoughts(judge: Judge) -> Judge:
    """The same judge, or each of the same judges, but shown the agent's thoughts: to measure what that changes."""
    if isinstance(judge, Panel):
        return Panel(tuple(map(seeing_thoughts, judge.judges)))
    assert isinstance(judge, ModelJudge), "others are shown nothing, says the config"
    return replace(judge, thoughts=True)
