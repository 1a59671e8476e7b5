"""The algorithms: numbers worked out by hand, finite differences, exact expectations, masks token by token."""

import importlib
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rl.algorithms.base import Algorithm, Batch, GroupAlgorithm
from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.grpo import GRPO
from rl.algorithms.off_policy import OffPolicy
from rl.algorithms.registry import AnyAlgorithm
from rl.algorithms.rloo import RLOO
from rl.algorithms.topr import TOPR
from rl.learner import LearnerSettings

REGISTERED: tuple[type[Algorithm], ...] = get_args(get_args(AnyAlgorithm)[0])
GROUPS = [RLOO(tokens_per_step=10), GRPO(tokens_per_step=10), OffPolicy(tokens_per_step=10)]
ALL = [FilteredBC(), TOPR(), *GROUPS, GRPO(tokens_per_step=10, kl=0.3)]
RATIOS = [[1.1, 1.5, 1.0], [0.5, 1.0, 3.0]]
"""How much likelier each token is than when it was sampled; the last one of the first row is padding."""
MASK = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
LOGPROBS = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, -3.0, -0.25]], dtype=torch.float64)


def name(algorithm: Algorithm) -> str:
    return f"{type(algorithm).__name__}{'+kl' if algorithm.needs_starter else ''}"


def batch(advantages: list[float], ratios: list[list[float]] = RATIOS, logprobs: Tensor = LOGPROBS) -> Batch:
    """Two samples of two and three tokens, in batches of two."""
    leaf = logprobs.clone().requires_grad_()
    return Batch(
        logprobs_BR=leaf,
        mask_BR=MASK,
        behaviour_BR=(logprobs - torch.tensor(ratios, dtype=torch.float64).log()) * MASK,
        starter_BR=torch.full_like(leaf, math.nan),
        advantages_B=torch.tensor(advantages, dtype=torch.float64),
        num_tokens=5,
        batch_size=2,
    )


def gradient(algorithm: Algorithm, given: Batch) -> list[list[float]]:
    """The loss's gradient for each token's log-prob."""
    return torch.autograd.grad(algorithm.loss(given).total, given.logprobs_BR)[0].tolist()


def near(rows: list[list[float]]) -> list[object]:
    return [pytest.approx(row, abs=1e-12) for row in rows]


@pytest.mark.parametrize(
    ("algorithm", "rewards", "advantages"),
    [
        (FilteredBC(), [1, 0, 1], [1, 0, 1]),
        (TOPR(), [1, 0, 1, 1], [1, -0.75, 1, 1]),
        (RLOO(), [1, 0, 0], [1, -0.5, -0.5]),
        (RLOO(), [1, 1, 1, 0], [1 / 3, 1 / 3, 1 / 3, -1]),
        (RLOO(), [1, 1], [0, 0]),
        (RLOO(), [1], [0]),
        (GRPO(), [1, 0, 0, 0], [0.75, -0.25, -0.25, -0.25]),
        (GRPO(), [0, 0], [0, 0]),
        (GRPO(), [1], [0]),
        (OffPolicy(), [1, 0], [1, -1]),
        (RLOO(baseline_share=0.25), [1, 0, 0], [1, -0.125, -0.125]),
        (RLOO(baseline_share=0.25), [1, 1, 0, 0], [11 / 12, 11 / 12, -1 / 6, -1 / 6]),
        (GRPO(baseline_share=0.25), [1, 1, 0, 0], [0.875, 0.875, -0.125, -0.125]),
        (OffPolicy(baseline_share=0), [1, 1, 0], [1, 1, 0]),
    ],
    ids=str,
)
def test_advantages_are_those_worked_out_by_hand(
    algorithm: Algorithm, rewards: list[float], advantages: list[float]
) -> None:
    assert algorithm.advantages(rewards) == pytest.approx(advantages)


def test_rloo_and_grpo_differ_by_the_factor_of_the_group_alone() -> None:
    for rewards in itertools.product((0, 1), repeat=5):
        assert RLOO().advantages(rewards) == pytest.approx([5 / 4 * a for a in GRPO().advantages(rewards)])


