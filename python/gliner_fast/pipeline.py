"""The same steps as a stream: the next window is prepared in a thread while this one is computed (DESIGN 2)."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from gliner_fast.devices import Devices, parse_devices, predict_on_all, spread
from gliner_fast.errors import shown
from gliner_fast.labels import Labels
from gliner_fast.predicting.preparing import Prepared
from gliner_fast.predicting.request import Options, Request, expect_count
from gliner_fast.predicting.stages import failed, start
from gliner_fast.stats import Stats
from gliner_fast.words import ENDLESS_WORD

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.methods.prediction import PredictionMethods
    from gliner_fast.predicting.predictor import Predictor

Item = TypeVar("Item")

# The first window of a stream is small, so that its results come soon.
_FIRST_TEXTS = 32
_MOST_CHARACTERS = 2**22  # after which a window ends


@dataclass(frozen=True)
class Window:
    """Texts that are computed together.

    Attributes:
        texts: what is no string, or is blank, has no entities.
        labels: for all texts, or each text's own, as `GLiNER.inference` takes them.
        key: anything; comes back with the results.
        options: instead of the stream's; the place of per-text values.
        first_text: number of the first text, for messages.
        explain: gives the error to raise in place of one that these texts were refused with; None to leave that.
    """

    texts: Sequence[Any]
    labels: Labels
    key: Any = None
    options: Options | None = None
    first_text: int = 0
    explain: Callable[[ValueError], Exception | None] | None = None


def predict_windows(
    model: PredictionMethods,
    windows: Iterable[Window],
    options: Options,
    *,
    stats: Stats,
    read_ahead: bool = False,
    look_ahead: bool = True,
    devices: Sequence[torch.device] | None = None,
) -> Generator[tuple[Window, list[list[Entity]]], None, None]:
    """Predicts window after window, the host's work on the next one beside the device's work on this one.

    Batches never cross windows, so a window's results do not depend on the windows around it, to the last bit.
    Closing this generator ends its thread and closes `windows`; so does an error, which is raised here.

    Args:
        model: predicts.
        windows: read lazily, one ahead of the one that is computed; on CUDA, where the first batches of a window are
            computed while the last of the one before are decoded, two ahead of the one whose results come next.
        options: for all windows without their own.
        stats: what is done is added to it, window by window.
        read_ahead: read the windows in the thread too, beside the computation. An end that comes early then waits for
            the read that is under way.
        look_ahead: ask for windows ahead of the one whose results come next. Without it whoever gives them may wait for
            the results of one before giving the next. On several devices it is not looked at.
        devices: where windows are computed, each on whichever is free; None: where the model is. Windows are then read
            in this thread, two a device ahead.

    Yields:
        Each window with the entities of its texts, in order.

    Raises:
        TypeError: a window's labels, thresholds or input spans of a wrong type.
        ValueError: per-text values for another number of texts.
        MemoryError: a single text does not fit into memory.
    """
    source = iter(windows)

    def prepare(window: Window) -> Prepared:
        asked = window.options or options
        try:
            request = Request.read(window.texts, window.labels, asked, first_text=window.first_text)
            return model.predictor().prepare(request)
        except ValueError as error:
            explained = None if window.explain is None else window.explain(error)
            if explained is None:
                raise
            raise explained from error

    try:
        if devices is None:
            predictor = model.predictor()
            results = _predict_ahead(predictor, source, prepare, stats, read_ahead=read_ahead, look_ahead=look_ahead)
        else:
            results = predict_on_all(spread(model, devices), source, prepare, stats)
        with closing(results):
            for window, prepared, found in results:
                prepared.warn(stacklevel=2)
                yield window, found
                del window, prepared, found  # or they would be in memory beside the next
    finally:
        if isinstance(source, Generator):
            source.close()


def predict_parts(
    predictor: Callable[[], Predictor], parts: Iterator[Request], *, ahead: bool
) -> Generator[list[list[Entity]], None, None]:
    """Prepares and predicts the parts of a request in their order; with `ahead` the next, if any, in a thread.

    `predictor` gives the predictor of the moment: a part may have found that batches must be smaller.
    """
    begun = list(islice(parts, 2))
    parts = chain(begun, parts)
    if not ahead or len(begun) < 2:  # threads cost a short text their start
        for part in parts:
            prepared = predictor().prepare(part)
            prepared.warn(stacklevel=3)
            yield predictor().predict(prepared)
        return
    with closing(_predict_ahead(predictor(), parts, predictor().prepare, None)) as results:
        for _, prepared, found in results:
            prepared.warn(stacklevel=3)
            yield found
            del prepared, found  # or they would be in memory beside the next


def _predict_ahead(
    predictor: Predictor,
    source: Iterator[Item],
    prepare: Callable[[Item], Prepared],
    stats: Stats | None,
    *,
    read_ahead: bool = False,
    look_ahead: bool = True,
) -> Generator[tuple[Item, Prepared, list[list[Entity]]], None, None]:
    """Predicts items in their order on one device; a thread prepares the next, and with `read_ahead` reads it.

    Without `look_ahead` the next is asked for once the one before has been given.

    On CUDA, where the second is asked for once the device has something to do, it is not begun before: until then one
    thread is faster than two that share an interpreter.
    """
    items: deque[Item] = deque()  # prepared, and not given

    def start_next(pool: ThreadPoolExecutor) -> Future[tuple[Item, Prepared] | None]:
        def prepare_if_any(item: Item | None) -> tuple[Item, Prepared] | None:
            return None if item is None else (item, prepare(item))

        if read_ahead:
            return start(pool, lambda: prepare_if_any(next(source, None)))
        try:
            item = next(source, None)
        except Exception as error:  # noqa: BLE001  # raised in its turn: those before it are given first
            return failed(error)
        return start(pool, prepare_if_any, item)

    def prepared_items() -> Generator[Prepared | None, None, None]:
        is_ahead = look_ahead and not predictor.can_overlap
        with ThreadPoolExecutor(1, thread_name_prefix="gliner_fast-prepare") as pool:
            ready = start_next(pool).result()
            while ready is not None:
                coming = start_next(pool) if is_ahead else None
                item, prepared = ready
                items.append(item)
                yield prepared
                while items and not look_ahead:
                    yield None
                ready = (coming or start_next(pool)).result()
                is_ahead = look_ahead

    with closing(prepared_items()) as ready, closing(predictor.predict_each(ready, stats)) as pairs:
        for prepared, found in pairs:
            yield items.popleft(), prepared, found
            del prepared, found  # or they would be in memory beside the next


def stream_texts(
    model: PredictionMethods,
    texts: Iterable[Any],
    labels: Labels | Iterator[str],
    options: Options,
    *,
    as_tuples: bool,
    most_texts: int,
    devices: Devices | None,
) -> Iterator[Any]:
    """What `GLiNER.stream` gives, which describes the arguments and errors."""
    _expect_one_column(texts)
    if isinstance(labels, Sequence) and any(isinstance(one, (list, Mapping)) for one in labels):
        raise TypeError("labels holds lists or mappings: a stream has one list or mapping of labels for all texts")
    if isinstance(options.relations, Sequence) and any(isinstance(one, list) for one in options.relations):
        raise TypeError("relations holds lists: a stream has one list of relations for all texts")
    for name in ("threshold", "adjacency_threshold", "relation_threshold", "flat_ner", "multi_label"):
        if isinstance(getattr(options, name), Sequence):
            raise TypeError(f"{name} is {getattr(options, name)!r}: a stream has one value for all texts")
    expect_count("window_size", most_texts)
    # Every window asks for them, and what the caller does to a list meanwhile is to change nothing.
    own: Any = labels
    if isinstance(labels, Iterable) and not isinstance(labels, str):
        own = dict(labels) if isinstance(labels, Mapping) else list(labels)
    if isinstance(options.threshold, Mapping):
        options = replace(options, threshold=dict(options.threshold))
    if isinstance(options.relation_threshold, Mapping):
        options = replace(options, relation_threshold=dict(options.relation_threshold))
    if isinstance(options.relations, list):
        options = replace(options, relations=list[Any](options.relations))
    model.predictor().check(Request.read([], own, options))  # complains now, not when the first text is asked for
    places = None if devices is None else parse_devices(devices)
    return _stream(model, texts, own, options, as_tuples=as_tuples, most_texts=most_texts, devices=places)


def _stream(
    model: PredictionMethods,
    texts: Iterable[Any],
    labels: Labels,
    options: Options,
    *,
    as_tuples: bool,
    most_texts: int,
    devices: Sequence[torch.device] | None,
) -> Generator[Any, None, None]:
    pairs = _expect_texts(map(_as_pair, texts) if as_tuples else map(_as_text, texts), model.predictor(), options)
    windows = _cut_windows(pairs, labels, most_texts)
    try:
        with closing(predict_windows(model, windows, options, stats=Stats(), devices=devices)) as results:
            for window, found in results:
                yield from zip(found, window.key, strict=True) if as_tuples else found
    finally:
        if isinstance(texts, Generator):
            texts.close()


def list_texts(texts: object) -> list[Any]:
    """The texts of `inference`; warns, where that was called, of a table, and of the first that is no text.

    Raises:
        TypeError: they cannot be gone through.
    """
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable):
        raise TypeError(f"texts is a {type(texts).__name__}: expected a list of strings, or one string")
    if _is_table(texts):
        warnings.warn(
            f"texts is a {type(texts).__name__}, of several columns, where texts are looked for: give one of them, "
            "such as frame['text']",
            stacklevel=3,
        )
        return list(texts)
    listed = list(texts)
    for number, text in enumerate(listed):
        if not isinstance(text, str) and _warn_of_no_text(number, text, stacklevel=4):
            break
    return listed


def _is_table(texts: object) -> bool:
    """Whether it has columns, as pandas', polars' and pyarrow's have, or is a mapping."""
    return (hasattr(texts, "columns") and hasattr(texts, "shape")) or isinstance(texts, Mapping)


