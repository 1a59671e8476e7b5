"""vLLM worker extension: reload weights from a directory, the tied output head included.

vLLM loads this file into its worker (``--worker-extension-cls policy.reload.ReloadExtension``); nothing of vLLM is
imported here. On CPU vLLM packs the output head once at start; with tied embeddings a reload refreshes the embedding
but not the packed head, so the old head would go on answering without any error.
"""

from typing import Any


class ReloadExtension:
    """Mixed into vLLM's worker, so ``self`` is the worker."""

    model_runner: Any

    def load_weights_from(self, path: str) -> None:
        """Replace the served weights by those in a Hugging Face directory."""
        self.reload_weights(weights_path=path)  # type: ignore[attr-defined]  # the worker's own
        for module in self.model_runner.get_model().modules():
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)
