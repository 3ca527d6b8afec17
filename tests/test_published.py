"""What stands under ``leaderboards/`` is what its records give."""

import itertools
import os
from pathlib import Path

import pytest

from genbench.leaderboard import build
from genbench.records import Store, read_record
from genbench.supervisor import Supervisor
from genbench.verify import verify

PUBLISHED = Path(__file__).parents[1] / "leaderboards"
DATA = [Path(root) for root in (os.environ.get("GENBENCH_DATA"), PUBLISHED.parents[1] / "shared" / "data") if root]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if not PUBLISHED.is_dir():
        pytest.skip("leaderboards/ is not beside the tests")
    out = tmp_path_factory.mktemp("built")
    build(PUBLISHED / "records", out)
    return out


def test_tables_are_what_their_records_give(built):
    names = {path.name for path in built.glob("*.*")}
    assert {"README.md", "mnist-3m.md", "mnist-3m.csv", "mnist-3m.json"} <= names
    for name in names:
        assert (PUBLISHED / name).read_text() == (built / name).read_text(), f"{name} is not what the records give: build it again"


def test_pages_are_all_there(built):
    found, expected = ({path.relative_to(root) for path in (root / "site").rglob("*")} for root in (PUBLISHED, built))
    assert found == expected


def test_records_are_whole_and_honest():
    paths = Store(PUBLISHED / "records").paths()
    assert paths
    for path in paths:
        record = read_record(path)
        assert record.spec.track_hash == record.spec.track.hash
        if record.status == "done":
            assert record.score(record.spec.track.rank_by) is not None
            assert record.digests["samples"]
            if not record.spent.finished_early:
                assert record.spent.seconds >= 180 or record.spec.track.name != "mnist-3m"
            assert record.spent.overshoot <= record.spec.track.grace


def with_checkpoints():
    """Every published run whose checkpoint lies beside its record; two of them each time, the others take minutes together."""
    for path in Store(PUBLISHED / "records").paths():
        if (path.parent / "checkpoint.safetensors").exists():
            track, model, run = path.parts[-4:-1]
            marks = () if (track, model) in (("digits-20s", "dcgan"), ("digits-20s", "vae")) else (pytest.mark.slow,)
            yield pytest.param(path.parent, id=f"{track}-{model}-{run}", marks=marks)


@pytest.fixture(scope="module")
def supervisor():
    return Supervisor()


@pytest.mark.parametrize("folder", list(with_checkpoints()))
def test_a_published_run_with_its_checkpoint_is_drawn_again_as_recorded(folder, supervisor, monkeypatch):
    if read_record(folder / "record.json").spec.track.dataset != "digits":
        root = next((root for root in DATA if (root / "MNIST").is_dir()), None)
        if root is None:
            pytest.skip("no MNIST under GENBENCH_DATA or ../shared/data")
        monkeypatch.setenv("GENBENCH_DATA", str(root))
    numbers = itertools.count(1000)  # honest runs must not fail once in a hundred times, as the level allows
    monkeypatch.setattr("secrets.randbits", lambda bits: next(numbers))
    found = verify(folder, supervisor, tier=2)
    assert found.ok, found.differs
    checked = {finding.what: finding.ok for finding in found.findings}
    assert checked["checkpoint"] is True
    if (folder / "samples.npz").exists():
        assert checked["samples"] is True
        assert {score.of for score in found.scores} >= {"stored samples", "fresh seed"}