def test_filtered_bc_is_the_mean_of_the_tokens_logprobs() -> None:
    given = batch([1, 1])
    assert FilteredBC().loss(given).total.item() == pytest.approx((1 + 2 + 0.5 + 3 + 0.25) / 5)
    assert gradient(FilteredBC(), given) == near([[-0.2, -0.2, 0], [-0.2, -0.2, -0.2]])


def test_topr_unlearns_a_failure_the_less_the_further_it_is_unlearned() -> None:
    likelier = batch([1, -0.5])  # 0.5 * 1.0 * 3.0 is above 1
    assert gradient(TOPR(), likelier) == near([[-0.2, -0.2, 0], [0.1, 0.1, 0.1]])
    rarer = batch([1, -0.5], [[1.1, 1.5, 1.0], [0.5, 1.0, 0.4]])
    assert gradient(TOPR(), rarer) == near([[-0.2, -0.2, 0], [0.02, 0.02, 0.02]])
    assert TOPR().loss(rarer).total.item() == pytest.approx((3 - 0.1 * 3.75) / 5)


def test_topr_needs_no_logprobs_of_what_it_imitates() -> None:
    given = batch([1, -0.5])
    given.behaviour_BR[0, :2] = math.nan
    assert gradient(TOPR(), given) == near([[-0.2, -0.2, 0], [0.1, 0.1, 0.1]])


def test_rloo_weighs_every_token_by_its_trajectorys_advantage() -> None:
    given = batch([0.5, -0.5])
    loss = RLOO(tokens_per_step=10).loss(given).total
    assert loss.item() == pytest.approx(-(0.5 * -3 - 0.5 * -3.75) / 20)
    assert gradient(RLOO(tokens_per_step=10), given) == near([[-0.025, -0.025, 0], [0.025, 0.025, 0.025]])


def test_grpo_clips_what_has_gone_far_enough_and_nothing_else() -> None:
    given = batch([0.5, -0.5])
    loss = GRPO(tokens_per_step=10).loss(given)
    # min(1.1 A, 1.1 A), min(1.5 A, 1.28 A) for A = 0.5; min(0.5 A, 0.8 A), A, min(3 A, 1.28 A) for A = -0.5
    assert loss.total.item() == pytest.approx(-(0.55 + 0.64 - 0.4 - 0.5 - 1.5) / 20)
    assert gradient(GRPO(tokens_per_step=10), given) == near([[-0.55 / 20, 0, 0], [0, 0.5 / 20, 1.5 / 20]])
    assert loss.num_masked == 2


def test_grpo_clips_higher_above_than_below() -> None:
    given = batch([0.5, -0.5], [[1.25, 1.3, 1.0], [0.79, 0.81, 1.0]])
    rows = gradient(GRPO(tokens_per_step=10), given)
    assert rows == near([[-0.5 * 1.25 / 20, 0, 0], [0, 0.5 * 0.81 / 20, 0.5 / 20]])
    narrow = gradient(GRPO(tokens_per_step=10, clip_high=0.2), given)
    assert narrow[0] == [0, 0, 0]


def test_grpos_kl_term_pulls_back_in_proportion_to_how_far_a_token_has_gone() -> None:
    given = batch([0, 0])
    moved = torch.tensor([[0.2, -0.4, 0], [0, 1, 2]], dtype=torch.float64)
    given = replace(given, starter_BR=LOGPROBS - moved)
    loss = GRPO(tokens_per_step=10, kl=0.1).loss(given)
    assert loss.total.item() == pytest.approx(0.1 * (0.04 + 0.16 + 1 + 4) / 2 / 20)
    assert gradient(GRPO(tokens_per_step=10, kl=0.1), given) == near(
        [[0.1 * 0.2 / 20, 0.1 * -0.4 / 20, 0], [0, 0.1 / 20, 0.2 / 20]]
    )
    assert loss.sums["starter_kl"] == pytest.approx((0.04 + 0.16 + 1 + 4) / 2)


