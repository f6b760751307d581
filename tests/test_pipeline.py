"""Streams: the results of `inference`, lazily, in order, and nothing left running afterwards."""

import itertools
import pickle
import subprocess
import sys
import threading
import time
from contextlib import closing

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pytest

from gliner_fast import GLiNER, LongTextError, pipeline
from gliner_fast.comparing.verification import compare
from gliner_fast.pipeline import Window, predict_windows
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.predicting.request import Options
from gliner_fast.stats import Stats
from tests.samples import CROSSNER, LABELS

TEXTS = [text[:60] for text in CROSSNER[:100]]


@pytest.fixture(scope="module")
def model():
    return GLiNER.from_pretrained()


@pytest.fixture(scope="module")
def expected(model):
    return model.inference(TEXTS, LABELS, threshold=0.3)


@pytest.fixture(autouse=True)
def no_thread_left_behind():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("gliner_fast")] == []


def assert_same(found, expected):
    """Asserts equality up to rounding: a stream's batches are others than those of `inference`."""
    report = compare(found, expected, lambda _: [], threshold=0.3)
    assert report.entities > 25
    assert not report.differences, str(report)
    assert report.moved == 0


def counted(texts, read):
    for text in texts:
        read.append(text)
        yield text


# --- model.stream -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_size", [1, 5, 32, 1024])
def test_a_stream_gives_what_inference_gives(window_size, model, expected):
    texts = TEXTS if window_size > 1 else TEXTS[:40]
    assert_same(list(model.stream(iter(texts), LABELS, threshold=0.3, window_size=window_size)), expected[: len(texts)])


def test_equal_streams_give_equal_bits(model):
    assert list(model.stream(TEXTS, LABELS)) == list(model.stream(iter(TEXTS), LABELS))


def test_labels_that_can_be_read_once_serve_all_windows(model, expected):
    assert list(model.stream(TEXTS, iter(LABELS), window_size=2)) == list(model.stream(TEXTS, LABELS, window_size=2))
    assert any(expected)


def test_what_is_no_text_has_no_entities_in_its_place(model):
    texts = ["Ada Lovelace lived in London.", None, "", 5, " \n", b"Ada", "Ada Lovelace lived in London.\n"]
    with pytest.warns(UserWarning, match=r"^text 3 is 5 \(int\): what is no string has no entities") as told:
        found = list(model.stream(texts, ["person"]))
    assert [bool(entities) for entities in found] == [True, False, False, False, False, False, True]
    assert len(told) == 1


@pytest.mark.parametrize("table", ["pandas", "polars", "pyarrow", "mapping"])
def test_a_whole_table_is_no_column_of_texts(table, model):
    columns = {"text": [TEXTS[0]]}
    make = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table"}
    given = columns if table == "mapping" else getattr(pytest.importorskip(table), make[table])(columns)
    with pytest.raises(TypeError, match=r"of several columns: give one, such as frame\['text'\]"):
        model.stream(given, LABELS)
    if table == "pyarrow":  # which nothing goes through
        with pytest.raises(TypeError, match="texts is a Table: expected a list of strings"):
            model.inference(given, LABELS)
    else:
        with pytest.warns(
            UserWarning, match="of several columns, where texts are looked for: give one of them"
        ) as told:
            model.inference(given, LABELS)
        assert [own.filename for own in told] == [__file__]
    if table != "mapping":
        texts = given["text"].to_pylist() if table == "pyarrow" else given["text"]
        assert list(model.stream(texts, LABELS)) == model.inference(TEXTS[:1], LABELS)


def test_a_row_is_told_to_be_one(model):
    with pytest.warns(UserWarning, match=r"text 0 is .* has no entities: give a field of each, such as row\['text'\]"):
        assert list(model.stream([{"text": TEXTS[0]}], LABELS)) == [[]]


def test_a_column_of_arrow_is_told_how_to_be_given(model):
    column = pytest.importorskip("pyarrow").array(TEXTS[:2])
    with pytest.warns(UserWarning, match=r"text 0 is .* has no entities: give strings, as column\.to_pylist\(\) has"):
        assert list(model.stream(column, LABELS)) == [[], []]


@pytest.mark.parametrize("given", [["Ada Lovelace", "London"], ("Ada Lovelace",)])
def test_a_list_is_no_text(given, model):
    with pytest.warns(
        UserWarning,
        match=r"text 0 is .* \((list|tuple)\): what is no string has no entities, as in gliner: inference takes",
    ):
        assert model.predict_entities(given, LABELS) == []


