"""What a user's type checker makes of the public names: read by mypy (`make lint`), run by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import assert_type

import gliner_fast
from gliner_fast import Entity, GLiNER, JobReport, Redacted, Relation, RelexGLiNER, VerificationReport

TEXTS, LABELS, RELATIONS = ["Ada Lovelace lived in London."], ["person", "city"], ["lived in"]


def entities(model: GLiNER) -> None:
    assert_type(GLiNER.from_pretrained(), GLiNER)
    assert_type(model.predict_entities(TEXTS[0], LABELS), list[Entity])
    assert_type(model.inference(TEXTS, LABELS, threshold={"person": 0.4, "city": 0.5}), list[list[Entity]])
    assert_type(model.inference(TEXTS, {"person": "a human being"})[0][0]["score"], float)
    for found in model.stream(iter(TEXTS), LABELS, on_long="window"):
        assert_type(found, list[Entity])
    for found, context in model.stream([(TEXTS[0], 1)], LABELS, as_tuples=True, devices="all"):
        assert_type(found, list[Entity])
        assert_type(context, Any)


def relations() -> None:
    model = RelexGLiNER.from_pretrained("folder")
    assert_type(model, RelexGLiNER)
    found = model.predict_relations(TEXTS[0], LABELS, RELATIONS)
    assert_type(found, tuple[list[Entity], list[Relation]])
    of_all = model.inference(TEXTS, LABELS, RELATIONS, threshold=0.4)
    assert_type(of_all, tuple[list[list[Entity]], list[list[Relation]]])
    assert_type(model.inference(TEXTS, LABELS, return_relations=False), list[list[Entity]])


def of_a_choice(model: GLiNER, relex: RelexGLiNER, chosen: bool) -> None:
    assert_type(model.stream(TEXTS, LABELS, as_tuples=chosen), Iterator[Any])
    entities_alone = relex.inference(TEXTS, LABELS, [], True, 0.5, None, None, False, None, None, None, False)
    for answers in (relex.inference(TEXTS, LABELS, return_relations=chosen), entities_alone):
        assert_type(answers, tuple[list[list[Entity]], list[list[Relation]]] | list[list[Entity]])


def the_rest(model: GLiNER) -> None:
    assert_type(gliner_fast.extract_files("in.jsonl", "out.jsonl", LABELS, text_column="body"), JobReport)
    assert_type(gliner_fast.redact(TEXTS[0], model.predict_entities(TEXTS[0], LABELS)), Redacted)
    assert_type(gliner_fast.verify("folder", labels=LABELS, texts=TEXTS), VerificationReport)


def mistakes(model: GLiNER) -> None:
    model.predict_entitties(TEXTS[0], LABELS)  # type: ignore[operator]
    model.stream(TEXTS, LABELS, on_long="windows")  # type: ignore[call-overload]
    GLiNER.from_pretrained(map_locaton="cuda")  # type: ignore[call-arg]
