"""Makes models of stanza with random weights, for no downloading: its own code loads and runs them, at their true size.

    make_stanza_models(Path("out"), {"en": "A text whose characters the model knows."})  # STANZA_RESOURCES_DIR=out

Where they cut texts means nothing, but they do it alike in both packages, and words have blanks, parts and gaps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

KNOWN_TO_STANZA = "".join(map(chr, range(32, 127))) + "\näöüßéè"
_FEATURES = ["space_before", "capitalized", "numeric", "end_of_para", "start_of_para"]
_TOKENIZER = {
    "emb_dim": 32, "hidden_dim": 64, "rnn_layers": 1, "hierarchical": True, "hier_invtemp": 0.5, "conv_res": None,
    "feat_funcs": _FEATURES, "feat_dim": len(_FEATURES), "dropout": 0.0, "feat_dropout": 0.0, "tok_noise": 0.0,
    "input_dropout": False, "charlm_forward_file": None, "use_dictionary": False, "skip_newline": False,
    "max_seqlen": 100, "batch_size": 32, "lr0": 1e-3, "weight_decay": 0.0,
}  # fmt: skip


def make_stanza_models(
    folder: Path, alphabets: Mapping[str, str], expansions: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Writes a tokenizer for each language, each with other weights.

    Args:
        folder: what STANZA_RESOURCES_DIR is to name.
        alphabets: the characters that each language's model knows; "" for a language that is known, without a model.
        expansions: of languages that have multi-word tokens, what these are split into, such as {"zum": "zu dem"}.
    """
    resources: dict[str, Any] = {}
    for seed, (language, characters) in enumerate(alphabets.items()):
        parts = (expansions or {}).get(language)
        models = {"tokenize": folder / language / "tokenize" / "tiny.pt"}
        if characters:
            _write_tokenizer(models["tokenize"], language, characters, seed, has_parts=parts is not None)
        if parts is not None:
            models["mwt"] = folder / language / "mwt" / "tiny.pt"
            _write_expander(models["mwt"], language, parts)
        resources[language] = {
            "lang_name": language,
            "packages": {"default": dict.fromkeys(models, "tiny")},
            **{name: {"tiny": {"md5": _digest(path) if characters else ""}} for name, path in models.items()},
        }
    (folder / "resources.json").write_text(json.dumps(resources), encoding="utf-8")


def _write_tokenizer(path: Path, language: str, characters: str, seed: int, *, has_parts: bool) -> None:
    from stanza.models.tokenization.trainer import Trainer
    from stanza.models.tokenization.vocab import Vocab

    vocab = Vocab([[(character, 0) for character in characters]], language)
    settings = {"lang": language, "shorthand": f"{language}_tiny", "use_mwt": has_parts, "vocab_size": len(vocab)}
    trainer = Trainer(args=_TOKENIZER | settings, vocab=vocab)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random))
        if has_parts:  # many short words, most of them of parts
            trainer.model.tok_clf.bias.fill_(8.0)
            trainer.model.mwt_clf.bias.fill_(8.0)
    _save(trainer, path)


def _write_expander(path: Path, language: str, expansions: Mapping[str, str]) -> None:
    from stanza.models.mwt.trainer import Trainer
    from stanza.models.mwt.vocab import Vocab

    trainer = Trainer(
        args={"dict_only": True, "lang": language, "batch_size": 32}, vocab=Vocab(list(expansions.items()), language)
    )
    trainer.expansion_dict.update(expansions)
    _save(trainer, path)


def _save(trainer: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save(str(path))
    assert path.is_file()  # it tells of no failure


def _digest(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
