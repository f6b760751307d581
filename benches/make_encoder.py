"""Encoders to compare where none can be fetched: `paper_shape encoders` takes their folders.

    python -m benches.make_encoder untrained MINILM OUT           the same shape and tokenizer, random weights
    python -m benches.make_encoder onnx MODEL.onnx MINILM OUT     a BERT's weights out of an ONNX export

MINILM is an encoder's folder of BERT's kind. OUT's parent names the encoder in the table. ONNX files are read by the
package `onnx` (extra `peers`).
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_PART = re.compile(r"\b(embeddings|encoder)[./].*")  # of a name: what stands before it is the exporter's


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    untrained = kinds.add_parser("untrained", help="random weights")
    untrained.add_argument("--seed", type=int, default=0)
    onnx = kinds.add_parser("onnx", help="weights of an ONNX export")
    onnx.add_argument("file", type=Path)
    for kind in (untrained, onnx):
        kind.add_argument("like", type=Path, help="folder with config.json and tokenizer")
        kind.add_argument("out", type=Path, help="folder to make")
    options = parser.parse_args(arguments)
    if options.kind == "untrained":
        make_untrained(options.like, options.out, options.seed)
    else:
        make_from_onnx(options.file, options.like, options.out)


def make_untrained(like: Path, out: Path, seed: int) -> None:
    """The encoder of a folder with weights drawn anew."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    _save(AutoModel.from_config(AutoConfig.from_pretrained(like)), like, out)


def make_from_onnx(file: Path, like: Path, out: Path) -> None:
    """A BERT as torch exported it: as many layers as are in the file, all other settings as the folder `like` has them.

    Raises:
        RuntimeError: the file lacks a weight, or has one of another shape.
    """
    from transformers import AutoConfig, BertModel

    weights = _weights_of(file)
    layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
    config = AutoConfig.from_pretrained(like, num_hidden_layers=len(layers))
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(weights, strict=True)
    _save(model, like, out)


def _weights_of(file: Path) -> dict[str, Tensor]:
    """Weights by the names that transformers gives them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    tensors = {part.name: torch.from_numpy(numpy_helper.to_array(part).copy()) for part in graph.initializer}
    found = {}
    for name, tensor in tensors.items():
        if part := _PART.search(name):
            found[part[0]] = tensor
    for node in graph.node:  # a matrix has lost its name: the product that it is for has it
        part = _PART.search(node.name.removesuffix("/MatMul"))
        if node.op_type == "MatMul" and part and node.input[1] in tensors:
            found[part[0].replace("/", ".") + ".weight"] = tensors[node.input[1]].T.contiguous()
    return found


def _save(model: PreTrainedModel, like: Path, out: Path) -> None:
    model.save_pretrained(out)
    for name in BESIDE:
        if (like / name).exists():
            shutil.copyfile(like / name, out / name)
    print(f"{sum(part.numel() for part in model.parameters()):,} weights in {out}")


if __name__ == "__main__":
    main()
