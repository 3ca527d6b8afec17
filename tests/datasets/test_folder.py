import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from genbench.datasets import prepare as module
from genbench.datasets.prepare import prepare
from genbench.errors import GenbenchError


def image(value, shape=(8, 8)):
    """A flat image whose pixel says which one it is."""
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(path, members):
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def values(split):
    return split.images[:, 0, 0, 0].tolist()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_kept", {})


def test_without_marks_a_seeded_tenth_is_the_test_split(tmp_path):
    write_folder(tmp_path / "a", {f"{i:03}.png": image(i) for i in range(100)})
    data = prepare(f"folder:{tmp_path / 'a'}", 8)
    assert (len(data.train), len(data.holdout), len(data.test)) == (81, 9, 10)
    assert sorted(values(data.train) + values(data.holdout) + values(data.test)) == list(range(100))
    assert values(data.test) != list(range(90, 100))
    assert data.num_classes == 0
    assert data.train.labels is None


def test_train_and_test_folders_with_classes_below_them(tmp_path):
    members = {f"train/{'cat' if i % 2 else 'dog'}/{i:02}.png": image(i) for i in range(20)}
    members |= {f"test/dog/{i}.png": image(i) for i in (100, 101)} | {"test/eel/1.png": image(200)}
    write_folder(tmp_path / "a", members)
    data = prepare(f"folder:{tmp_path / 'a'}", 8)
    assert data.spec.class_names == ("cat", "dog", "eel")
    assert (len(data.train), len(data.holdout), len(data.test)) == (18, 2, 3)
    assert values(data.test) == [100, 101, 200]
    assert data.test.labels.tolist() == [1, 1, 2]
    assert all(label == (0 if value % 2 else 1) for value, label in zip(values(data.train), data.train.labels, strict=True))
    assert max(values(data.train) + values(data.holdout)) < 20


def test_a_zip_with_one_folder_around_everything(tmp_path):
    members = {f"things/train/{i:02}.png": image(i) for i in range(10)} | {f"things/val/{i}.png": image(50 + i) for i in range(3)}
    write_zip(tmp_path / "a.zip", {**members, "__MACOSX/things/._0.png": b"x"})
    data = prepare(f"zip:{tmp_path / 'a.zip'}", 8)
    assert values(data.test) == [50, 51, 52]
    assert data.num_classes == 0


def test_train_zip_beside_test_zip_with_dataset_json(tmp_path):
    for part, first, count in (("train", 0, 20), ("test", 100, 4)):
        table = {"labels": [[f"{i:05}.png", (first + i) % 3] for i in range(count)], "classes": ["a", "b", "c"]}
        write_zip(tmp_path / f"{part}.zip", {f"{i:05}.png": image(first + i) for i in range(count)} | {"dataset.json": json.dumps(table)})
    data = prepare(f"zip:{tmp_path}", 8)
    assert (len(data.train), len(data.holdout), len(data.test)) == (18, 2, 4)
    assert values(data.test) == [100, 101, 102, 103]
    assert data.test.labels.tolist() == [1, 2, 0, 1]
    assert data.num_classes == 3
    assert data.spec.class_names == ("a", "b", "c")
    assert all(label == value % 3 for value, label in zip(values(data.holdout), data.holdout.labels, strict=True))


def test_oblong_images_are_cropped_and_reduced(tmp_path):
    write_folder(tmp_path / "a", {f"{i}.png": image(i, (12, 16)) for i in range(10)})
    data = prepare(f"folder:{tmp_path / 'a'}", 6)
    assert data.train.images.shape == (8, 1, 6, 6)
    assert data.resize == "area-reduced 12 → 6"
    with pytest.raises(GenbenchError, match="cannot be had at 16x16"):
        prepare(f"folder:{tmp_path / 'a'}", 16)


def test_what_was_decoded_is_kept_and_noticed_when_files_change_or_the_cache_is_damaged(tmp_path):
    write_folder(tmp_path / "a", {f"{i}.png": image(i) for i in range(10)})
    name = f"folder:{tmp_path / 'a'}"
    first = prepare(name, 8)
    assert isinstance(first.train.images, np.memmap)
    (kept,) = (tmp_path / "cache" / "datasets").iterdir()
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    module._kept.clear()
    again = prepare(name, 8)
    assert again.digest == first.digest
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == before

    damaged = bytearray((kept / "test.npy").read_bytes())
    damaged[-1] ^= 1
    (kept / "test.npy").write_bytes(damaged)
    module._kept.clear()
    assert prepare(name, 8).digest == first.digest

    write_folder(tmp_path / "a", {"3.png": image(99)})
    changed = prepare(name, 8)
    assert changed.digest != first.digest
    assert 99 in values(changed.train) + values(changed.holdout) + values(changed.test)


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    write_folder(tmp_path / "a", {f"{i}.png": image(i) for i in range(10)})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file"))
    data = prepare(f"folder:{tmp_path / 'a'}", 8)
    assert sorted(values(data.train) + values(data.holdout) + values(data.test)) == list(range(10))


def test_users_mistakes_are_one_clear_line(tmp_path):
    write_folder(tmp_path / "mixed", {"0.png": image(0), "1.png": image(1, (8, 9)), "2.png": image(2)})
    write_folder(tmp_path / "two", {"0.png": image(0), "1.png": image(1)})
    write_folder(tmp_path / "none", {"readme.txt": b""})
    write_zip(tmp_path / "a.zip", {"0.png": image(0)})
    for name, match in {
        f"folder:{tmp_path / 'nowhere'}": "does not exist",
        "folder:": "write it folder:PATH",
        f"folder:{tmp_path / 'a.zip'}": "a zip is written zip:",
        f"folder:{tmp_path / 'none'}": "holds no images",
        f"folder:{tmp_path / 'two'}": "too few",
        f"folder:{tmp_path / 'mixed'}": "mixed sizes",
    }.items():
        with pytest.raises(GenbenchError, match=match) as caught:
            prepare(name, 8)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("datasets/*"))