def test_relations_of_a_model_that_finds_none_are_told(built_in):
    assert not hasattr(built_in, "predict_relations")
    with pytest.raises(AttributeError, match="has no predict_relations: this model finds entities alone"):
        built_in.predict_relations(TEXTS[0], LABELS, ["led"])
    with pytest.warns(UserWarning, match="relations: not an argument of inference, ignored; this model finds entities"):
        GLiNER.from_pretrained().inference(TEXTS[:1], LABELS, relations=["led"])


@pytest.mark.parametrize("as_tuples", [False, True])
def test_missing_values_are_no_reason_to_warn(as_tuples, model):
    missing = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT]
    given = [(value, 0) for value in missing] if as_tuples else missing
    found = list(model.stream(given, ["person"], as_tuples=as_tuples))  # a warning would be an error
    assert [pair[0] if as_tuples else pair for pair in found] == [[]] * 5


def test_pairs_without_as_tuples_are_refused_behind_what_came_before(model):
    found = model.stream(["Ada Lovelace lived in London.", ("Angela Merkel led Germany.", 1)], ["person"])
    assert next(found)
    with pytest.raises(TypeError, match=r"texts gives a tuple, .* \(tuple\): did you mean as_tuples=True\?"):
        next(found)


def test_no_texts(model):
    assert list(model.stream([], LABELS)) == []


def test_contexts_travel_with_their_texts(model, expected):
    contexts = [{"row": row} for row in range(len(TEXTS))]
    pairs = list(model.stream(zip(TEXTS, contexts, strict=True), LABELS, threshold=0.3, as_tuples=True))
    assert all(mine is given for (_, mine), given in zip(pairs, contexts, strict=True))
    assert_same([entities for entities, _ in pairs], expected)


def test_pandas(model, expected):
    table = pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    assert_same(list(model.stream(table["text"], LABELS, threshold=0.3)), expected)
    table["entities"] = list(model.stream(table["text"], LABELS, threshold=0.3))
    assert_same(list(table["entities"]), expected)
    rows = table[["text", "id"]].itertuples(index=False)
    found = {row: entities for entities, row in model.stream(rows, LABELS, threshold=0.3, as_tuples=True)}
    assert_same([found[row] for row in table["id"]], expected)


def test_missing_values_of_pandas(model):
    column = pd.Series(["Ada Lovelace lived in London.", None, float("nan"), pd.NA])
    assert [bool(entities) for entities in model.stream(column, ["person"])] == [True, False, False, False]


def test_polars(model, expected):
    table = pl.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    table = table.with_columns(pl.Series("entities", list(model.stream(table["text"], LABELS, threshold=0.3))))
    assert_same(table["entities"].to_list(), expected)
    pairs = table.select("text", "id").iter_rows()
    assert [row for _, row in model.stream(pairs, LABELS, as_tuples=True)] == list(range(len(TEXTS)))


def test_datasets(model, expected, tmp_path):
    table = datasets.Dataset.from_dict({"text": TEXTS, "id": range(len(TEXTS))})
    assert_same(list(model.stream(table["text"], LABELS, threshold=0.3)), expected)
    streamed = table.to_iterable_dataset()  # as `load_dataset(..., streaming=True)` gives it
    assert_same(list(model.stream((row["text"] for row in streamed), LABELS, threshold=0.3)), expected)
    pairs = ((row["text"], row["id"]) for row in streamed)
    assert [row for _, row in model.stream(pairs, LABELS, as_tuples=True)] == list(range(len(TEXTS)))


