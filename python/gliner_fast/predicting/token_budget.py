"""How many subwords make a batch, where the user has not said it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gliner_fast.cpu.heap import LARGEST_KEPT
from gliner_fast.cpu.linear import has_amx
from gliner_fast.encoder import encoder_width

if TYPE_CHECKING:
    from gliner_fast.network import Network

# Most subwords a batch. On an EPYC 7003 (2026-11-25, two threads, short texts, base size, `GLiNER.token_budget` set by
# hand) 768 were 1.06 times as fast as 512 and 1.07 times as fast as 1,024: then the activations outgrow the caches.
_CPU_BUDGET = 768
_CPU_BUDGET_PER_THREAD = 256
# bf16 with AMX multiplies some six times as fast, and so waits more for what surrounds a product. On a Xeon with AMX
# (2026-11-28, two threads, base size, `GLiNER.token_budget` set by hand) 3,072 were 1.25 times as fast as 768 with
# short texts, 1.3 with mixed and 1.15 with long ones.
_AMX_BUDGET = 3072
_AMX_BUDGET_PER_THREAD = 1024
# However large or small the tensors of a subword are.
_LEAST_CPU_BUDGET, _MOST_CPU_BUDGET = 256, 2**14
# The host takes the same time to start a batch's kernels however large it is, and the card should take longer for
# them. On an H200 (2026-11-28, base size in bf16, short and mixed texts, `GLiNER.token_budget` set by hand) 65,536 were
# 1.3 to 1.4 times as fast as 32,768, and 131,072 no faster.
_GPU_BUDGET = 2**16
_LEAST_GPU_BUDGET = 2**9
# The rest is for what `bytes_per_subword` does not count: libraries' workspaces, candidates, other programs.
_SHARE_OF_FREE_MEMORY = 0.5


def default_budget(network: Network, device: torch.device) -> int:
    """The budget for a device: by threads and width on a CPU; by free memory on CUDA, and halved later if too high."""
    if device.type == "cpu":
        return _cpu_budget(network)
    if device.type != "cuda":
        return _GPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it for the next
    fitting = int(_SHARE_OF_FREE_MEMORY * free) // bytes_per_subword(network)
    return max(_LEAST_GPU_BUDGET, min(_GPU_BUDGET, fitting))


def _cpu_budget(network: Network) -> int:
    """By threads; but no tensor of a layer is so large that the system is asked for it, and gets it back, each time."""
    weight, threads = next(network.parameters()), torch.get_num_threads()
    budget = max(_CPU_BUDGET, _CPU_BUDGET_PER_THREAD * threads)
    if weight.dtype is torch.bfloat16 and has_amx():
        budget = max(_AMX_BUDGET, _AMX_BUDGET_PER_THREAD * threads)
    inner = 4 * encoder_width(network.encoder) * weight.element_size()  # of a subword, between the two last products
    return max(_LEAST_CPU_BUDGET, min(budget, _MOST_CPU_BUDGET, LARGEST_KEPT // inner - 1))


def bytes_per_subword(network: Network) -> int:
    """What a packed subword holds at once at most, if it is a word: activations of a layer, and of the span head."""
    width, weight = encoder_width(network.encoder), next(network.parameters())
    layer = 6 * width + 2 * 4 * width  # residual, output and queries, keys, values, context; twice the inner layer
    head_width = network.scorer.width
    head = 4 * head_width + 4 * 4 * head_width  # vectors before and after the LSTM; halves and inner layers
    return weight.element_size() * (layer + head) + 8 * 8  # and its integers
