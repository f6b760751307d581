"""Models that find relations, too, give gliner's entities and relations."""

import pytest

from gliner_fast.errors import CheckpointError
from gliner_fast.relex import RelexGLiNER
from tests.checkpoint_recipes import RELATION_KINDS
from tests.parity.relation_pairs import check_relations
from tests.relation_checkpoints import RELATIONS
from tests.samples import CROSSNER, LABELS, UNICODE

pytestmark = pytest.mark.gliner

TEXTS = CROSSNER[::24] + UNICODE[::32]
DECODINGS = [
    {"threshold": 0.5},
    {"threshold": 0.3},
    {"threshold": 0.6, "adjacency_threshold": 0.3, "relation_threshold": 0.7},
    {"threshold": 0.4, "flat_ner": False, "multi_label": True},
]
# Weights of attention sum to 1 over the entities, and scores of triples lie close together.
OWN_THRESHOLDS = {"relex-attention": {"adjacency_threshold": 0.05}, "relex-triples": {"relation_threshold": 0.45}}


@pytest.mark.parametrize("kind", RELATION_KINDS)
def test_answers_are_the_reference_s(kind, pair):
    both = pair(kind)
    assert isinstance(both.ours, RelexGLiNER)
    counts = [
        check_relations(both, TEXTS, LABELS, RELATIONS[:4], **(OWN_THRESHOLDS.get(kind, {}) | decoding))
        for decoding in DECODINGS
    ]
    assert min(entities for entities, _ in counts) > 5, "the checkpoint finds too little to compare"
    assert sum(relations for _, relations in counts) > 100
    entities, relations = both.ours.inference(
        TEXTS, LABELS, RELATIONS[:4], **({"threshold": 0.3} | OWN_THRESHOLDS.get(kind, {}))
    )
    pairs = sum(len(own) * (len(own) - 1) for own in entities) * 4
    distinct = {
        (index, relation["head"]["entity_idx"], relation["tail"]["entity_idx"], relation["relation"])
        for index, own in enumerate(relations)
        for relation in own
    }
    assert len(distinct) < 0.9 * pairs, "the checkpoint finds everything"


@pytest.mark.parametrize("kind", ["relex", "relex-none", "relex-gcn", "relex-triples", "token-relex"])
def test_vectors_are_the_reference_s(kind, pair):
    options = {"threshold": 0.3, "return_vectors": True, "return_label_vectors": True, "return_class_probs": True}
    found = check_relations(pair(kind), TEXTS[:8], LABELS, RELATIONS[:4], **(OWN_THRESHOLDS.get(kind, {}) | options))
    assert min(found) > 3


@pytest.mark.parametrize("kind", ["relex", "relex-none", "token-relex"])
@pytest.mark.parametrize("relations", [RELATIONS[:1], RELATIONS, "located in", ["a", "a", "b"], ["born in", ""]])
def test_relations_for_all_texts(relations, kind, pair):
    check_relations(pair(kind), TEXTS[:6], LABELS, relations, threshold=0.4)


@pytest.mark.parametrize("kind", ["relex", "token-relex"])
def test_options_of_each_text_s_own(kind, pair):
    texts = TEXTS[:6]
    found = check_relations(
        pair(kind),
        texts,
        [LABELS[: 1 + index] for index in range(6)],
        [RELATIONS[: 1 + index % 3] for index in range(6)],
        threshold=[0.2, 0.3, 0.4, 0.5, 0.4, 0.3],
        adjacency_threshold=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        relation_threshold=[0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
        flat_ner=[True, False] * 3,
        multi_label=[False, False, True] * 2,
    )
    assert min(found) > 3


@pytest.mark.parametrize("kind", ["relex", "relex-none", "relex-gcn", "token-relex"])
def test_spans_that_were_given(kind, pair):
    both = pair(kind)
    texts = TEXTS[:6]
    entities = both.ours.inference(texts, LABELS, threshold=0.4, flat_ner=False, return_relations=False)
    spans = [[{"start": entity["start"], "end": entity["end"]} for entity in own[::2]] for own in entities]
    assert sum(map(len, spans)) > 6
    check_relations(both, texts, LABELS, RELATIONS[:3], threshold=0.3, input_spans=spans)


@pytest.mark.parametrize("kind", ["relex", "token-relex-none"])
def test_without_relations_there_are_entities(kind, pair):
    both = pair(kind)
    ours, none = both.ours.inference(TEXTS[:6], LABELS, threshold=0.3)
    theirs = [both.reference.inference([text], LABELS, threshold=0.3)[0][0] for text in TEXTS[:6]]
    assert none == [[]] * 6
    assert [[(e["start"], e["end"], e["label"]) for e in own] for own in ours] == [
        [(e["start"], e["end"], e["label"]) for e in own] for own in theirs
    ]
    both.check(TEXTS[:6], LABELS, threshold=0.3, return_relations=False)


def test_a_relation_is_between_two_entities_that_are_found(pair):
    ours = pair("relex").ours
    assert ours.inference(TEXTS[:3], LABELS, RELATIONS[:2], threshold=0.99999) == ([[]] * 3, [[]] * 3)
    assert ours.inference([], LABELS, RELATIONS) == ([], [])


def test_methods_for_one_text(pair):
    both = pair("relex")
    text, relations = max(TEXTS, key=len), RELATIONS[:3]
    mine, theirs = (
        model.predict_relations(text, LABELS, relations, threshold=0.3, relation_threshold=0.2)
        for model in (both.ours, both.reference)
    )
    assert len(theirs[1]) > 3
    assert [(r["head"]["start"], r["tail"]["start"], r["relation"]) for r in mine[1]] == [
        (r["head"]["start"], r["tail"]["start"], r["relation"]) for r in theirs[1]
    ]
    assert [list(entity) for entity in mine[0]] == [list(entity) for entity in theirs[0]]
    ours = both.ours.predict_entities(text, LABELS, relations, threshold=0.3)
    assert [entity["start"] for entity in ours] == [entity["start"] for entity in mine[0]]
    with pytest.warns(FutureWarning, match="batch_predict_entities is deprecated"):
        found = both.ours.batch_predict_entities([text], LABELS, threshold=0.3, relations=relations)
    assert found == both.ours.inference([text], LABELS, relations, threshold=0.3)


@pytest.mark.parametrize(
    ("settings", "of"), [({"relations_layer": "biaffine"}, "biaffine"), ({"triples_layer": "ConvE"}, "ConvE")]
)
def test_what_is_not_run_is_refused_by_name(settings, of, checkpoint, tmp_path):
    import json
    import shutil

    from gliner_fast import GLiNER

    folder = shutil.copytree(checkpoint("relex"), tmp_path / "changed")
    file = folder / "gliner_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(CheckpointError, match=of):
        GLiNER.from_pretrained(folder)