def test_off_policy_truncates_large_weights_and_drops_larger_ones() -> None:
    given = batch([0.5, -0.5], [[1.1, 10.5, 1.0], [0.5, 9.5, 2.0]])
    loss = OffPolicy(tokens_per_step=10).loss(given)
    assert loss.total.item() == pytest.approx(-(0.5 * 1.1 * -1 - 0.5 * (0.5 * -0.5 + 2 * -3 + 2 * -0.25)) / 20)
    assert gradient(OffPolicy(tokens_per_step=10), given) == near(
        [[-0.5 * 1.1 / 20, 0, 0], [0.5 * 0.5 / 20, 0.5 * 2 / 20, 0.5 * 2 / 20]]
    )
    assert (loss.num_masked, loss.sums) == (1, {"truncated_share": 1})


def test_off_policy_is_rloo_where_nothing_has_changed() -> None:
    given = batch([0.5, -0.5], [[1.0] * 3, [1.0] * 3])
    assert gradient(OffPolicy(), given) == gradient(RLOO(), given)


@pytest.mark.parametrize("algorithm", ALL, ids=name)
def test_gradients_are_those_of_finite_differences(algorithm: Algorithm) -> None:
    """Weights that carry no gradient are held: what they are computed from moves along with the log-probs."""
    held = isinstance(algorithm, TOPR | OffPolicy)
    log_ratios = torch.tensor(RATIOS, dtype=torch.float64).log()
    fixed = batch([0.7, -0.4])
    fixed = replace(fixed, starter_BR=LOGPROBS - 0.3)

    def loss(logprobs: Tensor) -> Tensor:
        behaviour = (logprobs.detach() - log_ratios) * MASK if held else fixed.behaviour_BR
        return algorithm.loss(replace(fixed, logprobs_BR=logprobs, behaviour_BR=behaviour)).total

    assert torch.autograd.gradcheck(loss, (fixed.logprobs_BR,))


@pytest.mark.parametrize("algorithm", ALL, ids=name)
def test_every_response_token_counts_and_no_other(algorithm: Algorithm) -> None:
    given = batch([0.7, -0.4], [[1.1, 1.05, 1.0], [0.9, 1.0, 1.2]])
    given = replace(given, starter_BR=(LOGPROBS - 0.3) * MASK)
    rows = gradient(algorithm, given)
    assert [[float(value != 0) for value in row] for row in rows] == MASK.tolist()
    padding = torch.where(MASK == 0, -7.0, 0.0)
    behaviour, starter = given.behaviour_BR + padding / 9, given.starter_BR + padding
    other = replace(
        given,
        logprobs_BR=(LOGPROBS + padding / 7).requires_grad_(),
        behaviour_BR=behaviour,
        starter_BR=starter,
    )
    assert algorithm.loss(other).total.item() == algorithm.loss(given).total.item()
    assert algorithm.loss(other).sums == algorithm.loss(given).sums
    assert gradient(algorithm, other) == rows


@pytest.mark.parametrize("algorithm", GROUPS, ids=name)
def test_a_token_weighs_the_same_in_short_and_long_responses_and_in_full_and_last_batches(
    algorithm: GroupAlgorithm,
) -> None:
    whole = batch([0.5, -0.5], [[1.0] * 3, [1.0] * 3])
    last = Batch(
        logprobs_BR=whole.logprobs_BR[:1, :1].detach().requires_grad_(),
        mask_BR=MASK[:1, :1],
        behaviour_BR=whole.behaviour_BR[:1, :1],
        starter_BR=whole.starter_BR[:1, :1],
        advantages_B=whole.advantages_B[:1],
        num_tokens=1,
        batch_size=2,
    )
    assert gradient(algorithm, last)[0][0] == gradient(algorithm, whole)[0][0] == gradient(algorithm, whole)[0][1]


@pytest.mark.parametrize("algorithm", [TOPR(), GRPO(), OffPolicy()], ids=name)
def test_a_failure_whose_behaviour_is_unknown_makes_no_loss_that_passes(algorithm: Algorithm) -> None:
    given = batch([0.5, -0.5])
    given.behaviour_BR[1] = math.nan
    assert math.isnan(algorithm.loss(given).total.item())


