from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
import scipy.stats

from genbench.errors import GenbenchError
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.statistics import median_with_failures, t_interval


def only(results):
    (table,) = results.tables
    return table


def rows(table):
    return {row.label: row for row in table.all_rows}


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.1, 2.9, 3.3, 7.0], [10.0, 10.5, 9.25, 11.0, 10.125]])
def test_t_interval_is_scipys(values):
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=statistics.fmean(values), scale=scipy.stats.sem(values))
    assert t_interval(values) == pytest.approx((high - low) / 2, rel=1e-12)


def test_t_interval_golden_and_absent():
    assert t_interval([1.0, 3.0]) == pytest.approx(12.706204736432095)  # t(0.975, 1) times the standard error 1
    assert t_interval([5.0]) is None


def test_a_failure_is_the_worst_value_in_the_direction_of_the_score():
    assert median_with_failures([5.0, None, 1.0], "lower") == 5.0
    assert median_with_failures([5.0, None, 1.0], "higher") == 1.0
    assert median_with_failures([5.0, None, None], "lower") is None
    assert median_with_failures([5.0, None], "lower") is None
    assert median_with_failures([4.0, None, 2.0, 3.0], "lower") == 3.5
    assert median_with_failures([], "lower") is None


def test_rank_is_by_median_not_mean_and_failures_count(tmp_path, make):
    lucky = [make.record("lucky", s, v) for s, v in enumerate([10.0, 10.0, 500.0, 500.0, 500.0])]  # mean 304, median 500
    steady = [make.record("steady", s, v) for s, v in enumerate([310.0, 310.0, 310.0, 310.0, 900.0])]  # mean 428, median 310
    fragile = [make.record("fragile", s, 20.0) for s in range(2)] + [
        make.record("fragile", s, status="diverged", reason="nan") for s in (2, 3, 4)
    ]
    one_lost = [make.record("one-lost", s, 400.0) for s in range(4)] + [make.record("one-lost", 4, status="oom", reason="memory")]
    table = only(read(make.write(tmp_path, *lucky, *steady, *fragile, *one_lost)))
    assert [(row.label, row.rank, row.seeds) for row in table.rows] == [
        ("steady", 1, "5/5"),
        ("one-lost", 2, "4/5"),
        ("lucky", 3, "5/5"),
        ("fragile", None, "2/5"),
    ]
    assert not any(row.preliminary for row in table.rows)
    found = rows(table)
    assert found["fragile"].status == "2 done, 3 diverged"
    assert found["fragile"].cells["fid"].mean == 20.0
    assert found["fragile"].cells["fid"].median is None
    assert found["one-lost"].cells["fid"].half == 0.0
    assert found["lucky"].cells["fid"].mean == 304.0


def test_bold_is_for_the_best_mean_of_rows_that_mostly_finished(tmp_path, make):
    good = [make.record("good", s, 50.0 + s, scores=[make.score("precision", 0.4, "higher")]) for s in range(5)]
    worse = [make.record("worse", s, 70.0, scores=[make.score("precision", 0.8, "higher")]) for s in range(5)]
    lucky = [make.record("lucky", 0, 1.0)] + [make.record("lucky", s, status="error", reason="x") for s in range(1, 5)]
    perfect = [make.record("perfect", s, 0.5, family="control") for s in range(5)]
    table = only(read(make.write(tmp_path, *good, *worse, *lucky, *perfect)))
    best = {(row.label, key) for row in table.all_rows for key, cell in row.cells.items() if cell.best}
    assert ("good", "fid") in best
    assert ("worse", "precision") in best
    assert not {("lucky", "fid"), ("perfect", "fid"), ("worse", "fid"), ("good", "precision")} & best
    assert not {key for _, key in best} & {"parameters", "steps"}  # neither more nor fewer is better


def test_higher_is_better_ranks_the_other_way(tmp_path, make):
    track = make.track(rank_by="precision")
    low, high = (
        make.record(name, 0, fid, the_track=track, scores=[make.score("precision", value, "higher")])
        for name, fid, value in [("a", 1.0, 0.2), ("b", 9.0, 0.7)]
    )
    assert [row.label for row in only(read(make.write(tmp_path, low, high))).rows] == ["b", "a"]


