"""What nodes must have in common, and how it is said where they do not."""

import platform
from dataclasses import replace

import pytest

import genbench
from genbench.errors import GenbenchError
from genbench.jobs import Checked
from genbench.sweep.preflight import Found, Ticket, agree, at_home, differences, examine, facts
from genbench.track import Track

TRACK = Track(name="t", dataset="digits", size=8, budget="60s", num_samples=50, extractor="digits-cnn")
STEPS = TRACK.model_copy(update={"budget": "5steps"})
CHECKED = Checked(
    device="cuda", device_class="H100", device_name="H100", num_devices=8, channels=1, num_train=1200, num_holdout=300, num_test=297,
    num_classes=10, torch="2.13.0+cu126", packages={},
)  # fmt: skip
FACTS = {"Python": "3.11.7", "genbench": "0.3 (aa)", "torch": "2.13.0", "my-gan": "1.0 (bb)"}


def ticket(*tracks, **more):
    told = {
        "tracks": tracks or (TRACK,), "files": (), "facts": FACTS, "folder": "/", "results": "/r", "storage": "",
        "probe": "", "device": "cpu",
        "threads": 1, "weights": None,
    }  # fmt: skip
    return Ticket(**told | more)


def test_facts_name_this_python_genbench_torch_and_every_plugin_with_its_digest(tmp_path):
    file = tmp_path / "mygan.py"
    file.write_text("x = 1\n")
    told = facts([str(file), str(tmp_path / "gone.py")])
    assert told["Python"] == platform.python_version()
    assert told["genbench"].startswith(f"{genbench.__version__} (")
    assert "+" not in told["torch"]
    assert told[str(tmp_path / "gone.py")] == ""
    file.write_text("x = 2\n")
    assert [line for line in differences(told, facts([str(file)])) if "mygan" in line]
    assert differences(told, told) == []


def test_a_plugin_with_other_sources_is_another_of_the_same_version(site, monkeypatch):
    from genbench.sweep import preflight

    point = site.install("genbench-odd", "a = 1\n", version="1.0")
    monkeypatch.setattr(preflight, "plugin_points", lambda: [point])
    before = facts()["genbench-odd"]
    (site.folder / "genbench_odd.py").write_text("a = 2\n")
    after = facts()["genbench-odd"]
    assert before.startswith("1.0 (")
    assert after.startswith("1.0 (")
    assert after != before


def test_what_differs_is_said_from_the_drivers_side_and_what_a_node_has_beside_it_is_no_matter():
    theirs = {**FACTS, "torch": "2.12.1", "another": "1"}
    del theirs["my-gan"]
    assert differences(FACTS, theirs) == ["torch 2.13.0 here, 2.12.1 there", "my-gan 1.0 (bb) here, missing there"]


def test_nodes_that_agree_may_run():
    other = CHECKED.model_copy(update={"num_devices": 4})
    agree({"a": Found(FACTS, (CHECKED,)), "b": Found({**FACTS, "more": "1"}, (other,))}, ticket())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"device_class": "A100", "device_name": "A100"}, "node b: device class A100, but H100 on node a"),
        ({"torch": "2.13.0"}, r"node b: torch 2\.13\.0, but 2\.13\.0\+cu126 on node a"),
        ({"num_train": 1199}, "node b: images in train 1199, but 1200 on node a"),
        ({"device_name": "another"}, "node b: device another, but H100 on node a"),
    ],
)
def test_a_node_that_differs_from_the_others_is_named_with_the_difference(change, says):
    other = Found(FACTS, (CHECKED.model_copy(update=change),))
    with pytest.raises(GenbenchError, match=says) as error:
        agree({"a": Found(FACTS, (CHECKED,)), "b": other}, ticket())
    assert "\n" not in str(error.value)
    assert "--resource NAME" in str(error.value)


def test_processors_of_one_class_may_differ_where_the_budget_is_no_time():
    other = CHECKED.model_copy(update={"device_name": "another"})
    agree({"a": Found(FACTS, (CHECKED,)), "b": Found(FACTS, (other,))}, ticket(STEPS))


def test_what_a_node_lacks_comes_before_what_its_devices_are_and_all_nodes_are_named():
    nodes = {"a": Found(FACTS, (CHECKED,)), "b": Found({**FACTS, "Python": "3.12.1"}), "c": Found(FACTS, problem="track t: no dataset")}
    with pytest.raises(GenbenchError, match=r"node b: Python 3\.11\.7 here, 3\.12\.1 there; node c: track t: no dataset\. Every"):
        agree(nodes, ticket())


def test_a_node_that_does_not_see_the_results_folder_says_so_and_checks_nothing(tmp_path, monkeypatch):
    from genbench.sweep import preflight

    monkeypatch.setattr(preflight, "PATIENCE", 0.1)
    monkeypatch.setattr(preflight.runs, "check", lambda *a, **b: pytest.fail("looked further"))
    mine = replace(ticket(), facts=facts(), results=str(tmp_path / "mine"), probe=".probe-1")
    assert "does not see the driver's results folder" in examine(mine).problem
    assert not (tmp_path / "mine").exists()
    assert "does not see the driver's results folder" in examine(replace(mine, probe="")).problem
    assert "does not see what the driver wrote" in examine(replace(mine, storage=(tmp_path / "s").as_uri())).problem
    assert examine(replace(mine, facts={**mine.facts, "Python": "2.7"})).problem == ""


def test_a_node_works_where_the_driver_does_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    with at_home(str(tmp_path / "below")):
        assert (tmp_path / "below").samefile(".")
    assert tmp_path.samefile(".")
    with at_home(str(tmp_path / "nowhere")):
        assert tmp_path.samefile(".")
