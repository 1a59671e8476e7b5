"""The algorithms that a config can name."""

from typing import Annotated

from pydantic import Field

from rl.algorithms.filtered_bc import FilteredBC
from rl.algorithms.grpo import GRPO
from rl.algorithms.off_policy import OffPolicy
from rl.algorithms.rloo import RLOO
from rl.algorithms.topr import TOPR

AnyAlgorithm = Annotated[FilteredBC | TOPR | RLOO | GRPO | OffPolicy, Field(discriminator="name")]
"""One of them, told apart by its name; a new one is added here."""
