"""What each phase of a round does. Every stage does only what the books say is missing, so it can be run again.

In: the team and the number of the round. Out: committed rows, files under the run directory, weights on the servers.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluator.judge import Judge
from evaluator.verdict import Judgement
from launch import audit, gauge, inbox, promotion, retention, side_effects, summary, thoughts
from launch.books import Episode, LedgerReader, Phase, ProposalRow, Purpose, TrajectoryRow, WeightsRow, weights_path
from launch.errors import RunFailed, WorkerLost
from launch.team import Team, together
from launch.turns import Turns, spared_host, unvisited
from launch.workers import Order, failed_trajectory
from policy.crash import crash_point
from policy.endpoint import EndpointSettings
from policy.trajectory import Outcome, Trajectory
from proposer.generate import Generate, ModelError, Sampling
from proposer.look import Look
from proposer.propose import propose as propose_tasks
from proposer.task import Task, Website
from rl.manifest import Manifest, read_manifest, write_manifest
from rl.selection import Judged, select
from rl.steplog import read_steps
from sites.catalogue import SITES
from sites.contract import gold_tasks

logger = logging.getLogger(__name__)

NUM_WORLDS = 1_000_000
"""Worlds are drawn from this many of each sort, so that two rounds hardly ever share one."""
PRACTISED = (Purpose.TRAIN, Purpose.AUDIT)
"""Purposes of the episodes that a round's policy samples."""
COMPARED = (Purpose.INCUMBENT, Purpose.CANDIDATE)
"""Purposes of the episodes by which a round's weights are compared."""
TELL_S = 1.0
"""Seconds from one look at a learner's progress to the next."""
MIN_TO_BREAK = 10
"""Failures fewer than this stop no round, whatever their share."""


@dataclass(frozen=True, slots=True)
class Practice:
    """Where tasks are to be proposed: a website (and world) and how many."""

    website: Website
    world: str | None
    num_tasks: int


def plan_practice(
    websites: Sequence[Website], num_tasks: int, tasks_per_world: int, seed: int, worlds: str = "train"
) -> list[Practice]:
    """Where a round practises: tasks spread evenly over the websites, and over fresh worlds of practice sites.

    `worlds` is the sort of worlds, as their names begin.
    """
    rng = random.Random(seed)
    order = rng.sample(websites, len(websites))  # the remainder falls on other websites each round
    plan = []
    for website, share in zip(order, spread(num_tasks, len(order)), strict=True):
        if website.practice_site is None:
            plan.append(Practice(website, None, share))
            continue
        num_worlds = math.ceil(share / tasks_per_world)
        names = [f"{worlds}-{number}" for number in rng.sample(range(NUM_WORLDS), num_worlds)]
        plan += [Practice(website, *pair) for pair in zip(names, spread(share, num_worlds), strict=True)]
    return [practice for practice in plan if practice.num_tasks]


def at_most(plan: Sequence[Practice], num_tasks: int) -> list[Practice]:
    """A plan with no more than so many tasks: those too many are taken from where most are to be proposed."""
    sizes = [practice.num_tasks for practice in plan]
    for _ in range(sum(sizes) - max(0, num_tasks)):
        sizes[sizes.index(max(sizes))] -= 1
    return [replace(practice, num_tasks=size) for practice, size in zip(plan, sizes, strict=True) if size]