def test_the_lines_of_a_file(model, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("Ada Lovelace lived in London.\n\nMarie Curie lived in Paris.\n", encoding="utf-8")
    with file.open(encoding="utf-8") as lines:
        found = list(model.stream(lines, ["person", "city"]))
    names = [[entity["text"] for entity in entities] for entities in found]
    assert names == [["Ada Lovelace", "London"], [], ["Marie Curie", "Paris"]]


def test_an_infinite_source_is_read_a_little_ahead(model):
    read = []
    results = model.stream(counted(itertools.cycle(TEXTS[:8]), read), LABELS, window_size=64)
    assert read == []  # nothing before the first result is asked for
    for number in range(32):
        next(results)
        assert len(read) == 32 + 64, number
    for number in range(3 * 64):
        next(results)
        assert len(read) <= 32 + number + 64 + 64 + 64
    results.close()


def test_of_long_texts_a_few_are_read_ahead(model, monkeypatch):
    monkeypatch.setattr(pipeline, "_MOST_CHARACTERS", 200)
    read = []
    with closing(model.stream(counted(itertools.cycle(TEXTS[:8]), read), LABELS)) as results:
        for number in range(20):
            next(results)
            # The rest of its window and the one ahead, each of which ends with the text that goes beyond the limit.
            assert sum(map(len, read[number:])) <= 2 * (200 + 60), number
            assert len(read) > number + 4


@pytest.mark.parametrize("where", ["a thread", "the exit"])
def test_a_stream_goes_on_where_no_thread_can_be_started_any_more(where):
    program = f"""
import atexit, concurrent.futures.thread, threading, time
from gliner_fast import GLiNER
from gliner_fast.predicting import predictor
from gliner_fast.predicting.stages import HostStages
model = GLiNER.from_pretrained()
model.token_budget = 200
texts = [f"Ada Lovelace met number {{number}} in London." for number in range(70)]
expected = model.inference(texts, ["person", "city"])
def read():
    yield from texts[:40]
    while not concurrent.futures.thread._shutdown:
        time.sleep(0.01)
    yield from texts[40:]
def told(found):
    return [[entity["text"] for entity in own] for own in found]
def work():
    for devices in (None, ["cpu", "cpu"]):
        print(told(model.stream(read(), ["person", "city"], devices=devices)) == told(expected) != [[]] * 70)
    predictor.HostStages = lambda **_: HostStages(overlap=True)
    print(told(model.stream(read(), ["person", "city"])) == told(expected))
    print(told(model.inference(texts, ["person", "city"])) == told(expected))
threading.Thread(target=work).start() if {where == "a thread"} else atexit.register(work)
"""
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert (run.stdout.split(), run.returncode) == (4 * ["True"], 0), run.stderr


def test_closing_a_stream_closes_its_source(model):
    closed = []

    def source():
        try:
            yield from itertools.cycle(TEXTS)
        finally:
            closed.append(True)

    results = model.stream(source(), LABELS)
    next(results)
    results.close()
    assert closed == [True]
    with pytest.raises(StopIteration):
        next(results)


def test_a_stream_that_is_dropped_ends_its_thread(model):
    results = model.stream(itertools.cycle(TEXTS), LABELS)
    next(results)
    del results  # `no_thread_left_behind` looks


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
@pytest.mark.parametrize("good", [0, 10, 40, 100])
def test_an_error_of_the_source_is_raised_to_the_caller(error, good, model):
    def source():
        yield from TEXTS[:good]
        raise error

    found = []
    with pytest.raises(error):
        found.extend(model.stream(source(), LABELS))
    if error is BrokenError:  # what was read before is not lost
        assert len(found) == good


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
@pytest.mark.parametrize("good", [0, 10, 40, 100, 250])
def test_what_the_source_gave_before_its_error_is_computed_on_any_device(good, devices, model):
    def source():
        yield from TEXTS[:good]
        raise BrokenError

    found = []
    with pytest.raises(BrokenError):
        found.extend(model.stream(source(), LABELS, devices=devices))
    assert len(found) == min(good, len(TEXTS))


@pytest.mark.parametrize("make", [list, lambda labels: {label: label for label in labels}], ids=["list", "mapping"])
def test_what_is_done_to_the_arguments_of_a_stream_changes_nothing(make, model):
    labels, thresholds = make(LABELS), dict.fromkeys(LABELS, 0.3)
    expected = list(model.stream(TEXTS, labels, threshold=thresholds))
    found = []
    for own in model.stream(TEXTS, labels, threshold=thresholds):
        found.append(own)
        labels.clear()
        thresholds.clear()
    assert found == expected
    assert any(expected[-30:])


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt])
def test_an_error_while_computing_is_raised_to_the_caller(error, model, monkeypatch):
    def fail(*_):
        raise error

    read = []
    monkeypatch.setattr(model.model, "forward", fail)
    with pytest.raises(error):
        list(model.stream(counted(itertools.cycle(TEXTS), read), LABELS))
    assert len(read) == 32 + 64


