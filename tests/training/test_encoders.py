"""Every kind of encoder from a local folder: trained, saved, loaded by gliner; and what gliner saved, trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.trainer import start_model, train
from tests.parity.pairs import Pair
from tests.random_checkpoints import corpus
from tests.samples import CROSSNER, LABELS
from tests.tokenizer_makers import make_tokenizer
from tests.training.sentences import write_sentences

pytestmark = pytest.mark.gliner

_COMMON = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "pad_token_id": 0,
    "max_position_embeddings": 130,
}  # fmt: skip
_DEBERTA = {
    "type_vocab_size": 0, "relative_attention": True, "position_buckets": 32, "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
}  # fmt: skip
_T5 = {"d_kv": 16, "d_ff": 48}
# Family of the tokenizer, and settings of the encoder.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("wordpiece", {"model_type": "bert"}),
    "roberta": ("byte-bpe", {"model_type": "roberta", "type_vocab_size": 1}),
    "albert": ("unigram", {"model_type": "albert", "embedding_size": 16}),
    "electra": ("wordpiece", {"model_type": "electra", "embedding_size": 16}),
    "deberta-v2": ("unigram", {"model_type": "deberta-v2", **_DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v3": (
        "unigram",
        {"model_type": "deberta-v2", **_DEBERTA, "share_att_key": True, "position_biased_input": False},
    ),
    "t5": ("t5", {"model_type": "t5", **_T5}),
    "mt5": ("t5", {"model_type": "mt5", **_T5}),
}


def make_encoder(folder: Path, name: str, **changes: Any) -> Path:
    """Writes a random encoder with its tokenizer, as a Hub repository holds one; no GLiNER tokens in it.

    Args:
        folder: made if it is not there.
        name: in `ENCODERS`.
        **changes: settings of the encoder in place of those that it has there.
    """
    from transformers import AutoConfig, AutoModel

    family, settings = ENCODERS[name]
    tokenizer = make_tokenizer(family, corpus(), size=900, max_subwords=120)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    common = {**_COMMON, "initializer_range": 0.2}
    if family == "t5":
        common = {"d_model": 32, "num_layers": 2, "num_heads": 3}
    config = AutoConfig.for_model(**{**common, **settings, "vocab_size": len(tokenizer), **changes})
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ENCODERS)
def test_a_run_begins_with_the_pretrained_encoder(name: str, tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = make_encoder(tmp_path, name)
    encoder = start_model(TrainingConfig(output_dir="unused", encoder=str(folder))).model.encoder
    ids, lengths = torch.randint(5, 800, (2, 9), generator=torch.Generator().manual_seed(1)), torch.tensor([9, 6])
    mask = torch.arange(9) < lengths[:, None]
    with torch.inference_mode():
        whole = AutoModel.from_pretrained(folder).eval()
        wanted = (whole.encoder if name in ("t5", "mt5") else whole)(ids, mask.long()).last_hidden_state
        torch.testing.assert_close(encoder(ids, lengths)[mask], wanted[mask], rtol=0, atol=1e-5)


def test_a_decoder_that_is_left_out_is_not_told_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_encoder(tmp_path, "mt5")
    capfd.readouterr()
    start_model(TrainingConfig(output_dir="unused", encoder=str(folder)))
    assert "decoder" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ENCODERS)
def test_gliner_finds_the_same_in_what_was_trained_from_an_encoder(name: str, tmp_path: Path) -> None:
    config = TrainingConfig(
        output_dir=str(tmp_path / "run"),
        train=(TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl"))),),
        encoder=str(make_encoder(tmp_path / "encoder", name)),
        hidden_size=24,
        steps=3,
        lr_encoder=1e-3,
        lr_others=1e-2,
        device="cpu",
        batch_tokens=256,
    )
    report = train(config)
    pair = Pair.load(report.model)
    assert pair.check(CROSSNER[:6], LABELS, threshold=0.1, flat_ner=False)


def test_a_checkpoint_of_gliner_is_trained_further(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    # `checkpoint` folders are written by gliner; its .bin form here.
    config = TrainingConfig(
        output_dir=str(tmp_path / "run"),
        train=(TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl"))),),
        model=str(checkpoint("deberta-bin")),
        steps=2,
        device="cpu",
    )
    assert Pair.load(train(config).model).check(CROSSNER[:4], LABELS)
