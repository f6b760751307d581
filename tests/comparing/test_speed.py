"""`speed.py` and `gliner-fast bench`: interleaved rounds, honest ratios, agreement beside them."""

from __future__ import annotations

import json

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.cli import main
from gliner_fast.comparing import speed
from gliner_fast.comparing.speed import Times, measure_speed
from tests.samples import CROSSNER, LABELS


class Recording:
    """Stands for a model: notes what it was asked, and answers nothing."""

    def __init__(self, log, name):
        self.log, self.name = log, name
        self.config = GLiNER.from_pretrained().config

    def inference(self, texts, _, **options):
        self.log.append((self.name, list(texts), options.get("batch_size")))
        return [[] for _ in texts]


def test_ratios_are_of_rounds():
    ours, theirs = Times("ours", (1.0, 2.0, 4.0, 8.0)), Times("theirs", (3.0, 4.0, 12.0, 8.0))
    assert theirs.median == 6.0
    assert theirs.quartiles_of_ratios(ours) == (1.75, 2.5, 3.0)  # of 3, 2, 3 and 1
    assert Times("theirs", (3.0,)).quartiles_of_ratios(Times("ours", (2.0,))) == (1.5, 1.5, 1.5)


def test_rounds_take_turns_and_gliner_is_at_its_best(monkeypatch):
    log = []
    ours = GLiNER.from_pretrained()
    infer = ours.inference

    def noted(texts, *others, **options):
        log.append(("ours", list(texts), None))
        return infer(texts, *others, **options)

    monkeypatch.setattr(ours, "inference", noted)
    seconds = {4: 1.0}  # all other ways, and batches of other sizes, take longer
    monkeypatch.setattr(speed, "_seconds", lambda call: (call(), seconds.get(log[-1][2], 2.0))[1])
    reference = Recording(log, "gliner")
    texts = ["Ada.", "", "A longer text.", "Ada."]
    report = measure_speed(ours, texts, ["person"], threshold=1.0, rounds=2, reference=reference)
    assert (report.texts, report.words, report.unread_words, len(report.ours.seconds)) == (2, 6, 0, 2)
    assert [rival.name for rival in report.rivals] == ["gliner as shipped", "gliner sorted, batches of 4"]
    rounds = log[-6:]
    assert [name for name, _, _ in rounds] == ["ours", "gliner", "gliner"] * 2
    assert [given for _, given, _ in rounds[:3]] == [["Ada.", "A longer text."]] * 2 + [["A longer text.", "Ada."]]
    assert [size for _, _, size in rounds[:3]] == [None, None, 4]


def test_words_that_nobody_reads_make_nobody_faster(recwarn):
    model = GLiNER.from_pretrained()
    model.config.max_len = 7
    report = measure_speed(model, ["one two three " * 4, "four five"], ["person"], rounds=1, compare=False)
    assert (report.words, report.unread_words) == (9, 5)
    assert "2 texts, 9 words (5 more are beyond the model's limit, and not read); rounds: 1;" in str(report)
    assert {str(told.message) for told in recwarn} == {"Sentence of length 12 has been truncated to 7"}


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [1, 4, 8, 16]), ("cuda", [1, 16, 64, 256])])
def test_gliner_is_given_the_batches_of_its_device(device, sizes, monkeypatch):
    log, ours = [], Recording([], "ours")
    monkeypatch.setattr(speed, "verify", lambda *_, **__: None)
    ours.device, ours.precision, ours.data_processor = (
        torch.device(device),
        "float32",
        GLiNER.from_pretrained().data_processor,
    )
    report = measure_speed(ours, ["Ada."], ["person"], rounds=1, reference=Recording(log, "gliner"))
    assert [size for _, _, size in log[: len(sizes)]] == sizes
    assert "gliner 0.2.29 in float32" in report.conditions


def test_nothing_to_measure_is_said():
    with pytest.raises(ValueError, match="nothing to measure"):
        measure_speed(GLiNER.from_pretrained(), ["", " "], ["person"], compare=False)


def test_the_command_measures_ours_alone(tmp_path, capsys):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"body": text}) + "\n" for text in CROSSNER[:5]))
    with pytest.raises(SystemExit) as left:
        main(
            [
                "bench",
                str(texts),
                "--text-column",
                "body",
                "-l",
                "person",
                "--alone",
                "--limit",
                "3",
                "--rounds",
                "1",
                "--json",
            ]
        )
    assert left.value.code == 0
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["texts"] == 3
    assert report["words_per_second"] == pytest.approx(report["words"] / report["median_s"])
    assert report["rivals"] == {}
    assert report["agreement"] is None
    assert "round 1 of 1" in told.err


@pytest.mark.gliner
def test_the_command_compares_with_gliner(tmp_path, capsys, checkpoint):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(CROSSNER[:3]))
    with pytest.raises(SystemExit) as left:
        main(["bench", str(texts), "-l", ",".join(LABELS[:2]), "-m", str(checkpoint("deberta")), "--rounds", "1"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "gliner as shipped" in out
    assert "gliner sorted, batches of" in out
    assert "entities equal" in out
    assert "NOT" not in out


def test_texts_are_asked_for(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "no.txt", "-l", "person"])
    assert left.value.code == 2
    assert "no such file: no.txt" in capsys.readouterr().err
