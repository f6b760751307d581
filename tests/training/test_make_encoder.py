"""Encoders that are made for comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel

from benches.make_encoder import main


@pytest.fixture
def like(tmp_path: Path) -> Path:
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    torch.manual_seed(5)
    folder = tmp_path / "like"
    BertModel(config).eval().save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    return folder


def states(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        hidden: torch.Tensor = AutoModel.from_pretrained(folder).eval()(torch.tensor([[3, 7, 9]])).last_hidden_state
    return hidden


def test_untrained_is_of_the_same_shape_with_other_weights(like: Path, tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(["untrained", str(like), str(tmp_path / name), "--seed", str(seed)])
    assert (tmp_path / "a" / "vocab.txt").read_text(encoding="utf-8") == "[PAD]\n"
    assert torch.equal(states(tmp_path / "a"), states(tmp_path / "b"))
    for other in (tmp_path / "c", like):
        assert not torch.allclose(states(tmp_path / "a"), states(other))


def test_an_onnx_export_gives_back_the_weights(like: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx", reason="needs the extra `peers`")
    from onnx import helper, numpy_helper

    # As torch names them: matrices transposed and nameless, told by the products that they are for.
    nodes, tensors = [], []
    for name, weight in AutoModel.from_pretrained(like).state_dict().items():
        if name.startswith("encoder") and weight.dim() == 2:
            node = f"/model/{name.removesuffix('.weight').replace('.', '/')}/MatMul"
            tensors.append(numpy_helper.from_array(weight.T.contiguous().numpy(), f"onnx::MatMul_{len(tensors)}"))
            nodes.append(helper.make_node("MatMul", ["x", tensors[-1].name], [f"y{len(tensors)}"], name=node))
        elif not name.startswith("pooler"):
            tensors.append(numpy_helper.from_array(weight.numpy(), f"model.{name}"))
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "bert", [], [], tensors)), str(file))
    main(["onnx", str(file), str(like), str(tmp_path / "out")])
    torch.testing.assert_close(states(tmp_path / "out"), states(like))
