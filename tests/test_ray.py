"""`gliner_fast.ray.Extractor`, alone and in the actors of a real local Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast import GLiNER
from gliner_fast.jobs.arrow_types import entities_type, relations_type
from gliner_fast.jobs.block import Block
from gliner_fast.jobs.sinks import write_shard
from gliner_fast.ray import Extractor
from gliner_fast.redaction import Redaction
from tests.local_ray import ENVIRONMENT, QUIET_RAY, local_ray
from tests.samples import CROSSNER

pytestmark = QUIET_RAY

LABELS = ["person", "location", "organization"]
TEXTS = [*CROSSNER[:30], "", "no names here at all", "👩\u200d🚀 Marie Curie 🎉 in Warsaw"]
KEY = "correct horse battery staple"


@pytest.fixture(scope="module")
def model() -> GLiNER:
    return GLiNER.from_pretrained()


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(labels=LABELS)


def rounded(entities: list[Any] | None) -> list[Any] | None:
    """As Arrow keeps them: scores are float32 there."""
    return pa.array([entities], entities_type()).to_pylist()[0]


def table_of(texts: list[str | None], **columns: Any) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string()), **columns})


# --- one table --------------------------------------------------------------------------------------------------------


def test_the_entities_are_those_of_inference_in_the_same_rows(extractor: Extractor, model: GLiNER):
    table = table_of(TEXTS, id=list(range(len(TEXTS))))
    out = extractor(table)
    assert out.drop_columns("entities").equals(table)
    assert out.schema.field("entities").type == entities_type()
    assert out["entities"].to_pylist() == [rounded(own) for own in model.inference(TEXTS, LABELS, on_long="window")]
    assert sum(map(len, out["entities"].to_pylist())) > 20


def test_offsets_slice_the_text(extractor: Extractor):
    for row in extractor(table_of(TEXTS)).to_pylist():
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]


def test_null_is_no_text_and_an_empty_text_has_no_entities(extractor: Extractor):
    out = extractor(table_of([None, "", "Marie Curie", None]))
    assert out["entities"].to_pylist()[:2] == [None, []]
    assert out["entities"].to_pylist()[2][0]["text"] == "Marie Curie"
    assert out["entities"].to_pylist()[3] is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("redaction", [None, Redaction("mask")])
def test_a_word_that_would_take_hours_is_as_good_as_null_and_told(
    redaction: Redaction | None, checkpoint: Callable[[str], Path]
):
    extractor = Extractor(model=str(checkpoint("deberta")), labels=LABELS, redaction=redaction)
    with pytest.warns(
        UserWarning, match="row 1 of a table has null for its entities, since it has a word of more than"
    ):
        out = extractor(table_of(["Marie Curie", "Ada " + "ACGT" * 25_000, ""]))
    assert [found is None for found in out["entities"].to_pylist()] == [False, True, False]
    assert [text is None for text in out["text"].to_pylist()] == [False, redaction is not None, False]


@pytest.mark.parametrize("texts", [pa.array([], pa.string()), pa.nulls(2), pa.array(["", None], pa.large_string())])
def test_batches_without_words_have_the_same_columns(extractor: Extractor, texts: pa.Array):
    out = extractor(pa.table({"text": texts}))
    assert out.schema.field("entities").type == entities_type()
    assert out["entities"].null_count == texts.null_count


def test_a_dictionary_of_strings_is_strings(extractor: Extractor):
    texts = ["Marie Curie", "Warsaw", "Marie Curie"]
    encoded = extractor(pa.table({"text": pa.array(texts).dictionary_encode()}))
    assert encoded["entities"].equals(extractor(table_of(texts))["entities"])


def test_a_label_that_comes_twice_has_its_last_description_as_in_jobs(model: GLiNER):
    text = "Marie Curie was born in Warsaw."
    out = Extractor(labels_column="own")(table_of([text], own=pa.array([[("A", "person"), ("A", "city")]], MAP)))
    (expected,) = model.inference([text], [{"A": "city"}])
    assert out["entities"].to_pylist() == [rounded(expected)]
    assert [entity["text"] for entity in expected] == ["Warsaw"]


def test_views_of_strings_are_strings(extractor: Extractor):
    texts = pa.array(["Marie Curie", "Warsaw"])
    viewed = extractor(pa.table({"text": texts.cast(pa.string_view())}))
    assert viewed["entities"].equals(extractor(pa.table({"text": texts}))["entities"])


def test_options_reach_the_model(model: GLiNER):
    options: dict[str, Any] = {"threshold": {"person": 0.9, "city": 0.2}, "flat_ner": False, "multi_label": True}
    labels = {"person": "a human being, by name", "city": "a city or town"}
    extractor = Extractor(labels=labels, text_column="body", entities_column="found", batch_size=2, **options)
    out = extractor(pa.table({"body": TEXTS}))
    expected = model.inference(TEXTS, labels, batch_size=2, on_long="window", **options)
    assert out["found"].to_pylist() == [rounded(own) for own in expected]


LIST, MAP = pa.list_(pa.string()), pa.map_(pa.string(), pa.string())
STRUCT = pa.struct([("LOC", pa.string()), ("PER", pa.string())])


@pytest.mark.parametrize(
    ("own", "type_"),
    [
        ([["person"], ["location", "person"], [], None, ["person", None]], LIST),
        ([["person"], ["location", "person"], [], None, ["person", None]], pa.large_list(pa.string())),
        ([{"PER": "person"}, {"LOC": "location", "PER": "person"}, {}, None, {"": "person"}], MAP),
        ([{"PER": "person"}, {"LOC": "location", "PER": "person"}, {}, None, {"PER": ""}], STRUCT),
        (["person", "location, person", "", None, " ,"], pa.string()),
        (["person", "location, person", "", None, " ,"], pa.dictionary(pa.int32(), pa.string())),
        (
            [["person", "location"], ["location", "person"], ["", "person"], None, [None, "person"]],
            pa.list_(pa.string(), 2),
        ),
    ],
    ids=str,
)
def test_rows_may_have_labels_of_their_own(model: GLiNER, own: list[Any], type_: pa.DataType):
    text = "Marie Curie was born in Warsaw."
    out = Extractor(labels_column="own")(table_of([text] * 5, own=pa.array(own, type_)))
    labels = [label.split(", ") if isinstance(label, str) else label for label in own[:2]]
    found = out["entities"].to_pylist()
    assert found[:2] == [rounded(entities) for entities in model.inference([text] * 2, labels)]
    assert [{entity["label"] for entity in entities} for entities in found[:2]] == [set(asked) for asked in labels]
    assert found[2:] == [None, None, None]


@pytest.mark.parametrize("redaction", [Redaction(), Redaction("mask"), Redaction("hash", key=KEY)], ids=repr)
def test_redacted_texts_take_the_place_of_the_originals(extractor: Extractor, redaction: Redaction):
    table = table_of([*TEXTS, None], id=list(range(len(TEXTS) + 1)))
    plain = extractor(table).to_pylist()
    out = Extractor(labels=LABELS, redaction=redaction)(table)
    assert out.column_names == ["text", "id", "entities"]
    for row, original in zip(out.to_pylist()[:-1], plain[:-1], strict=True):
        redacted = redaction.apply(original["text"], original["entities"])
        assert row == {"id": original["id"], "text": redacted.text, "entities": redacted.entities}
    assert out.to_pylist()[-1] == {"text": None, "id": len(TEXTS), "entities": None}


def test_a_text_without_labels_cannot_be_redacted_and_is_not_shown():
    own = pa.array([None, ["person"]], LIST)
    out = Extractor(labels_column="own", redaction=Redaction())(table_of(["Marie Curie", "Marie Curie"], own=own))
    assert out["text"].to_pylist() == [None, "[PERSON]"]
    assert out["entities"].null_count == 1


def test_a_text_that_is_not_read_whole_cannot_be_redacted_and_is_not_shown(checkpoint: Callable[[str], Path]):
    folder = str(checkpoint("bert-cut-first"))  # 96 subwords
    texts = ["Ada", f"Ada {'qxzj' * 24}", " ".join(["qxzj" * 9] * 20)]
    out = Extractor(model=folder, labels=["person"], threshold=0.3, redaction=Redaction("mask"))(table_of(texts))
    assert [text is None for text in out["text"].to_pylist()] == [False, True, False]
    assert [found is None for found in out["entities"].to_pylist()] == [False, True, False]
    with pytest.raises(ValueError, match="in the clear: take 'window'"):
        Extractor(model=folder, labels=["person"], on_long="truncate", redaction=Redaction())


def test_redaction_keeps_large_strings_large():
    out = Extractor(labels=LABELS, redaction=Redaction())(pa.table({"text": pa.array(["Warsaw"], pa.large_string())}))
    assert out.schema.field("text").type == pa.large_string()


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        ({"text": ["a"]}, TypeError, "batch is a dict: call map_batches with batch_format='pyarrow'"),
        (pa.table({"body": ["a"]}), ValueError, "no column 'text', only 'body'"),
        (pa.table({"text": [1]}), TypeError, "column 'text' holds int64: expected strings"),
        (pa.table({"text": ["a"], "entities": [1]}), ValueError, "has a column 'entities': choose another"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_words(
    extractor: Extractor, batch: Any, error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        extractor(batch)


def test_a_column_that_cannot_hold_labels_is_refused():
    with pytest.raises(TypeError, match="column 'own' holds int64: expected list<string>"):
        Extractor(labels_column="own")(table_of(["a"], own=[1]))


def test_the_column_has_the_type_that_shards_have(tmp_path: Path):
    block = Block(1, np.array([0]), ["a"], None, pa.table({"text": ["a"]}), [], ["in"], np.array([1]))
    write_shard(tmp_path / "shard", block, [[]], format="parquet")
    assert pq.read_schema(tmp_path / "shard").field("entities").type == entities_type()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give either labels"),
        ({"labels": LABELS, "labels_column": "own"}, "one of the two"),
        ({"labels": []}, "labels is empty"),
        ({"labels": [""], "redaction": Redaction()}, "with an empty label or description"),
        ({"labels": {"person": " "}}, "with an empty label or description"),
        ({"labels": LABELS, "device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_words(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Extractor(**options)


def test_the_module_imports_neither_ray_nor_torch_and_hides_no_ray():
    code = """