def test_equal_medians_share_a_rank(tmp_path, make):
    records = [make.record(name, 0, fid) for name, fid in [("a", 5.0), ("b", 5.0), ("c", 6.0)]]
    assert [row.rank for row in only(read(make.write(tmp_path, *records))).rows] == [1, 1, 3]


def test_a_done_run_without_its_score_is_no_better_than_a_failed_one(tmp_path, make):
    silent = make.record("silent", 0)
    silent = silent.model_copy(update={"scores": (make.score("fid", None, note="too few images"),)})
    table = only(read(make.write(tmp_path, silent, make.record("spoken", 0, 900.0))))
    assert [(row.label, row.rank) for row in table.rows] == [("spoken", 1), ("silent", None)]


@pytest.mark.parametrize(("seeds", "ended", "needed"), [(5, 4, 5), (5, 5, None), (3, 2, 3), (3, 3, None), (8, 4, 5), (8, 5, None)])
def test_a_rank_is_preliminary_below_five_seeds_or_all_that_the_track_plans(tmp_path, make, seeds, ended, needed):
    track = make.track(seeds=seeds)
    table = only(read(make.write(tmp_path, *(make.record("a", seed, 10.0 + seed, the_track=track) for seed in range(ended)))))
    assert table.rows[0].preliminary is (needed is not None)
    notes = [note for note in table.notes if "preliminary" in note]
    assert notes == ([f"Ranks in parentheses are preliminary: fewer than {needed} seeds."] if needed else [])


def test_seeds_beyond_the_plan_do_not_count(tmp_path, make):
    track = make.track(seeds=2)
    table = only(read(make.write(tmp_path, *(make.record("a", s, fid, the_track=track) for s, fid in [(0, 10.0), (1, 20.0), (7, 0.1)]))))
    (row,) = table.rows
    assert (row.seeds, row.extra, row.cells["fid"].mean) == ("2/2", (7,), 15.0)
    assert any("beyond the plan: seed 7" in flag for flag in row.flags)


def test_rows_are_apart_by_hparams_version_and_digest(tmp_path, make):
    records = [
        make.record("m", 0, 1.0),
        make.record("m", 0, 2.0, changed={"width": 48}),
        make.record("m", 0, 3.0, version="0.2.0"),
        make.record("m", 0, 4.0, digest="e" * 64),
        make.record("m", 1, 1.0),
    ]
    table = only(read(make.write(tmp_path, *records)))
    assert len(table.rows) == 4
    labels = [row.label for row in table.rows]
    assert len(set(labels)) == 4
    assert "m width=48" in labels
    assert any("0.2.0" in label for label in labels)
    assert table.rows[0].seeds == "2/5"


def test_tables_never_mix_track_hashes_or_device_classes(tmp_path, make):
    longer, four = make.track(budget="5m"), make.environment(threads=4)
    gpu = make.environment(device="NVIDIA H100")
    records = [
        make.record("a", 0, 1.0),
        make.record("b", 0, 2.0, the_track=longer),
        make.record("c", 0, 3.0, device="cpu-4", env=four),
        make.record("d", 0, 4.0, device="NVIDIA H100", env=gpu),
        make.record("e", 0, 5.0),
    ]
    results = read(make.write(tmp_path, *records))
    assert {(t.track_hash, t.device_class): [r.label for r in t.rows] for t in results.tables} == {
        (make.track().hash, "cpu-2"): ["a", "e"],
        (longer.hash, "cpu-2"): ["b"],
        (make.track().hash, "cpu-4"): ["c"],
        (make.track().hash, "NVIDIA H100"): ["d"],
    }
    assert [len(tables) for tables in results.by_track.values()] == [4]


def test_a_device_that_only_says_its_kind_is_told_by_its_machine(tmp_path, make):
    records = [make.record("a", 0, 1.0, device="cpu", env=make.environment(threads=4)), make.record("b", 0, 1.0)]
    records += [make.record("c", 0, 1.0, device="cuda", env=make.environment(device="NVIDIA H100"))]
    assert {t.device_class: [r.label for r in t.rows] for t in read(make.write(tmp_path, *records)).tables} == {
        "cpu-4": ["a"],
        "cpu-2": ["b"],
        "NVIDIA H100": ["c"],
    }


