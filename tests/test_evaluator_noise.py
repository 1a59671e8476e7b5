"""The judge's noise: rates by hand, and rewards that are worth what the truth is, on average."""

import random

import pytest

from evaluator.agreement import Share
from evaluator.noise import JudgeError, Noise, brier, judge_error
from evaluator.verdict import Judgement, Verdict
from rl.algorithms.rloo import leave_one_out
from rl.algorithms.topr import TOPR

S, F, U = Judgement.SUCCESS, Judgement.FAILURE, Judgement.UNDECIDED


def verdict(judgement: Judgement, *votes: Judgement) -> Verdict:
    return Verdict(trajectory_id="t", judgement=judgement, reason="", judge="j", prompt_hash="h", votes=votes)


def test_rates_are_of_decided_verdicts() -> None:
    pairs = [(True, S), (True, S), (True, F), (True, U), (False, S), (False, F), (False, F), (False, F), (False, U)]
    error = judge_error((truth, verdict(judgement)) for truth, judgement in pairs)
    assert error == JudgeError(tpr=Share(2, 3), fpr=Share(1, 4))


def test_a_corrected_reward_is_worth_the_truth_on_average() -> None:
    noise = Noise(tpr=0.9, fpr=0.1)
    assert noise.gap == pytest.approx(0.8)
    assert [noise.corrected(1), noise.corrected(0)] == pytest.approx([1.125, -0.125])
    rng = random.Random(0)
    for _ in range(20):
        fpr = rng.uniform(0, 0.5)
        noise = Noise(tpr=rng.uniform(fpr + 0.1, 1), fpr=fpr)
        for truth, rate in ((1, noise.tpr), (0, noise.fpr)):
            assert rate * noise.corrected(1) + (1 - rate) * noise.corrected(0) == pytest.approx(truth)


@pytest.mark.parametrize(
    ("tpr", "fpr", "wanted"),
    [
        (Share(0, 0), Share(0, 0), (1.0, 0.0)),  # nothing is known, so nothing is corrected
        (Share(9, 10), Share(1, 10), (0.9821, 0.0179)),  # Wilson's ends, by hand
        (Share(900, 1000), Share(100, 1000), (0.9171, 0.0829)),  # close to the rates themselves
    ],
)
def test_no_more_is_corrected_than_the_intervals_force(tpr: Share, fpr: Share, wanted: tuple[float, float]) -> None:
    noise = JudgeError(tpr, fpr).noise
    assert (noise.tpr, noise.fpr) == pytest.approx(wanted, abs=5e-5)


def test_a_baseline_takes_the_false_positives_away_and_leaves_the_scale() -> None:
    noise = Noise(tpr=0.8, fpr=0.3)
    raw = [1.0, 0.0, 0.0, 1.0]
    corrected = leave_one_out([noise.corrected(reward) for reward in raw])
    assert corrected == pytest.approx([advantage / 0.5 for advantage in leave_one_out(raw)])


def test_what_topr_makes_of_corrected_rewards_is_the_correction_of_what_it_makes_of_raw_ones() -> None:
    tpr, fpr, share = 0.9, 0.1, 0.5
    of_success, of_failure = 1.0, -share
    wanted = [
        ((1 - fpr) * of_success - (1 - tpr) * of_failure) / (tpr - fpr),
        (tpr * of_failure - fpr * of_success) / (tpr - fpr),
    ]
    assert wanted == pytest.approx([1.1875, -0.6875])
    noise = Noise(tpr, fpr)
    assert TOPR().advantages([noise.corrected(1), noise.corrected(0)]) == pytest.approx(wanted)


def test_calibration_is_the_mean_square_of_vote_share_less_truth() -> None:
    pairs = [(True, verdict(S, S, S, F, S)), (False, verdict(U, S, F)), (False, verdict(F, F, F)), (True, verdict(S))]
    assert brier(pairs) == pytest.approx((0.25**2 + 0.5**2 + 0) / 3)
    assert brier([(True, verdict(S)), (False, verdict(F, F))]) is None  # one vote doesn't say how sure it is