def bandit(algorithm: GroupAlgorithm, theta: Tensor, behaviour: Tensor, rewards: list[float]) -> Tensor:
    """The loss expected over all groups of two that a policy over three one-token responses samples."""
    expected = theta.new_zeros(())
    for pair in itertools.product(range(3), repeat=2):
        probability = behaviour.exp()[list(pair)].prod()
        given = Batch(
            logprobs_BR=theta.log_softmax(0)[list(pair)][:, None],
            mask_BR=theta.new_ones(2, 1),
            behaviour_BR=behaviour[list(pair)][:, None],
            starter_BR=theta.new_zeros(2, 1),
            advantages_B=theta.new_tensor(algorithm.advantages([rewards[action] for action in pair])),
            num_tokens=2,
            batch_size=2,
        )
        expected = expected + probability * algorithm.loss(given).total
    return expected


NOW = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
THEN = torch.tensor([-0.4, 0.6, 0.1], dtype=torch.float64).log_softmax(0)
REWARDS = [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("algorithm", "behaviour", "factor"),
    [
        (RLOO(tokens_per_step=1), NOW.log_softmax(0), 1.0),
        (GRPO(tokens_per_step=1), NOW.log_softmax(0), 1 / 2),
        (OffPolicy(tokens_per_step=1, truncate_at=99, drop_above=99), THEN, 1.0),
    ],
    ids=["rloo", "grpo", "off_policy"],
)
def test_the_expected_gradient_is_that_of_the_expected_reward(
    algorithm: GroupAlgorithm, behaviour: Tensor, factor: float
) -> None:
    """Also from samples of another policy, with importance weights; a mean that holds the attempt itself halves it."""
    theta = NOW.clone().requires_grad_()
    (found,) = torch.autograd.grad(bandit(algorithm, theta, behaviour, REWARDS), theta)
    reward = (theta.softmax(0) * theta.new_tensor(REWARDS)).sum()
    (exact,) = torch.autograd.grad(-factor * reward, theta)
    torch.testing.assert_close(found, exact)


def test_the_expected_gradient_of_the_kl_term_is_that_of_the_divergence_from_the_starter() -> None:
    starter = THEN
    theta = NOW.clone().requires_grad_()
    logprobs = theta.log_softmax(0)
    terms = []
    for action in range(3):
        given = Batch(
            logprobs_BR=logprobs[action].reshape(1, 1),
            mask_BR=theta.new_ones(1, 1),
            behaviour_BR=logprobs[action].detach().reshape(1, 1),
            starter_BR=starter[action].reshape(1, 1),
            advantages_B=theta.new_zeros(1),
            num_tokens=1,
            batch_size=1,
        )
        terms.append(logprobs[action].detach().exp() * GRPO(kl=1, tokens_per_step=1).loss(given).total)
    (found,) = torch.autograd.grad(sum(terms[1:], terms[0]), theta, retain_graph=True)
    (exact,) = torch.autograd.grad((logprobs.exp() * (logprobs - starter)).sum(), theta)
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("algorithm", REGISTERED)
def test_a_config_chooses_an_algorithm_by_its_name(algorithm: type[Algorithm]) -> None:
    chosen = LearnerSettings.model_validate({"algorithm": {"name": algorithm.model_fields["name"].default}}).algorithm
    assert chosen == algorithm()


@pytest.mark.parametrize("algorithm", REGISTERED)
def test_each_algorithm_says_where_it_is_from_and_how_it_deviates(algorithm: type[Algorithm]) -> None:
    text = importlib.import_module(algorithm.__module__).__doc__ or ""
    assert "A_i = " in text
    assert "L = " in text
    assert "arXiv" in text
    assert "Deviations" in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: OffPolicy(truncate_at=3, drop_above=2),
        lambda: GRPO(clip_low=1.5),
        lambda: GRPO(kl=-1),
        lambda: RLOO(tokens_per_step=0),
        lambda: LearnerSettings.model_validate({"algorithm": {"name": "ppo"}}),
        lambda: LearnerSettings.model_validate({"algorithm": {"name": "rloo", "kl": 0.1}}),
        lambda: LearnerSettings.model_validate({"algorithm": {"kl": 0.1}}),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()
