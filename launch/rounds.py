"""The round loop: PAE's Algorithm 1 (arXiv 2412.13194), one line per phase.

| paper | here |
|---|---|
| c ~ C(. | z), the task proposer given context z | `stages.propose` -> proposer/propose.py |
| tau ~ pi_k(. | c), the agent's attempt | `stages.roll_out` -> policy/agent.py, on Ray workers (launch/workers.py) |
| r = R(tau, c), the evaluator's 0 or 1 | `stages.judge` -> evaluator/judge.py |
| D = {tau : r = 1}, filtered behaviour cloning | `stages.seal` -> rl/selection.py, rl/manifest.py |
| pi_k+1 = argmax E_D [log pi(a, thought | s)] | `stages.train` -> rl/learner.py, rl/algorithms/ |
| pi <- pi_k+1 | `stages.publish` -> policy/fleet.py |

Deviations from the paper:
- tasks are proposed anew in every round, on worlds or pages the proposer has just looked at, not once before training;
- a task is attempted several times, and selection balances over tasks and kinds and may ask a task's successes to
  agree on the answer, where the paper keeps every success;
- by config, the step after a failed one is sampled at a higher temperature;
- by config, another algorithm than filtered behaviour cloning, which learns from failures too (rl/algorithms/);
- each round learns from its own trajectories and, by config, from those of the last few, where the paper samples from
  a growing buffer;
- the judge may also be undecided; undecided and infrastructure failures reach no reward, where the paper counts 0;
- by config, some tasks only measure the judge, rewards are corrected for its error (launch/audit.py) and lessened for
  side effects (launch/side_effects.py), and new weights that do worse than those before on the same tasks aren't
  promoted (launch/promotion.py);
- the learner trains LoRA matrices by default and merges them; generation and learning take turns or, by config, a
  round's episodes are sampled while the round before trains, by weights one version older (`practising_ahead`);
- success is measured every round with gold tasks on held-out worlds, by ground truth that the learner never sees.

Every phase can be run again: it does what is missing, so going on after a crash is running the loop once more.
"""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from launch import stages, summary
from launch.books import Phase
from launch.disk import check_room
from launch.errors import Stopped
from launch.team import Team, together
from policy.crash import crash_point

logger = logging.getLogger(__name__)

Stage = Callable[[Team, int], Awaitable[None]]


async def run_rounds(team: Team) -> None:
    """Run what is missing of all rounds; round 0 only measures the weights that the run starts from.

    Raises:
        Stopped: asked to stop; everything finished is committed.
        RunFailed: too many episodes or verdicts failed for reasons that aren't the agent's, or the disk is filling up.
        ModelError: proposer or model server gave no answer.
    """
    for k in range(team.config.run.rounds + 1):
        if team.ledger.phase(k) is Phase.DONE:
            continue
        team.ledger.begin_round(k, Phase.PROPOSE if k else Phase.EVAL)
        await perform(team, k, Phase.PROPOSE, stages.propose)  # c ~ C(. | z)
        await perform(team, k, Phase.ROLLOUT, stages.roll_out)  # tau ~ pi_k(. | c); by config judged as they come in
        await perform(team, k, Phase.JUDGE, stages.judge)  # r = R(tau, c), the rest of them
        await perform(team, k, Phase.SEAL, stages.seal)  # D = {tau : r = 1}, balanced
        async with practising_ahead(team, k):  # by config: the next round's c ~ C, tau ~ pi_k meanwhile
            await perform(team, k, Phase.TRAIN, stages.train)  # pi_k -> pi_k+1
        await perform(team, k, Phase.GATE, stages.gate)  # by config: is pi_k+1 no worse? else it stays pi_k
        await perform(team, k, Phase.PUBLISH, stages.publish)
        await perform(team, k, Phase.EVAL, stages.evaluate)
        stages.record(team, k)


@contextlib.asynccontextmanager
async def practising_ahead(team: Team, k: int) -> AsyncIterator[None]:
    """By config, propose and roll out round k + 1 while round k is trained inside; both are done at the end.

    Nothing else of another round ever runs beside a round, so episodes are at most one version behind what learns from
    them, each is of one version, and weights are swapped, compared and measured while nothing rolls out. Round k in any
    later phase than TRAIN means that the next one's episodes are all in the books.
    """
    reached = team.ledger.phase(k)
    assert reached is not None, "the round has begun"
    if not team.config.run.overlap or k == team.config.run.rounds or reached.position > Phase.TRAIN.position:
        yield
        return
    begun = time.monotonic()
    async with together() as group:
        practising = group.create_task(_practise_ahead(team, k + 1))
        yield
        trained_s = time.monotonic() - begun
    team.ledger.add_seconds(k + 1, summary.HIDDEN, min(trained_s, practising.result()))
    crash_point("ahead:joined")


async def _practise_ahead(team: Team, k: int) -> float:
    """Propose and roll out; the seconds that took. Asked to stop, it ends early, and the phase after training tells."""
    begun = time.monotonic()
    team.ledger.begin_round(k, Phase.PROPOSE)
    with contextlib.suppress(Stopped):
        await perform(team, k, Phase.PROPOSE, stages.propose)
        await perform(team, k, Phase.ROLLOUT, stages.roll_out_ahead)
    crash_point("ahead:practised")
    return time.monotonic() - begun


async def perform(team: Team, k: int, phase: Phase, stage: Stage) -> None:
    """Do one phase of a round, unless the books say that the round is past it."""
    reached = team.ledger.phase(k)
    assert reached is not None, "the round has begun"
    if phase.position < reached.position:
        return
    team.check_stop()
    check_room(team.run_dir, team.config.run.stop_free_disk_gb)
    team.ledger.set_phase(k, phase)
    logger.info("round %d: %s", k, phase)
    begun = time.monotonic()
    try:
        await stage(team, k)
    finally:
        team.ledger.add_seconds(k, phase, time.monotonic() - begun)
