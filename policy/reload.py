"""vLLM worker extension: reload weights from a directory, the tied output head included; lend memory to a learner.

vLLM loads this file into its worker (``--worker-extension-cls policy.reload.ReloadExtension``); nothing of vLLM is
imported here. On CPU vLLM packs the output head once at start; with tied embeddings a reload refreshes the embedding
but not the packed head, so the old head would go on answering without any error.
"""

import ctypes
import mmap
from typing import Any

MADV_DONTNEED = 4
"""As Linux numbers it."""


class ReloadExtension:
    """Mixed into vLLM's worker, so ``self`` is the worker."""

    model_runner: Any

    def load_weights_from(self, path: str) -> None:
        """Replace the served weights by those in a Hugging Face directory."""
        self.reload_weights(weights_path=path)  # type: ignore[attr-defined]  # the worker's own
        for module in self.model_runner.get_model().modules():
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)

    def release_memory(self) -> None:
        """Give the pages of the key-value cache back to the system; each comes again, zeros, once it is written to.

        On CPU alone, where nothing is being answered and no prefix is remembered.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        for cache in self.model_runner.kv_caches:
            storage = cache.untyped_storage()
            begin = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (storage.data_ptr() + storage.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
            if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED):
                raise OSError(ctypes.get_errno(), "madvise")
        libc.malloc_trim(0)
