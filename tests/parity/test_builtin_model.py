"""The built-in model, a trained one, on real text."""

import inspect
import itertools

import pytest

from gliner_fast.checkpoints.locating import BUILT_IN
from gliner_fast.comparing.verification import verify
from tests.parity.pairs import Pair, spans
from tests.samples import BOOKS, CROSSNER, CROSSNER_LABELS, LABELS, UNICODE, read_jsonl

pytestmark = pytest.mark.gliner

DECODINGS = [
    {"threshold": threshold, "flat_ner": flat_ner, "multi_label": multi_label}
    for threshold, (flat_ner, multi_label) in itertools.product([0.3, 0.5, 0.9], [(1, 0), (0, 0), (1, 1), (0, 1)])
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The built-in model; gliner reads a copy that ours saved, whatever form the wheel holds it in."""
    import gliner

    import gliner_fast

    folder = tmp_path_factory.mktemp("built-in")
    ours = gliner_fast.GLiNER.from_pretrained()
    ours.save_pretrained(folder, safe_serialization=True)
    return Pair(ours, gliner.GLiNER.from_pretrained(str(folder)))


# Each decoding in a domain, and in each domain some: what decodes does not know domains, and gliner is slow.
DECODINGS_OF = {domain: DECODINGS[turn :: len(CROSSNER_LABELS)] for turn, domain in enumerate(CROSSNER_LABELS)}


@pytest.mark.parametrize("domain", list(CROSSNER_LABELS))
def test_crossner(domain, both):
    texts = [row["text"] for row in read_jsonl("crossner.jsonl") if row["domain"] == domain][:16]
    assert sum(map(len, both.check(texts, CROSSNER_LABELS[domain]))) > 3
    for decoding in DECODINGS_OF[domain]:
        both.check(texts[:4], CROSSNER_LABELS[domain], **decoding)


def test_books_and_unicode(both):
    labels = ["person", "city", "date", "organization"]
    assert sum(map(len, both.check([*BOOKS[::15], *UNICODE[::8]], labels, threshold=0.3))) > 10


def test_half_precision_keeps_nearly_all_entities(both):
    from gliner_fast import GLiNER

    texts = CROSSNER[::4]  # of every domain
    exact = spans(both.reference.inference(texts, LABELS))
    assert len(exact) > 50
    for dtype in ("bf16", "fp16"):
        found = spans(GLiNER.from_pretrained(dtype=dtype).inference(texts, LABELS))
        assert len(found & exact) >= 0.95 * len(found | exact), dtype


def test_verify_says_so(both):
    report = verify(both.ours, BOOKS[:4], ["person", "place"], reference=both.reference)
    assert report.ok, str(report)
    assert report.entities > 3


def test_gliner_refuses_rows_of_int8_as_weights():
    import gliner

    with pytest.raises(FileNotFoundError):
        gliner.GLiNER.from_pretrained(str(BUILT_IN))


def test_methods_of_gliner_that_are_missing_say_so():
    from gliner.model import UniEncoderSpanGLiNER

    import gliner_fast

    ours = gliner_fast.GLiNER.from_pretrained()
    theirs = {name for name, method in vars_of(UniEncoderSpanGLiNER).items() if inspect.isroutine(method)}
    missing = {name for name in theirs if not name.startswith("_") and not hasattr(ours, name)}
    assert len(missing) > 10
    for name in missing - {"validate_special_token_config"}:  # asked by gliner itself alone
        with pytest.raises(AttributeError, match=f"gliner's {name} is not offered here"):
            getattr(ours, name)


def vars_of(kind):
    """What a class and those above it, torch's own left out, have by name."""
    own = [above for above in kind.__mro__ if above.__module__.partition(".")[0] not in {"torch", "builtins", "abc"}]
    return {name: value for above in own for name, value in vars(above).items()}