def spread(total: int, num_parts: int) -> list[int]:
    """`total` in parts as even as can be, larger ones first: spread(7, 3) == [3, 2, 2]."""
    return [total // num_parts + (part < total % num_parts) for part in range(num_parts)]


def measured_tasks(
    websites: Sequence[Website], num_tasks: int, first_world: int, max_moves: int | None = None
) -> list[Task]:
    """Gold tasks on held-out worlds, spread evenly over the practice sites among the websites; always the same.

    `max_moves` leaves out tasks with longer solutions.
    """
    practised = [website for website in websites if website.practice_site is not None]
    shares = spread(num_tasks, len(practised)) if practised else []
    return [
        task
        for website, share in zip(practised, shares, strict=True)
        for task in itertools.islice(_held_out(website, first_world, max_moves), share)
    ]


def _held_out(website: Website, first_world: int, max_moves: int | None) -> Iterable[Task]:
    for number in itertools.count(first_world):
        yield from _gold_tasks(website, f"heldout-{number}", max_moves)


def _gold_tasks(website: Website, world: str, max_moves: int | None) -> Iterable[Task]:
    for gold in gold_tasks(SITES[website.practice_site or ""], world):
        if max_moves is None or len(gold.solution) <= max_moves:
            yield Task(website=website, instruction=gold.instruction, world=world, source="gold", gold_id=gold.id)


async def propose(team: Team, k: int) -> None:
    """c ~ C(. | z): tasks for fresh worlds of every training website, world after world, websites side by side."""
    rollout = team.config.rollout
    websites = team.config.websites_of("train")
    num_audits = team.config.num_audits
    if not team.ledger.num_episodes(k, Purpose.AUDIT):
        team.ledger.plan(k, Purpose.AUDIT, _fresh_gold(team, k, num_audits, "audit"), rollout.samples_per_task)
    num_tasks = rollout.tasks_per_round - num_audits
    plan = plan_practice(websites, num_tasks, rollout.tasks_per_world, team.seed(k, "worlds"))
    rows = team.ledger.proposals(k)
    done = {(row.website, row.world) for row in rows}
    missing = [practice for practice in plan if (practice.website.name, practice.world) not in done]
    # Where the config has changed since, what was proposed has no place in the plan, and still counts.
    missing = at_most(missing, num_tasks - sum(row.num_kept for row in rows))
    num_places = len(rows) + len(missing)
    if team.config.rollout.gold_tasks:
        for practice in missing:
            _plan_gold(team, k, practice)
        return
    generate = await team.model("proposer")
    held_out = {(task.website.name, task.instruction) for task in _measured(team, Purpose.EVAL)}

    team.watch(k, Phase.PROPOSE, len(rows), num_places)

    async def propose_on(website: Website) -> None:
        for practice in missing:
            if practice.website == website:
                avoid = {text for name, text in held_out if name == website.name}
                await _propose_in_world(team, k, practice, avoid, generate)
                team.watch(k, Phase.PROPOSE, len(team.ledger.proposals(k)), num_places)

    await team.each(websites, propose_on, team.workers.num_slots)


def _plan_gold(team: Team, k: int, practice: Practice) -> None:
    """In the place of proposals: some of a training world's gold tasks."""
    golds = _golds_of(team, practice)
    chosen = _some_of(team, k, practice, golds)
    spare = len(golds) - len(chosen)
    row = ProposalRow(k, practice.website.name, practice.world, len(golds), len(chosen), {"spare": spare})
    team.ledger.add_proposals(row, chosen, team.config.rollout.samples_per_task)


def _fresh_gold(team: Team, k: int, num_tasks: int, worlds: str) -> list[Task]:
    """Gold tasks of the training websites that are practice sites, on worlds of that sort, others in every round."""
    websites = [website for website in team.config.websites_of("train") if website.practice_site is not None]
    per_world, seed = team.config.rollout.tasks_per_world, team.seed(k, worlds)
    plan = plan_practice(websites, num_tasks, per_world, seed, worlds) if num_tasks else []
    return [task for practice in plan for task in _some_of(team, k, practice, _golds_of(team, practice))]


def _some_of(team: Team, k: int, practice: Practice, golds: list[Task]) -> list[Task]:
    """As many of a world's gold tasks as are to be practised, or all of them."""
    rng = random.Random(team.seed(k, practice.website.name, practice.world))
    return rng.sample(golds, min(practice.num_tasks, len(golds)))


def _golds_of(team: Team, practice: Practice) -> list[Task]:
    assert practice.world is not None, "a practice site's, says preflight"
    return list(_gold_tasks(practice.website, practice.world, team.config.evaluation.max_moves))


async def _propose_in_world(team: Team, k: int, practice: Practice, held_out: set[str], generate: Generate) -> None:
    website, world = practice.website, practice.world
    seed = team.seed(k, website.name, world)
    looks = await _look(team, website, world, seed)
    if not looks:
        team.ledger.add_event("unreachable", f"{website.name}: no page to propose from, so no tasks there", k)
        team.ledger.add_proposals(ProposalRow(k, website.name, world, 0, 0, {}), [], 0)
        return
    proposals = await propose_tasks(
        website,
        world,
        looks,
        generate,
        num_tasks=practice.num_tasks,
        taken=team.ledger.taken(website.name),
        held_out=held_out,
        settings=team.config.proposer,
        seed=seed,
    )
    num_kept = len(proposals.tasks)
    row = ProposalRow(k, website.name, world, proposals.num_proposed, num_kept, dict(proposals.rejections))
    crash_point("propose:proposed")
    team.ledger.add_proposals(row, proposals.tasks, team.config.rollout.samples_per_task)
    crash_point("propose:committed")


async def _look(team: Team, website: Website, world: str | None, seed: int) -> list[Look]:
    for _ in range(team.config.rollout.max_attempts):
        try:
            return await team.workers.look(website, world, team.config.rollout.num_pages, seed)
        except WorkerLost as error:
            team.ledger.add_event("retry", f"looking at {website.name}: {error}")
    return []


def _measured(team: Team, purpose: Purpose) -> list[Task]:
    settings = team.config.evaluation
    role, num_tasks = (
        ("train", settings.num_tasks) if purpose is Purpose.EVAL else ("unseen", settings.unseen_num_tasks)
    )
    return measured_tasks(team.config.websites_of(role), num_tasks, settings.first_world, settings.max_moves)


async def roll_out(team: Team, k: int) -> None:
    """tau ~ pi_k(. | c): every planned training episode, and audits; each is judged while others still roll out."""
    await _collect(team, k, PRACTISED, Phase.ROLLOUT, team.ledger.newest_weights(before_round=k))


async def roll_out_ahead(team: Team, k: int) -> None:
    """The same while the round before is trained: tau ~ pi_k-1(. | c), by the weights that this training begins with.

    What a round trains is therefore at most one version ahead of what sampled its episodes. Judgements that were begun
    are waited for: what comes next, comparing and measuring weights, has nothing beside it.
    """
    await _collect(team, k, PRACTISED, Phase.ROLLOUT, team.ledger.newest_weights(before_round=k - 1))
    await asyncio.gather(*team.judging)


async def _collect(team: Team, k: int, purposes: Sequence[Purpose], phase: Phase, weights: WeightsRow) -> None:
    """Bring every planned episode of these purposes to a committed trajectory."""
    await team.serve(weights)
    missing = [episode for purpose in purposes for episode in team.ledger.missing_episodes(k, purpose)]
    num_wanted = sum(team.ledger.num_episodes(k, purpose) for purpose in purposes)
    num_done = num_wanted - len(missing)
    streaming = await team.streaming_judge()

    team.watch(k, phase, num_done, num_wanted)

    turns = Turns(missing, team.config.rollout.browser.politeness)

    async def attempt(_: int) -> None:
        nonlocal num_done
        async with turns.next() as episode:
            if team.stop.is_set():
                return
            why_left = turns.why_left(episode)
            trajectory = _leave(team, episode, why_left) if why_left else await _attempt(team, episode, weights)
        turns.note(episode, trajectory.outcome)
        inbox.take(team.run_dir, team.ledger, trajectory)
        num_done += 1
        team.watch(k, phase, num_done, num_wanted)
        _break_on_failures(team, k, purposes)
        if trajectory.outcome.is_agents and streaming and episode.purpose.is_judged:
            team.judging.append(asyncio.create_task(_judge(team, trajectory, streaming)))

    await team.each(range(len(missing)), attempt, team.workers.num_slots)
    _check_books(team, k, purposes)


def _leave(team: Team, episode: Episode, why: str) -> Trajectory:
    """The record of an episode that isn't begun, since its website turns us away; it lies in the inbox."""
    left = {
        event.text.split()[0] for event in team.ledger.events() if (event.kind, event.round) == ("left", episode.round)
    }
    if spared_host(episode, team.config.rollout.browser.politeness) not in left:
        team.ledger.add_event("left", f"{why}: not visited any more in this round", episode.round)
    trajectory = unvisited(episode, why)
    inbox.deliver(team.run_dir, trajectory)
    return trajectory


def _order(team: Team, episode: Episode, policy: EndpointSettings, weights: WeightsRow) -> Order:
    agent = team.config.rollout.agent
    temperature = agent.temperature if episode.purpose in PRACTISED else team.config.evaluation.temperature
    drawn = (episode.round, episode.task.id) if episode.purpose in COMPARED else (episode.id,)  # alike for both weights
    sampling = Sampling(temperature, agent.max_tokens, team.seed(*drawn))
    return Order(episode.id, episode.task, policy, weights.version, sampling)


async def _attempt(team: Team, episode: Episode, weights: WeightsRow) -> Trajectory:
    """The episode's trajectory, tried again while the failure is ours and attempts are left; it lies in the inbox.

    Each attempt asks one of the policy's servers only, so that what it has cached of the episode is of use.

    Attempts count over the whole run, those of killed drivers too: what always takes its worker along ends some time.
    """
    while True:
        number = team.ledger.lease(episode.id)
        crash_point("rollout:leased")
        with team.fleet.least_busy() as server:
            num_starts = server.num_starts
            trajectory = await _run(team, _order(team, episode, server.endpoint, weights))
        if trajectory.outcome not in inbox.RETRIED or number >= team.config.rollout.max_attempts:
            return trajectory
        if trajectory.outcome is Outcome.MODEL_OUTAGE:
            await team.fleet.revive(server, num_starts)
        inbox.discard(team.run_dir, f"{trajectory.id}.json")
        team.ledger.add_event("retry", f"{trajectory.id}: {trajectory.outcome}: {trajectory.error}")


async def _run(team: Team, order: Order) -> Trajectory:
    """What came of one attempt; a worker that died is an outcome too, unless it had delivered one."""
    try:
        return inbox.read(team.run_dir, await team.workers.run(order))
    except WorkerLost as error:
        trajectory = inbox.delivered(team.run_dir, order.trajectory_id)
        if trajectory is None:
            trajectory = failed_trajectory(order, Outcome.BROWSER_CRASH, str(error))
            inbox.deliver(team.run_dir, trajectory)
        return trajectory


def _break_on_failures(team: Team, k: int, purposes: Sequence[Purpose]) -> None:
    """Raise RunFailed when too large a share of the committed episodes ended for reasons not the agent's."""
    outcomes = team.ledger.outcomes(k, purposes)
    failures = {outcome: number for outcome, number in outcomes.items() if not outcome.is_agents}
    num_failed, num_ended = sum(failures.values()), sum(outcomes.values())
    share = team.config.rollout.max_failure_share
    if num_failed >= MIN_TO_BREAK and num_failed > share * num_ended:
        worst = max(failures, key=failures.__getitem__)
        raise RunFailed(
            f"round {k}: {num_failed} of {num_ended} episodes ended for reasons not the agent's, mostly {worst} "
            f"(rollout.max_failure_share = {share}); `report` shows them, `resume` goes on"
        )


def _check_books(team: Team, k: int, purposes: Sequence[Purpose]) -> None:
    for purpose in purposes:
        num_wanted, num_ended = team.ledger.num_episodes(k, purpose), sum(team.ledger.outcomes(k, (purpose,)).values())
        assert num_wanted == num_ended, f"round {k} {purpose}: {num_wanted} episodes launched, {num_ended} outcomes"


async def _judge(team: Team, trajectory: Trajectory, judge: Judge) -> None:
    """r = R(tau, c), committed; a judge outage leaves the trajectory without verdict."""
    async with team.judge_slots:
        try:
            verdict = await judge(trajectory)
        except ModelError as error:
            logger.warning("%s: no verdict: %s", trajectory.id, error)
            return
    crash_point("judge:judged")
    team.ledger.commit_verdict(verdict)


async def judge(team: Team, k: int) -> None:
    """r = R(tau, c): the verdicts of the round's trajectories and audits that are still missing, and on canaries."""
    await judge_missing(team, k, PRACTISED, Phase.JUDGE)
    await thoughts.measure_gap(team, k)
    await gauge.watch_judge(team, k)


async def judge_missing(team: Team, k: int, purposes: Sequence[Purpose], phase: Phase) -> None:
    """Judge what ended by the agent's doing and has no verdict. Raises RunFailed if the judge is mostly out."""
    await asyncio.gather(*team.judging)
    team.judging.clear()
    rows = _judgeable(team, k, purposes)
    asked = await team.judge()

    async def judge_row(row: TrajectoryRow) -> None:
        await _judge(team, team.ledger.load(row), asked)
        team.watch(k, phase, sum(row.judgement is not None for row in _judgeable(team, k, purposes)), len(rows))

    for _ in range(team.config.rollout.max_attempts):
        missing = [row for row in _judgeable(team, k, purposes) if row.judgement is None]
        await team.each(missing, judge_row, team.config.rollout.num_judgements)
    num_out = sum(row.judgement is None for row in _judgeable(team, k, purposes))
    if num_out >= MIN_TO_BREAK and num_out > team.config.rollout.max_failure_share * len(rows):
        raise RunFailed(f"round {k}: the judge gave no verdict on {num_out} of {len(rows)} trajectories; then `resume`")


def _judgeable(team: Team, k: int, purposes: Sequence[Purpose]) -> list[TrajectoryRow]:
    return [row for purpose in purposes for row in team.ledger.trajectories(k, purpose) if row.outcome.is_agents]


def judged_attempts(books: LedgerReader, k: int, replay_rounds: int) -> list[Judged]:
    """The judged attempts of a round, and of so many before it."""
    lineage = [row.version for row in books.lineage(before_round=k)]

    def judged(row: TrajectoryRow, judgement: Judgement) -> Judged:
        trajectory = books.load(row)
        oldest = trajectory.weights
        staleness = 0 if oldest is None else sum(version > oldest for version in lineage)
        return Judged(trajectory, judgement, age=k - row.round, staleness=staleness)

    return [
        judged(row, row.judgement)
        for number in range(max(1, k - replay_rounds), k + 1)
        for row in books.trajectories(number, Purpose.TRAIN)
        if row.judgement is not None
    ]


async def seal(team: Team, k: int) -> None:
    """D = {tau : r = 1}, balanced, or what else the algorithm learns from: the manifest, all that the learner reads."""
    if team.ledger.is_sealed(k):
        return
    config = team.config
    found = judged_attempts(team.ledger, k, config.selection.replay_rounds)
    attempts = [attempt for attempt in found if attempt.staleness <= attempt.age + config.max_staleness]
    staleness = max((attempt.staleness for attempt in attempts), default=0)
    metrics: dict[str, float] = {"dropped_as_stale": len(found) - len(attempts), "max_staleness": staleness}
    if config.audit.correct:
        corrected = audit.correct(team.ledger, k, attempts, config.audit)
        attempts, metrics = corrected.attempts, {**metrics, **corrected.counts}
    attempts = side_effects.penalise(team.ledger, attempts, config.audit.side_effect_penalty)
    metrics["reduced_for_side_effects"] = sum(attempt.is_success and attempt.left < 1 for attempt in attempts)
    selection = select(attempts, config.selection, config.learner.algorithm.learns_from, team.seed(k, "selection"))
    path = f"manifests/round-{k:04d}.json"
    manifest = Manifest(round=k, samples=selection.samples, attempts=selection.attempts)
    sha256 = write_manifest(team.run_dir / path, manifest)
    crash_point("seal:written")
    metrics = {**metrics, **selection.counts}
    team.ledger.set_metrics(k, {f"learn/{key}": value for key, value in metrics.items()})
    team.ledger.commit_manifest(k, path, sha256, len(selection.samples))
    crash_point("seal:committed")


async def train(team: Team, k: int) -> None:
    """pi_k -> pi_k+1; where there is nothing to learn from, the weights stay as they are."""
    manifest = team.ledger.manifest(k)
    if manifest is None:
        _leave_unchanged(team, k, "nothing was selected")
        return
    lineage = team.ledger.lineage(before_round=k)
    parent = lineage[-1]
    sampler = lineage[-1 - (await asyncio.to_thread(read_manifest, manifest)).staleness]
    row = WeightsRow(k, parent.version, k, weights_path(k))
    settings = team.config.learner
    settings = settings.model_copy(update={"seed": team.seed(k, "learner", settings.seed)})
    path = team.weights_dir
    if not team.config.run.overlap:
        await team.fleet.rest()  # nothing is asked while the learner works, which may need the memory
    async with _telling_steps(team, k, path(row)):
        metrics = await team.workers.learn(manifest, path(parent), path(row), path(lineage[0]), path(sampler), settings)
    crash_point("train:learned")
    team.ledger.set_metrics(k, {f"learn/{key.removeprefix('learn/')}": value for key, value in metrics.items()})
    if metrics.get("learn/optimizer_steps") == 0:
        _leave_unchanged(team, k, f"{settings.algorithm.name} found nothing to learn from")
        return
    team.ledger.commit_weights(row)


@contextlib.asynccontextmanager
async def _telling_steps(team: Team, k: int, out: Path) -> AsyncIterator[None]:
    """Tell of an update's optimizer steps while it takes them; it does so in another process, by its log."""

    async def tell() -> None:
        if steps := await asyncio.to_thread(read_steps, out):
            team.watch(k, Phase.TRAIN, steps[-1].step, steps[-1].total)
            team.tracker.log_steps(k, steps)

    async def keep_telling() -> None:
        while True:
            await tell()
            await asyncio.sleep(TELL_S)

    async with together() as group:
        telling = group.create_task(keep_telling())
        yield
        telling.cancel()
    await tell()


def _leave_unchanged(team: Team, k: int, why: str) -> None:
    team.ledger.add_event("unchanged", f"{why}, so the weights stay as they are", k)


async def gate(team: Team, k: int) -> None:
    """Whether pi_k+1 is promoted: it is unless it loses to pi_k, on the same gold tasks, by more than chance."""
    settings, incumbent = team.config.promotion, team.ledger.newest_weights(before_round=k)
    candidate = next((row for row in team.ledger.weights() if row.round == k), None)
    if not settings.num_tasks or candidate is None or team.ledger.gate(k):
        return
    tasks = _fresh_gold(team, k, settings.num_tasks, "gate")
    for number, (purpose, weights) in enumerate(zip(COMPARED, (incumbent, candidate), strict=True)):
        team.ledger.plan(k, purpose, tasks, num_samples=1, first_sample=number)
        await _collect(team, k, (purpose,), Phase.GATE, weights)
    row = promotion.compare(team.ledger, k, candidate, incumbent, settings)
    crash_point("gate:compared")
    team.ledger.set_metrics(k, promotion.metrics(row))
    team.ledger.commit_gate(row, promotion.in_words(row, settings))
    logger.log(logging.INFO if row.promoted else logging.WARNING, "round %d: %s", k, promotion.in_words(row, settings))
    crash_point("gate:committed")


async def publish(team: Team, k: int) -> None:
    """The policy's servers answer with the newest promoted weights."""
    await team.serve(team.ledger.newest_weights(before_round=k + 1))


async def evaluate(team: Team, k: int) -> None:
    """Held-out and unseen gold tasks, with the round's new weights; judged too, to measure the judge."""
    if k % team.config.evaluation.every_rounds and k != team.config.run.rounds:
        return
    purposes = (Purpose.EVAL, Purpose.UNSEEN)
    for purpose in purposes:
        team.ledger.plan(k, purpose, _measured(team, purpose), num_samples=1)
    await _collect(team, k, purposes, Phase.EVAL, team.ledger.newest_weights(before_round=k + 1))
    await judge_missing(team, k, purposes, Phase.EVAL)


def record(team: Team, k: int) -> None:
    """The round's figures into the books, its last phase, and the run's summary; weights that aren't kept go."""
    team.ledger.set_metrics(k, summary.round_metrics(team.ledger, k))
    team.tracker.log(k, team.ledger.metrics(k))
    crash_point("record:logged")
    summary.settle(team.ledger, k)
    retention.drop_weights(team.ledger, team.config.retention)
    team.ledger.set_phase(k, Phase.DONE)
    crash_point("record:done")
    summary.write_summary(team.ledger)
