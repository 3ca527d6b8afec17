"""What stands under ``leaderboards/`` is what its records give."""

from pathlib import Path

import pytest

from genbench.leaderboard import build
from genbench.records import Store, read_record

PUBLISHED = Path(__file__).parents[1] / "leaderboards"


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