import sys
import gliner_fast.ray
assert not {"ray", "torch", "pyarrow"} & set(sys.modules)
import ray
assert ray is not gliner_fast.ray and ray.init
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **ENVIRONMENT})


# --- relations --------------------------------------------------------------------------------------------------------


RELATIONS = ["works for", "located in"]
OF_RELATIONS: dict[str, Any] = {"adjacency_threshold": 0.4, "relation_threshold": {"works for": 0.2, "located in": 0.3}}


@pytest.fixture(scope="module")
def linker(checkpoint: Callable[[str], Path]) -> Extractor:
    return Extractor(
        model=str(checkpoint("relex")),
        labels=LABELS,
        relations=RELATIONS,
        threshold=0.3,
        relations_column="links",
        **OF_RELATIONS,
    )


def test_relations_are_those_of_inference_in_a_column_of_their_own(linker: Extractor, tmp_path: Path):
    out = linker(table_of([*TEXTS, None]))
    model: Any = linker.model
    found, linked = model.inference(TEXTS, LABELS, RELATIONS, threshold=0.3, on_long="window", **OF_RELATIONS)
    assert sum(map(len, linked)) > 5
    assert out.column_names == ["text", "entities", "links"]
    assert out["entities"].to_pylist() == [*map(rounded, found), None]
    assert out["links"].to_pylist() == pa.array([*linked, None], relations_type()).to_pylist()
    block = Block(1, np.array([0]), ["a"], None, pa.table({"text": ["a"]}), [], ["in"], np.array([1]))
    write_shard(tmp_path / "shard", block, [[]], format="parquet", relations_column="links")
    assert pq.read_schema(tmp_path / "shard").field("links").type == out.schema.field("links").type