def _expect_one_column(texts: object) -> None:
    if _is_table(texts):
        raise TypeError(f"texts is a {type(texts).__name__}, of several columns: give one, such as frame['text']")
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"texts is a {type(texts).__name__}: expected an iterable of texts, such as a list or a file")


def _as_pair(item: Any) -> tuple[Any, Any]:
    try:
        text, context = item
    except (TypeError, ValueError) as error:
        raise TypeError(f"as_tuples=True, and texts gives {item!r}: expected a pair (text, context)") from error
    return text, context


def _as_text(item: Any) -> tuple[Any, None]:
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        raise TypeError(f"texts gives a tuple, {shown(item)}: did you mean as_tuples=True?")
    return item, None


def _expect_texts(
    pairs: Iterable[tuple[Any, Any]], predictor: Predictor, options: Options
) -> Iterator[tuple[Any, Any]]:
    """Gives pairs on; warns of the first that has neither a text nor a missing value, but a whole row, say.

    Raises:
        ValueError: a text has a word that would take hours, or more memory than there is.
    """
    is_warned = False
    for number, (text, context) in enumerate(pairs):
        if not isinstance(text, str) and not is_warned:
            is_warned = _warn_of_no_text(number, text, stacklevel=3)
        if isinstance(text, str) and predictor.has_endless_word(text, options):
            raise ValueError(f"text {number} {ENDLESS_WORD}; inference tries to read it all the same")
        yield text, context


