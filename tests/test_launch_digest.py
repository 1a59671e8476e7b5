"""Digests: what two runs that decide alike may differ by, and what not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from launch.books import Phase
from launch.digest import digest
from launch.ledger import Ledger
from rl.manifest import Sample, write_manifest
from rl.model import rounded_hash
from tests.makers import manifest_of


def digest_with(run_dir: Path, **changes: Any) -> str:
    told = {"prompt_ids": (1, 2), "token_ids": (3,), "logprobs": (-1.0,), "pictures": ("a" * 64,), "weights": 0}
    path = run_dir / "manifests" / "round-0001.json"
    path.parent.mkdir(parents=True)
    sample = Sample(trajectory_id="one", step=0, **(told | changes))
    sha256 = write_manifest(path, manifest_of([sample]))
    with Ledger(run_dir) as books:
        books.begin_round(1, Phase.PROPOSE)
        books.commit_manifest(1, "manifests/round-0001.json", sha256, 1)
        return digest(books)["manifests"]


def test_a_picture_that_was_drawn_otherwise_is_no_other_decision(tmp_path: Path) -> None:
    assert digest_with(tmp_path / "one") == digest_with(tmp_path / "two", pictures=("b" * 64,))


@pytest.mark.parametrize(
    "changes", [{"prompt_ids": (1, 4)}, {"token_ids": (4,)}, {"logprobs": (-2.0,)}, {"weights": 1}]
)
def test_anything_else_that_is_learned_from_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert digest_with(tmp_path / "one") != digest_with(tmp_path / "two", **changes)


def weights_of(directory: Path, *values: float) -> Path:
    directory.mkdir()
    save_file({"layer": torch.tensor(values)}, directory / "model.safetensors")
    (directory / "COMMIT.json").write_text("{}")
    return directory


def test_weights_are_told_apart_by_what_is_learned_and_not_by_the_shade_of_a_picture(tmp_path: Path) -> None:
    one, shaded, taught = (weights_of(tmp_path / f"{by}", 0.1 + by, -0.2) for by in (0.0, 2e-8, 1e-3))
    assert rounded_hash(one) == rounded_hash(shaded) != rounded_hash(taught)
    (one / "COMMIT.json").unlink()
    assert rounded_hash(one) is None