def test_a_model_that_finds_relations_adds_no_column_for_none(linker: Extractor):
    out = Extractor(model=str(linker.model.source), labels=LABELS, threshold=0.3)(table_of(TEXTS))
    found = linker.model.inference(TEXTS, LABELS, threshold=0.3, return_relations=False)
    assert out.column_names == ["text", "entities"]
    assert out["entities"].to_pylist() == [rounded(own) for own in found]


def test_redacted_tables_have_relations_of_what_stands_in_them(linker: Extractor):
    redaction = Redaction("hash", key=KEY)
    options = {"relations": RELATIONS, "threshold": 0.3, **OF_RELATIONS}
    out = Extractor(model=str(linker.model.source), labels=LABELS, redaction=redaction, **options)(
        table_of([*TEXTS, None])
    )
    plain = linker(table_of(TEXTS)).to_pylist()
    for row, original in zip(out.to_pylist(), plain, strict=False):
        redacted = redaction.apply(original["text"], original["entities"], original["links"])
        assert row == {"text": redacted.text, "entities": redacted.entities, "relations": redacted.relations}
    assert out["relations"].to_pylist()[-1] is None
    assert any(out["relations"].to_pylist())


def test_columns_of_those_names_and_models_without_relations_are_refused_in_words(linker: Extractor):
    with pytest.raises(ValueError, match="has a column 'links': choose another relations_column"):
        linker(table_of(["a"], links=[1]))
    with pytest.raises(ValueError, match="this model finds entities alone"):
        Extractor(labels=LABELS, relations=RELATIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"relations": []}, "relations is empty"),
        ({"relations": [" "]}, "with an empty one"),
        ({"relation_threshold": 0.5}, "relation_threshold is given without relations"),
        ({"relations": "a", "relation_threshold": {"b": 0.5}}, "no value for the relation 'a'"),
        ({"relations": "a", "relations_column": "entities"}, "are both 'entities'"),
    ],
)
def test_relations_that_make_no_sense_are_refused_in_words(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Extractor(labels=LABELS, **options)


# --- Ray --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with local_ray() as ray:
        yield ray


ROWS = [{"id": row, "text": text} for row, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def expected_rows(model: GLiNER) -> list[dict[str, Any]]:
    """What the datasets below must hold; texts in batches of another make round differently."""
    found = [rounded(own) for own in model.inference(TEXTS, LABELS, on_long="window")]
    for entity in chain.from_iterable(found):
        entity["score"] = pytest.approx(entity["score"], abs=1e-5)
    return [{**row, "entities": own} for row, own in zip(ROWS, found, strict=True)]


def sorted_rows(dataset: Any) -> list[dict[str, Any]]:
    return sorted(dataset.take_all(), key=lambda row: row["id"])


@pytest.mark.ray
def test_a_dataset_has_the_entities_of_inference(ray: Any, expected_rows: list[dict[str, Any]]):
    dataset = ray.data.from_items(ROWS, override_num_blocks=4).map_batches(
        Extractor,
        fn_constructor_kwargs={"labels": LABELS},
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=2),
    )
    assert sorted_rows(dataset) == expected_rows


class Mortal(Extractor):
    """Dies at the row named in `deadly`, unless the file `died` says that it did before."""

    def __init__(self, *, died: str, deadly: int, **options: Any) -> None:
        super().__init__(**options)
        self.died = Path(died)
        self.deadly = deadly

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.deadly in table["id"].to_pylist() and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(table)


@pytest.mark.ray
def test_a_killed_actor_is_replaced_and_changes_no_result(
    ray: Any, expected_rows: list[dict[str, Any]], tmp_path: Path
):
    died = tmp_path / "died"
    dataset = ray.data.from_items(ROWS, override_num_blocks=4).map_batches(
        Mortal,
        fn_constructor_kwargs={"labels": LABELS, "died": str(died), "deadly": 20},
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    assert sorted_rows(dataset) == expected_rows
    assert died.exists()


class Witness(Extractor):
    """Tells of its process instead of entities."""

    def __call__(self, table: pa.Table) -> pa.Table:  # noqa: ARG002
        import torch

        return pa.table({"threads": [torch.get_num_threads()], "device": [str(self.model.device)]})


@pytest.mark.ray
def test_an_actor_has_as_many_threads_as_cpus_and_no_gpu_that_it_was_not_given(ray: Any):
    # From memory: a reading task would wait for the CPUs that the actor holds.
    dataset = ray.data.from_arrow(table_of(["a"])).map_batches(
        Witness,
        fn_constructor_kwargs={"labels": LABELS},
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=2,
    )
    assert dataset.take_all() == [{"threads": 2, "device": "cpu"}]
