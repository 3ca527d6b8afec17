"""Exports for other sites are read by the readers of those sites' formats, and hold the table's own numbers."""

import csv
import io

import pytest

from genbench.errors import GenbenchError
from genbench.leaderboard.elsewhere import export, yaml
from tests.leaderboard.published import honest, publish


@pytest.fixture
def records(tmp_path):
    root = tmp_path / "board"
    publish(root, honest(), honest(seed=1), honest("noise", family="control", fid=900.0), honest("gan", family="gan", model={"paper": "x"}))
    return root / "records"


def parsed(path):
    return pytest.importorskip("yaml").safe_load(path.read_text())


def test_eval_results_have_the_ranked_score_of_each_row(records, tmp_path):
    written = export("eval-results", records, tmp_path / "out", hub_dataset="genbench/digits-20s", url="https://board.example")
    assert len(written) == 2
    assert all(path.parent.name == ".eval_results" for path in written)
    (entry,) = parsed(next(path for path in written if "vae" in str(path)))
    assert entry["dataset"] == {"id": "genbench/digits-20s", "task_id": "digits-20s"}
    assert entry["value"] == pytest.approx((20.0 + 21.0) / 2)
    assert entry["date"] == "2026-01-02"
    assert entry["source"]["url"] == "https://board.example"
    for word in ("FID", "2/5 seeds", "preliminary", "protocol aaaa1111", "cpu-2", "T0"):
        assert word in entry["notes"]


def test_a_model_index_has_every_measure_of_the_ranking(records, tmp_path):
    written = export("model-index", records, tmp_path / "out", track="digits-20s")
    (model,) = parsed(next(path for path in written if "vae" in str(path)))["model-index"]
    (result,) = model["results"]
    assert result["task"]["type"] == "unconditional-image-generation"
    assert (result["dataset"]["type"], result["dataset"]["split"], result["dataset"]["args"]["budget"]) == ("digits", "test", "20s")
    metrics = {metric["type"]: metric for metric in result["metrics"]}
    assert (metrics["fid"]["value"], metrics["fid"]["args"]["seeds"], metrics["precision"]["value"]) == (20.5, "2/5", 0.5)
    assert "source" not in result


def test_papers_csv_has_a_line_a_measure(records, tmp_path):
    (path,) = export("papers-csv", records, tmp_path / "out")
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    assert {line["model_name"] for line in lines} == {"vae", "gan"}  # no control
    fid = next(line for line in lines if line["model_name"] == "vae" and line["metric_name"].startswith("FID"))
    assert (float(fid["metric_value"]), fid["paper_url"]) == (20.5, "https://arxiv.org/abs/1312.6114")
    assert next(line for line in lines if line["model_name"] == "gan")["paper_url"] == ""
    assert fid["uses_additional_data"] == "False"


def test_texts_stay_texts_whatever_they_say(tmp_path):
    hostile = ["yes", "1e3", "- x", "a: b", "#", "!!python/object:os.system", "*a", '"', "\u2028x", "\U0001f600 \u202e", "{}", ""]
    read = pytest.importorskip("yaml").safe_load(yaml({"list": [{"text": text} for text in hostile], "n": 1.5, "none": None}))
    assert [item["text"] for item in read["list"]][:9] == [*hostile[:8], "x"]
    assert (read["n"], read["none"], read["list"][9]["text"]) == (1.5, None, "\U0001f600")
    assert all(isinstance(item["text"], str) for item in read["list"])


def test_hostile_names_make_harmless_files_and_cells(tmp_path):
    names = ["../../x", "=HYPERLINK(1)", "<script>"]
    publish(tmp_path / "board", *(honest(name, family="gan") for name in names))
    out = tmp_path / "deep" / "out"
    written = export("model-index", tmp_path / "board" / "records", out)
    assert len(written) == 3
    assert all(path.resolve().is_relative_to(out.resolve()) for path in written)
    (table,) = export("papers-csv", tmp_path / "board" / "records", out)
    assert not any(cell.startswith("=") for line in csv.reader(io.StringIO(table.read_text())) for cell in line)


@pytest.mark.parametrize(
    ("form", "options", "says"),
    [
        ("xml", {}, "forms: eval-results, model-index, papers-csv"),
        ("eval-results", {}, "like ORG/NAME"),
        ("eval-results", {"hub_dataset": "../x/y"}, "like ORG/NAME"),
        ("papers-csv", {"url": "javascript:alert(1)"}, "must begin with https://"),
    ],
)
def test_a_wrong_request_is_one_line(records, tmp_path, form, options, says):
    with pytest.raises(GenbenchError, match=says):
        export(form, records, tmp_path / "out", **options)