def _warn_of_no_text(number: int, item: Any, *, stacklevel: int) -> bool:
    """Warns of an item that is no text, but a whole row, say; False, and no warning, where it is a missing value."""
    if _is_missing(item):
        return False
    warnings.warn(
        f"text {number} is {shown(item)}: what is no string has no entities{_way_out(item)}; further ones are not told "
        "of",
        stacklevel=stacklevel,
    )
    return True


def _way_out(item: Any) -> str:
    """What to give in place of items of a kind that columns and tables are made of."""
    if isinstance(item, Mapping):
        return ": give a field of each, such as row['text']"
    if isinstance(item, (list, tuple)):
        return ", as in gliner: inference takes a list of texts"
    # pyarrow, which need not be here, has scalars of its own in its columns.
    return ": give strings, as column.to_pylist() has them" if hasattr(item, "as_py") else ""


def _is_missing(value: Any) -> bool:
    """Whether a column has this in place of a text that is not there: None, NaN, or what pandas has for it."""
    is_nan = isinstance(value, (float, np.floating)) and bool(np.isnan(value))
    return value is None or is_nan or type(value).__name__ in {"NAType", "NaTType"}  # pandas need not be here


def _cut_windows(pairs: Iterable[tuple[Any, Any]], labels: Labels, most_texts: int) -> Generator[Window, None, None]:
    """Windows that start small and grow, with the contexts as their keys; a function of the texts alone.

    Where `pairs` raises, what it gave before is a window first.
    """
    size, first = min(_FIRST_TEXTS, most_texts), 0
    texts: list[Any] = []
    contexts: list[Any] = []
    characters = 0
    failure: Exception | None = None
    try:
        for text, context in pairs:
            texts.append(text)
            contexts.append(context)
            characters += len(text) if isinstance(text, str) else 0
            if len(texts) == size or characters > _MOST_CHARACTERS:
                yield Window(texts, labels, contexts, first_text=first)
                size, first = min(2 * size, most_texts), first + len(texts)
                texts, contexts, characters = [], [], 0
    except Exception as error:  # noqa: BLE001  # raised below
        failure = error
    if texts:
        yield Window(texts, labels, contexts, first_text=first)
    if failure is not None:
        raise failure
