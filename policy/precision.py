"""In which number format this machine multiplies matrices."""

from functools import cache
from pathlib import Path

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux names what x86 processors (the first two) and ARM's can do."""


@cache  # the learner asks before every forward pass
def multiplies_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bf16 products; without them they are a hundred times slower than fp32.

    (1.3 against 137 GFLOP/s, 512 x 576 by 576 x 1536, torch 2.13 on two cores with AVX2.) False where Linux doesn't
    tell.
    """
    return cpuinfo.is_file() and not BF16_FLAGS.isdisjoint(cpuinfo.read_text(errors="replace").split())