def test_scores_of_different_protocols_are_neither_ranked_nor_bold(tmp_path, make):
    records = [make.record("a", 0, 1.0), make.record("b", 0, 2.0, protocol="bbbb2222"), make.record("c", 0, 3.0)]
    table = only(read(make.write(tmp_path, *records)))
    column = table.rank_column
    assert column.mixed
    assert column.protocols == (make.protocol, "bbbb2222")
    assert [row.rank for row in table.rows] == [None, None, None]
    assert not any(row.cells["fid"].best for row in table.rows)
    assert any("different protocols" in note and "FID (mnist-cnn)" in note for note in table.notes)


def test_a_control_of_another_protocol_does_not_spoil_the_column(tmp_path, make):
    records = [make.record("a", 0, 1.0), make.record("real-holdout", 0, 0.5, family="control", protocol="cccc3333")]
    table = only(read(make.write(tmp_path, *records)))
    assert not table.rank_column.mixed
    assert table.rows[0].rank == 1
    assert table.controls[0].rank is None


def test_scores_of_a_second_extractor_have_their_own_column(tmp_path, make):
    extra = make.score("fid", 7.0, extractor="inception-v3-compat", protocol="dddd4444")
    table = only(read(make.write(tmp_path, make.record("a", 0, 1.0, scores=[extra]))))
    assert {c.key: c.name for c in table.columns if c.key.startswith("fid")} == {
        "fid": "FID (mnist-cnn)",
        "fid@inception-v3-compat": "FID (inception-v3-compat)",
    }
    assert table.rows[0].cells["fid@inception-v3-compat"].mean == 7.0


def test_columns_come_in_order_and_empty_ones_not_at_all(tmp_path, make):
    scores = [
        make.score("strange", 1.0, "neither"),
        make.score("w1", 0.1),
        make.score("precision", 0.5, "higher"),
        make.score("fid_infinity", None, note="few"),
    ]
    table = only(read(make.write(tmp_path, make.record("a", 0, 1.0, scores=scores))))
    keys = [column.key for column in table.columns]
    assert keys.index("fid") < keys.index("precision") < keys.index("train_throughput") < keys.index("w1") < keys.index("strange")
    assert "fid_infinity" not in keys


def test_floor_and_notes(tmp_path, make):
    records = [make.record("a", 0, 1.0), make.record("b", 0, 2.0, gemm=(120.0, 122.0)), make.record("c", 0, 2.5)]
    records.append(make.record("d", 0, 3.0, env=make.environment(genbench="0.2.0")))
    table = only(read(make.write(tmp_path, *records)))
    assert table.floor["fid"] == 2.9
    assert any("b seed 0 (-24%)" in note for note in table.notes)
    assert any("0.1.0, 0.2.0" in note for note in table.notes)
    assert table.gemm == (120.0, 160.0)
    assert table.accuracy is None


def test_the_first_of_two_records_of_a_run_counts_in_any_order(tmp_path, make):
    early, late = (make.record("a", 0, fid, started=f"2025-01-0{day}T00:00:00+00:00") for fid, day in [(30.0, 1), (1.0, 2)])
    one, two = make.write(tmp_path / "one", early), make.write(tmp_path / "two", late)
    for roots in ([one, two], [two, one]):
        assert only(read(roots)).rows[0].cells["fid"].values == {0: 30.0}


def test_plain_folder_of_records(tmp_path, make):
    for position, record in enumerate([make.record("a", 0, 1.0), make.record("b", 0, 2.0)]):
        (tmp_path / f"{position}.json").write_text(record.model_dump_json())
    assert [row.label for row in only(read(tmp_path)).rows] == ["a", "b"]


