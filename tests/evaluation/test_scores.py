"""Counts and rates of exact matches, and which sets are averaged."""

import pytest

from gliner_fast.evaluation.benchmarks import BENCHMARKS, averages
from gliner_fast.evaluation.scores import Score, macro_f1, micro
from tests.reference.scores import score_sets


def test_rates_follow_from_counts():
    score = Score(gold=8, predicted=5, hits=4)
    assert (score.precision, score.recall) == (0.8, 0.5)
    assert score.f1 == pytest.approx(2 * 0.8 * 0.5 / 1.3)
    assert score.to_dict() == {
        "precision": 80.0, "recall": 50.0, "f1": 61.538, "gold": 8, "predicted": 5, "hits": 4,
    }  # fmt: skip


@pytest.mark.parametrize("score", [Score(), Score(gold=3), Score(predicted=3)])
def test_empty_denominators_give_zero(score):
    assert (score.precision, score.recall, score.f1) == (0, 0, 0)


def test_sets_are_compared_text_by_text():
    ada, city = (0, 2, "person"), (4, 5, "city")
    assert score_sets([{ada, city}, {city}], [{ada, (4, 5, "country")}, {ada, city}]) == Score(3, 4, 2)
    with pytest.raises(ValueError, match="annotation of 1 texts, and predictions of 2"):
        score_sets([set()], [set(), set()])


def test_micro_adds_counts_and_macro_averages_labels_that_occur():
    scores = {"a": Score(2, 2, 2), "b": Score(4, 0, 0), "c": Score(0, 2, 0), "never": Score()}
    assert micro(scores.values()) == Score(6, 4, 2)
    assert macro_f1(scores) == pytest.approx(1 / 3)
    assert macro_f1({}) == 0


def test_averages_know_the_paper_s_sets_by_any_spelling():
    spellings = ["CrossNER_AI", "crossner-literature", "mit-movie", "GENIA_NER", "wikiann_en", "uner_en_ewt"]
    found = {average.benchmark.name: average for average in averages(dict(zip(spellings, range(6), strict=True)))}
    assert found["out of domain"].present == ("CrossNER_AI", "crossner-literature", "mit-movie")
    assert (found["out of domain"].f1, found["out of domain"].is_complete) == (1.0, False)
    assert found["20 NER sets"].present == ("GENIA_NER", "mit-movie", "wikiann_en")
    assert found["20 NER sets"].f1 == 3.0
    assert "MultiCoNER" not in found


def test_averages_know_the_sets_by_the_names_of_published_files():
    names = [
        "ACE 2005", "AnatEM", "bc2gm", "bc4chemd", "bc5cdr", "Broad Tweet Corpus", "CoNLL 2003", "FabNER",
        "FindVehicle", "GENIA_NER", "HarveyNER", "mit-movie", "mit-restaurant", "MultiNERD", "ncbi", "Ontonotes",
        "PolyglotNER", "TweetNER7_en", "WikiANN en", "WikiNeural",
    ]  # fmt: skip
    complete = {average.benchmark.name: average.is_complete for average in averages(dict.fromkeys(names, 0.5))}
    assert complete == {"20 NER sets": True, "out of domain": False}


def test_an_average_of_all_sets_is_complete():
    domains = ["ai", "literature", "music", "politics", "science"]
    sets = [f"crossner_{domain}" for domain in domains] + ["mit_movie", "mit_restaurant"]
    complete = {average.benchmark.name: average.is_complete for average in averages(dict.fromkeys(sets, 0.5))}
    assert complete == {"out of domain": True, "20 NER sets": False}
    assert [len(benchmark.sets) for benchmark in BENCHMARKS] == [7, 20, 11]
    assert averages({"crossner_ai": 0.5, "my own": 0.5}) == []
