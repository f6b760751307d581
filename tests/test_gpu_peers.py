"""Other people's attention under `gliner`, as the GPU benches race it; here where it runs on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benches import gpu_peers
from gliner_fast.comparing.verification import compare
from tests.installed import needs_flash
from tests.samples import CROSSNER, LABELS


@needs_flash
@pytest.mark.gliner
def test_gliner_with_disentangled_flash_answers_as_it_does_without(checkpoint):
    from gliner import GLiNER as Reference

    path = checkpoint("deberta")
    loaded = gpu_peers.load_disentangled_flash(path, "cpu")
    packed: list[int] = []
    encoder = loaded.model.token_rep_layer.bert_layer.model.encoder
    attend = encoder.forward_packed

    def counted(hidden: Any, *given: Any, **options: Any) -> Any:
        packed.append(len(hidden))
        return attend(hidden, *given, **options)

    encoder.forward_packed = counted
    plain, flash = (
        model.inference(CROSSNER, LABELS, threshold=0.3) for model in (Reference.from_pretrained(path), loaded)
    )
    report = compare(flash, plain, lambda _: [], threshold=0.3)
    assert report.entities > 100
    assert report.equal == report.entities
    assert packed


def test_peers_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_peers, "find_spec", lambda package: package)
    assert list(gpu_peers.gpu_peers(64)) == ["FlashDeBERTa", "disentangled-flash"]
    assert list(gpu_peers.gpu_peers(16)) == ["FlashDeBERTa"]
    monkeypatch.setattr(gpu_peers, "find_spec", lambda package: package if package == "disentangled_flash" else None)
    assert gpu_peers.gpu_peers(64) == {"disentangled-flash": gpu_peers.load_disentangled_flash}
    monkeypatch.setattr(gpu_peers, "find_spec", lambda _: None)
    assert gpu_peers.gpu_peers(64) == {}


def test_a_gliner_that_does_not_know_of_flashdeberta_is_told(checkpoint, monkeypatch: pytest.MonkeyPatch):
    from gliner.modeling import encoder

    monkeypatch.setattr(encoder, "IS_FLASHDEBERTA", False)
    path: Path = checkpoint("deberta")
    with pytest.raises(AssertionError, match="gliner took DebertaV2Model"):
        gpu_peers.load_flash_deberta(path, "cpu")
