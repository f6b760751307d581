"""Which number format is the fastest here, and what is asked for by name."""

import pytest
import torch

from gliner_fast import precision
from gliner_fast.precision import fastest_native_dtype, parse_precision

CPU = torch.device("cpu")


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


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((8, 9), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_a_card_takes_bf16_from_ampere_on(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert fastest_native_dtype(torch.device("cuda")) is dtype
    assert fastest_native_dtype(torch.device("mps")) is torch.float32


@pytest.mark.parametrize(
    ("dtype", "quantize", "parsed"),
    [
        (None, None, (None, None)),
        ("fp32", "int8", (torch.float32, "int8")),
        ("INT16", None, (None, "int16")),
        ("int8", "int8", (None, "int8")),
        ("auto", "int16", (None, "int16")),
        ("auto", False, (torch.bfloat16, None)),
    ],
)
def test_whole_numbers_take_the_place_of_float32(dtype, quantize, parsed, monkeypatch):
    monkeypatch.setattr(precision, "fastest_native_dtype", lambda _: torch.bfloat16)
    assert parse_precision(dtype, quantize, CPU) == parsed


@pytest.mark.parametrize(
    ("dtype", "quantize", "message"),
    [
        ("int8", "int16", "dtype is 'int8' and quantize 'int16': leave one of them out"),
        ("Int16", "int8", "dtype is 'Int16' and quantize 'int8'"),
        ("bf16", "int8", r"torch\.bfloat16 on cpu was asked for"),
        (torch.int8, None, r"dtype is torch\.int8: .* give it as 'int8', a string"),
        (torch.int16, None, "give it as 'int16'"),
        (torch.int32, None, "expected a floating one"),
    ],
)
def test_what_contradicts_itself_is_refused(dtype, quantize, message):
    with pytest.raises(ValueError, match=message):
        parse_precision(dtype, quantize, CPU)