def test_damaged_records_are_listed_and_nothing_at_all_is_an_error(tmp_path, make):
    make.write(tmp_path, make.record("a", 0, 1.0))
    bad = tmp_path / "runs" / "mnist-3m" / "b" / "0-x" / "record.json"
    bad.parent.mkdir(parents=True)
    bad.write_text('{"status": NaN}')
    results = read(tmp_path)
    assert [(d.path, "NaN" in d.reason, str(tmp_path) in d.reason) for d in results.damaged] == [
        ("runs/mnist-3m/b/0-x/record.json", True, False)
    ]
    assert len(results.tables) == 1
    empty = tmp_path / "empty"
    with pytest.raises(GenbenchError, match="does not exist"):
        read(empty)
    empty.mkdir()
    with pytest.raises(GenbenchError, match="no record in"):
        read(empty)
    with pytest.raises(GenbenchError, match="no readable record"):
        read(bad)


def test_median_is_finite_everywhere(tmp_path, make):
    for row in only(read(make.write(tmp_path, *make.full()))).all_rows:
        for cell in row.cells.values():
            assert cell.median is None or math.isfinite(cell.median)


def test_rows_are_held_against_the_published_results_that_a_track_repeats(tmp_path, make):
    track = make.track(published={"dcgan": {"fid": (90, 110), "kid": (0, 1)}, "absent": {"fid": (0, 1)}})
    records = [make.record("dcgan", seed, fid, the_track=track) for seed, fid in enumerate((85, 100))]
    records += [make.record("other", 0, 5.0, the_track=track)]
    table = only(read(make.write(tmp_path / "a", *records)))
    assert "dcgan: fid 92.5 lies inside the published interval, 90 to 110." in table.notes
    assert not any("absent" in note or "other" in note for note in table.notes)
    far = [make.record("dcgan", 0, 120.0, the_track=track)]
    table = only(read(make.write(tmp_path / "b", *far)))
    assert "dcgan: fid 120 lies outside the published interval, 90 to 110." in table.notes


def test_what_a_results_folder_in_use_has_beside_its_records_is_no_record(tmp_path, make):
    failed = make.record("a", 0, status="oom", reason="no memory")
    path = make.write(tmp_path, failed) / failed.spec.folder / "record.json"
    aside, state = path.parent / "attempts" / "1" / "failed.json", path.parent / "state" / "3-1" / "state.json"
    aside.parent.mkdir(parents=True)
    state.parent.mkdir(parents=True)
    path.replace(aside)
    state.write_text("{}")
    with pytest.raises(GenbenchError, match=r"no record in .*; run something first"):
        read(tmp_path)


@pytest.mark.parametrize("when", ["before it is read", "after"])
def test_a_record_that_a_sweep_sets_aside_meanwhile_is_not_there(tmp_path, make, monkeypatch, when):
    results = make.write(tmp_path, make.record("a", 0, 1.0), make.record("b", 0, status="oom", reason="no memory"))
    (gone,) = (results / "runs" / "mnist-3m" / "b").glob("*/record.json")
    own = Path.read_bytes

    def read_bytes(path):
        if path != gone:
            return own(path)
        content = own(path) if when == "after" else b""
        path.replace(path.with_name("failed.json"))
        return content or own(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    results = read(tmp_path)
    assert results.damaged == ()
    assert [row.label for row in only(results).rows] == ["a"] + ["b"] * (when == "after")


def test_a_record_that_cannot_be_read_is_listed(tmp_path, make):
    make.write(tmp_path, make.record("a", 0, 1.0))
    broken = tmp_path / "runs" / "mnist-3m" / "b" / "0-x"
    broken.mkdir(parents=True)
    (broken / "record.json").symlink_to(tmp_path / "nowhere")
    (damaged,) = read(tmp_path).damaged
    assert damaged.path == "runs/mnist-3m/b/0-x/record.json"
    assert damaged.reason == "record record.json: No such file or directory"


def test_the_tuning_budget_of_a_row_is_the_largest_of_its_runs(tmp_path, make):
    records = [make.record("a", seed, 1.0, trials=trials) for seed, trials in enumerate((1, 12, 6))]
    (row,) = only(read(make.write(tmp_path, *records))).rows
    assert "12 trials" in row.flags
    (row,) = only(read(make.write(tmp_path / "first", records[0]))).rows
    assert "1 trial" in row.flags
