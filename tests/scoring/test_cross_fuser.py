"""Labels and words that attend to each other: the package's own layers, over packed rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gliner_fast import CheckpointError, CheckpointWarning, GLiNER
from gliner_fast.scoring.cross_fuser import CrossFuser
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.trainer import prepare_model

WIDTH, HEADS, LAYERS = 12, 3, 2
SCHEMAS = ["l2l", "t2t", "l2t", "t2l", "l2l-l2t-t2t", "t2l-l2t-l2l-t2t"]
WORD_COUNTS, CLASS_COUNTS = [5, 1, 9, 130], [1, 7, 3, 2]


def fuser(schema: str, dropout: float = 0.3) -> CrossFuser:
    torch.manual_seed(1)
    made = CrossFuser(WIDTH, HEADS, LAYERS, schema, dropout)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def vectors(**options: Any) -> tuple[Tensor, Tensor]:
    """(N, D) words and (T, D) labels."""
    torch.manual_seed(0)
    return torch.randn(sum(WORD_COUNTS), WIDTH, **options), torch.randn(sum(CLASS_COUNTS), WIDTH, **options)


def fused(made: CrossFuser, words: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return made(words, labels, torch.tensor(WORD_COUNTS), torch.tensor(CLASS_COUNTS))


def padded(packed: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """(N, D) -> (B, L, D), and a mask of the rows."""
    rows = torch.nn.utils.rnn.pad_sequence(packed.split(counts), batch_first=True)
    return rows, torch.tensor([[place < count for place in range(rows.shape[1])] for count in counts]).long()


@pytest.mark.gliner
@pytest.mark.parametrize("schema", SCHEMAS)
def test_rows_and_gradients_are_those_of_the_package(schema: str) -> None:
    from gliner.modeling.layers import CrossFuser as Reference

    ours, theirs = fuser(schema).eval(), Reference(WIDTH, WIDTH, HEADS, LAYERS, 0.3, schema).eval()
    theirs.load_state_dict(ours.state_dict())  # by the same names
    leaves = vectors(requires_grad=True)
    found = fused(ours, *leaves)
    (words, word_mask), (labels, label_mask) = padded(leaves[0], WORD_COUNTS), padded(leaves[1], CLASS_COUNTS)
    labels, words = theirs(labels, words, label_mask, word_mask)
    wanted = words[word_mask.bool()], labels[label_mask.bool()]
    for own, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-5)
    weights = [torch.randn_like(own) for own in found]
    gradients = [
        torch.autograd.grad(sum((own * weight).sum() for own, weight in zip(rows, weights, strict=True)), leaves)
        for rows in (found, wanted)
    ]
    for own, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_text_does_not_see_those_beside_it(schema: str) -> None:
    made = fuser(schema).eval()
    words, labels = vectors()
    together = [
        own.split(counts) for own, counts in zip(fused(made, words, labels), (WORD_COUNTS, CLASS_COUNTS), strict=True)
    ]
    for place, (own_words, own_labels) in enumerate(
        zip(words.split(WORD_COUNTS), labels.split(CLASS_COUNTS), strict=True)
    ):
        alone = made(own_words, own_labels, torch.tensor([len(own_words)]), torch.tensor([len(own_labels)]))
        torch.testing.assert_close(together[0][place], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[1][place], alone[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("schema", "changed"), [("l2t", (False, True)), ("t2l", (True, False)), ("t2t", (True, False))]
)
def test_a_step_changes_those_who_attend(schema: str, changed: tuple[bool, bool]) -> None:
    given = vectors()
    found = fused(fuser(schema).eval(), *given)
    assert tuple(not torch.equal(own, before) for own, before in zip(found, given, strict=True)) == changed


def test_dropout_is_for_training_alone() -> None:
    made, given = fuser("l2l-l2t-t2t"), vectors()
    assert not torch.equal(fused(made, *given)[1], fused(made, *given)[1])
    made.eval()
    assert torch.equal(fused(made, *given)[1], fused(made, *given)[1])


def test_heads_part_the_width_evenly() -> None:
    with pytest.raises(
        CheckpointError, match=r"hidden_size 12: it must be a multiple of the encoder's 5 attention heads"
    ):
        CrossFuser(WIDTH, 5, 1, "l2l", 0.0)


def test_dropout_is_what_training_asks_for(checkpoint: Any) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi-fused"))
    prepare_model(model, TrainingConfig(output_dir="unused", dropout=0.25), torch.device("cpu"))
    own = [module for module in model.model.fuser.modules() if hasattr(module, "dropout")]
    found = {module.dropout.p if isinstance(module.dropout, torch.nn.Dropout) else module.dropout for module in own}
    assert (found, model.config.dropout) == ({0.25}, 0.25)


@pytest.mark.parametrize("layers", [-1, None, 1.5])
def test_layers_are_a_number_of_them(layers: Any) -> None:
    with pytest.raises(CheckpointError, match=f"num_post_fusion_layers is {layers}: expected a whole number"):
        CrossFuser(WIDTH, HEADS, layers, "l2l", 0.0)


def test_layers_that_the_settings_do_not_name_are_told(checkpoint: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("bi-fused"), tmp_path / "more"))
    tensors = load_file(folder / "model.safetensors")
    tensors["cross_fuser.layers.2.0.pre_norm.weight"] = torch.ones(48)
    save_file(tensors, folder / "model.safetensors")
    with pytest.warns(CheckpointWarning, match=r"holds 'cross_fuser\.layers\.2\.0\.pre_norm\.weight', which the"):
        GLiNER.from_pretrained(folder)


@pytest.mark.filterwarnings("error")
def test_layers_that_nobody_runs_are_passed_over(checkpoint: Any) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi-fused"), post_fusion_schema="")
    assert model.model.fuser is None