def test_an_error_while_preparing_is_raised_to_the_caller(model):
    def splitter(text):
        raise BrokenError

    model.data_processor.words_splitter, default = splitter, model.data_processor.words_splitter
    try:
        with pytest.raises(BrokenError):
            list(model.stream(itertools.cycle(TEXTS), LABELS))
    finally:
        model.data_processor.words_splitter = default


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "one text"}, TypeError, "texts is a str: expected an iterable"),
        ({"texts": None}, TypeError, "texts is a NoneType"),
        ({"labels": [["person"], ["city"]]}, TypeError, "one list or mapping of labels for all texts"),
        ({"labels": 5}, TypeError, "labels is 5"),
        ({"threshold": [0.5, 0.4]}, TypeError, "threshold is .* one value for all texts"),
        ({"threshold": float("nan")}, ValueError, "threshold is NaN"),
        ({"flat_ner": [True]}, TypeError, "flat_ner is .* one value for all texts"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"on_long": "cut"}, ValueError, "on_long is 'cut': expected one of truncate, window, error"),
        ({"window_size": 0}, ValueError, "window_size is 0"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, error, message, model):
    given = {"texts": TEXTS, "labels": LABELS} | arguments
    with pytest.raises(error, match=message):
        model.stream(**given)  # not only when the first result is asked for


def test_what_is_no_pair_is_refused(model):
    with pytest.raises(TypeError, match=r"texts gives 5: expected a pair \(text, context\)"):
        next(model.stream([5], LABELS, as_tuples=True))


