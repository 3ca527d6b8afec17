"""What a folder of states says, whoever wrote in it: the names of states, their order, and headers that are as they were sealed."""

import json

import pytest

from genbench import states


def laid(run, *names, header=None):
    for name in names:
        place = run / states.FOLDER / name
        place.mkdir(parents=True)
        (place / states.HEADER).write_bytes(states.seal({"made": {"torch": name}} if header is None else header))
    return run


def test_the_newest_state_comes_first_and_the_furthest_counts(tmp_path):
    run = laid(tmp_path, "000000000030-00000000000000000001", "000000000020-00000000000000000003", "000000000010-00000000000000000002")
    assert [place.name[:12] for place in states.saved(run / states.FOLDER)] == ["000000000020", "000000000010", "000000000030"]
    assert states.saved_steps(run) == 30
    assert states.begun_with(run) == {"torch": "000000000020-00000000000000000003"}
    assert states.saved(run / "nowhere") == []
    assert states.saved_steps(run / "nowhere") == 0
    assert states.begun_with(run / "nowhere") == {}


@pytest.mark.parametrize("name", ["0x-1", "1-x", "٣-٣", "-1--1", "1e3-2", "1-2-3", " 1-2", ".new-17", "5-6.part"])
def test_what_a_plugin_names_in_its_own_way_is_no_state(tmp_path, name):
    run = laid(tmp_path, "000000000003-00000000000000000001")
    laid(run, name)
    assert [place.name for place in states.saved(run / states.FOLDER)] == ["000000000003-00000000000000000001"]
    assert states.saved_steps(run) == 3
    assert states.order(name) == -1
    assert states.steps([name]) == 0
    assert states.order(states.new_name(run / states.FOLDER, 4)) > 1


def test_a_file_is_no_state(tmp_path):
    run = laid(tmp_path, "000000000003-00000000000000000001")
    (run / states.FOLDER / "000000000009-00000000000000000009").write_text("x")
    assert states.saved_steps(run) == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"x\n{}", states.seal({"made": {}})[:-1], states.seal({"made": {}}).replace(b"{}", b"[]"), b"\xff" * 100],
    ids=["empty", "no digest", "another digest", "cut", "changed", "no text"],
)
def test_a_header_that_is_not_as_it_was_sealed_is_passed_over(tmp_path, content):
    run = laid(tmp_path, "000000000003-00000000000000000001", "000000000004-00000000000000000002")
    newest = states.saved(run / states.FOLDER)[0]
    (newest / states.HEADER).write_bytes(content)
    assert states.header(newest) is None
    assert states.begun_with(run) == {"torch": "000000000003-00000000000000000001"}


@pytest.mark.parametrize("said", [[1], {"made": [1]}, {"made": None}, {}, "text", 3])
def test_a_sealed_header_of_another_form_says_nothing(tmp_path, said):
    run = laid(tmp_path, "000000000003-00000000000000000001", header=said)
    assert states.begun_with(run) == {}


def test_a_header_that_nests_without_end_says_nothing(tmp_path):
    import hashlib

    run = laid(tmp_path, "000000000003-00000000000000000001")
    body = b"[" * 100_000
    (states.saved(run / states.FOLDER)[0] / states.HEADER).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert states.begun_with(run) == {}


def test_what_is_sealed_is_read_back_and_no_number_of_it_is_nan(tmp_path):
    run = laid(tmp_path, "000000000003-00000000000000000001", header={"made": {"threads": 2}, "x": [0.1, None, "ü"]})
    assert states.header(states.saved(run / states.FOLDER)[0]) == {"made": {"threads": 2}, "x": [0.1, None, "ü"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        states.seal({"x": float("nan")})
    assert json.loads(states.seal({"x": 1}).partition(b"\n")[2]) == {"x": 1}
