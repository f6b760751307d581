"""Texts -> entities beside gliner and its ports that run on ONNX: in bulk, and one text at a time.

Each runs in a process of its own, since the threads of one wait for work on the cores that another needs.

A port that answers otherwise than gliner is shown with the share of gliner's entities that it finds, not hidden; so
are we in whole numbers of 16 bits, where a ratio below 1 is faster than ours in float32.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Any

import pytest

from benches import peers
from benches.compare import Race, keys_of, words_of
from benches.conftest import LABELS, SIZES, checkpoint, texts_of
from benches.peer_process import PeerProcess
from benches.peers import INT16, OURS, PACKAGES, PORTS, SHIPPED, THRESHOLD

TEXT_COUNTS = {"short": 16, "mixed": 4}


@pytest.mark.gliner
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TEXT_COUNTS)
@pytest.mark.parametrize("way", ["bulk", "single"])
@pytest.mark.timeout(1_800)
def bench_peers(race: Race, way: str, name: str, size: str) -> None:
    if lacking := peers.missing():
        pytest.skip(f"not installed: {', '.join(lacking)}; pip install -e '.[peers]'")
    texts, labels = texts_of(name, TEXT_COUNTS[name]), LABELS[:5]
    calls = [[text] for text in texts] if way == "single" else [texts]
    own = checkpoint(size)
    exported = peers.export(own)
    loaders = [
        *((peer, load, own) for peer, load in PACKAGES.items()),
        *((peer, load, exported) for peer, load in PORTS.items()),
    ]
    with ExitStack() as stack:
        processes = {
            peer: stack.enter_context(closing(PeerProcess(load, folder, calls, labels)))
            for peer, load, folder in loaders
        }
        answers = {peer: keys_of(process.answers()) for peer, process in processes.items()}
        expected = answers[SHIPPED]
        assert expected, "gliner found no entity: nothing was compared"
        assert answers[OURS] == expected
        race.run(
            processes[OURS].run,
            {peer: process.run for peer, process in processes.items() if peer != OURS},
            agreement=f"ours: {agreement(answers[OURS], expected)}",
            agreements={peer: f"its own: {agreement(answers[peer], expected)}" for peer in (*PORTS, INT16)},
            **words_of(texts, corpus=name, labels=len(labels), size=size, threshold=THRESHOLD, way=way),
        )


def agreement(found: set[tuple[Any, ...]], expected: set[tuple[Any, ...]]) -> str:
    """How many of gliner's entities were found, and what else."""
    return f"{len(found & expected)} of {len(expected)} of gliner's entities, {len(found - expected)} others"