@pytest.mark.parametrize("most_characters", [2**22, 50])
def test_a_text_that_is_too_long_is_named_by_its_number(most_characters, model, monkeypatch):
    monkeypatch.setattr(pipeline, "_MOST_CHARACTERS", most_characters)
    texts = ["Ada"] * 70 + ["word " * 400]
    wanted = (
        "text 70 has 400 words, and the model reads 384: on_long='window' reads all of it, 'truncate' its beginning"
    )
    with pytest.raises(LongTextError, match=f"^{wanted}$") as raised:
        list(model.stream(texts, LABELS, on_long="error"))
    error = pickle.loads(pickle.dumps(raised.value))  # as on its way from a Ray actor
    assert (error.text, str(error), isinstance(error, ValueError)) == (70, wanted, True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("devices", [None, ["cpu"]])
def test_a_word_that_would_take_hours_is_named_behind_what_came_before(devices, checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    assert model.predictor().batcher.tokenizer.max_subwords is None
    stream = model.stream(["Ada Lovelace", "London", "Ada and " + "ACGT" * 25_000], LABELS, devices=devices)
    assert [next(stream), next(stream)] == model.inference(["Ada Lovelace", "London"], LABELS)
    with pytest.raises(ValueError, match="text 2 has a word of more than 16,384 characters, which is not read: "):
        next(stream)


def test_a_word_beyond_what_is_read_costs_a_stream_nothing(checkpoint):
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    text = "Ada " * model.config.max_len + "ACGT" * 25_000
    with pytest.warns(UserWarning, match="Sentence of length 385 has been truncated to 384"):
        assert len(list(model.stream([text], LABELS, on_long="truncate"))) == 1


# --- predict_windows --------------------------------------------------------------------------------------------------


def test_a_window_may_explain_its_error(model):
    window = Window(["word " * 400], LABELS, explain=lambda error: TypeError(f"there: {error}"))
    with pytest.raises(TypeError, match="there: text 0 has 400 words"):
        list(predict_windows(model, [window], Options(on_long="error"), stats=Stats()))
    window = Window(["word " * 400], LABELS, explain=lambda _: None)
    with pytest.raises(ValueError, match="^text 0 has 400 words"):
        list(predict_windows(model, [window], Options(on_long="error"), stats=Stats()))


@pytest.mark.parametrize("read_ahead", [False, True])
def test_windows_come_back_in_order_with_their_keys_and_own_options(read_ahead, model):
    windows = [
        Window(TEXTS[:8], LABELS, key="shared labels"),
        Window([], LABELS, key=("nothing",)),
        Window(TEXTS[:2], [["person"], {"city": "a town"}], key="labels of each text's own"),
        Window(TEXTS[:2], LABELS, options=Options(threshold=[0.1, 0.9])),
    ]
    results = list(predict_windows(model, iter(windows), Options(threshold=0.3), stats=Stats(), read_ahead=read_ahead))
    assert all(mine is given for (mine, _), given in zip(results, windows, strict=True))
    assert results[0][1] == model.inference(TEXTS[:8], LABELS, threshold=0.3)
    assert results[1][1] == []
    assert results[2][1] == model.inference(TEXTS[:2], windows[2].labels, threshold=0.3)
    assert results[3][1] == model.inference(TEXTS[:2], LABELS, threshold=[0.1, 0.9])


@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_window_s_results_are_the_same_bits_whatever_windows_are_around_it(read_ahead, model):
    windows = [Window(TEXTS[first : first + 20], LABELS, key=first) for first in range(0, 100, 20)]

    def run(some):
        results = predict_windows(model, some, Options(threshold=0.3), stats=Stats(), read_ahead=read_ahead)
        return {window.key: entities for window, entities in results}

    whole = run(windows)
    assert run(windows[3:]) == {key: whole[key] for key in (60, 80)}  # as after a restart
    assert run([windows[1]]) == {20: whole[20]}


@pytest.mark.parametrize("read_ahead", [False, True])
def test_the_next_window_is_prepared_while_this_one_is_computed(read_ahead, model, monkeypatch):
    threads = {"prepare": set(), "read": set()}
    prepared_two = threading.Event()
    forward, encode_words = model.model.forward, model.data_processor.batcher.encode_words

    def encode(words):
        threads["prepare"].add(threading.get_ident())
        if len(words) == 2:
            prepared_two.set()
        return encode_words(words)

    def compute(batch, *others):
        assert prepared_two.wait(timeout=60)
        return forward(batch, *others)

    def source():
        for texts in (TEXTS[:1], TEXTS[:2]):
            threads["read"].add(threading.get_ident())
            yield Window(texts, LABELS)

    monkeypatch.setattr(model.data_processor.batcher, "encode_words", encode)
    monkeypatch.setattr(model.model, "forward", compute)
    assert len(list(predict_windows(model, source(), Options(), stats=Stats(), read_ahead=read_ahead))) == 2
    assert threading.get_ident() not in threads["prepare"]
    assert threads["read"] == (threads["prepare"] if read_ahead else {threading.get_ident()})


def test_who_gives_windows_may_wait_for_the_results_of_each(model):
    waits_for_one_result_after_another(model)


@pytest.mark.usefixtures("overlapping")
def test_who_gives_windows_may_wait_for_the_results_of_each_on_cuda_too(model, monkeypatch):
    monkeypatch.setattr(Predictor, "can_overlap", True)
    waits_for_one_result_after_another(model)


def waits_for_one_result_after_another(model):
    given = []

    def source():
        for number in range(4):
            assert given == list(range(number))
            yield Window(TEXTS[: 3 + number], LABELS, key=number)

    for window, found in predict_windows(model, source(), Options(), stats=Stats(), look_ahead=False):
        assert len(found) == 3 + window.key
        given.append(window.key)
    assert given == [0, 1, 2, 3]


@pytest.mark.parametrize("read_ahead", [False, True])
def test_windows_are_read_one_ahead_and_closed_at_the_end(read_ahead, model):
    read, closed = [], []

    def source():
        try:
            for number in itertools.count():
                read.append(number)
                yield Window(TEXTS[:1], LABELS)
        finally:
            closed.append(True)

    windows = source()  # somebody else holds it, too
    results = predict_windows(model, windows, Options(), stats=Stats(), read_ahead=read_ahead)
    for _ in range(3):
        next(results)
    time.sleep(0.05)
    assert len(read) == 4
    results.close()
    assert closed == [True]


@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_wrong_window_ends_the_stream_after_the_right_ones(read_ahead, model):
    windows = [Window(TEXTS[:1], LABELS), Window(TEXTS[:2], [["person"]])]
    results = predict_windows(model, windows, Options(), stats=Stats(), read_ahead=read_ahead)
    next(results)
    with pytest.raises(ValueError, match="Per-text labels must have length 2"):
        next(results)


@pytest.mark.filterwarnings("ignore:Sentence of length")
def test_truncation_is_warned_about_in_the_caller_s_thread(model):
    windows = [Window(["word " * 400, "Ada"] * 2, LABELS)]
    with pytest.warns(UserWarning, match="Sentence of length 400 has been truncated to 384") as caught:
        list(predict_windows(model, windows, Options(), stats=Stats()))
    assert len(caught) == 2  # one a text, as gliner does, though equal texts are computed once
