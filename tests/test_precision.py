"""Which number format is the fastest here."""

import pytest
import torch

from gliner_fast import precision
from gliner_fast.precision import fastest_native_dtype


@pytest.mark.parametrize(
    ("features", "is_intel", "dtype"),
    [
        (["avx2"], True, torch.float32),
        (["avx2", "avx512", "avx512_vnni"], True, torch.float32),
        (["avx512", "avx512_bf16"], True, torch.float32),
        (["avx512", "avx512_bf16"], False, torch.bfloat16),
        (["avx512", "avx512_bf16", "amx_bf16"], True, torch.bfloat16),
        (["amx_bf16"], True, torch.bfloat16),
        ([], False, torch.float32),
    ],
)
def test_a_cpu_takes_bf16_where_it_multiplies_it_faster(features, is_intel, dtype, monkeypatch):
    monkeypatch.setattr(precision, "cpu_features", lambda: features)
    monkeypatch.setattr(precision, "is_intel", lambda: is_intel)
    assert fastest_native_dtype(torch.device("cpu")) is dtype
