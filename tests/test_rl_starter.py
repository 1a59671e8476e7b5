"""The starter's parts: taught, and taught on from where they were."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.learner_speed import make_samples
from bench.scripted import write_tiny_model
from policy.blobs import BlobStore
from rl.starter import Recipe, _teach


def test_a_part_is_taught_on_from_where_it_was(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base")
    lessons, blobs = make_samples(4, 1000, seed=0), BlobStore(tmp_path / "blobs")
    settings = Recipe().learner.model_copy(update={"lr": 1e-2, "num_threads": 1})
    standstill = settings.model_copy(update={"lr": 1e-12})
    made = []
    for learner, part, goes_on in ((settings, "one", False), (standstill, "one", True), (standstill, "other", False)):
        _teach(tmp_path / "base", lessons, blobs, learner, tmp_path / part, goes_on=goes_on)
        made.append(load_file(tmp_path / part / "adapter_model.safetensors"))
    taught, taught_on, fresh = made
    assert taught.keys() == taught_on.keys()
    assert any("vision" in name for name in taught)
    for name, tensor in taught.items():
        torch.testing.assert_close(taught_on[name], tensor, rtol=0, atol=0)
    assert any(not torch.equal(fresh[name], tensor) for name, tensor in taught.items() if "lora_B" in name)
