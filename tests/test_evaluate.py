"""`genbench evaluate`, in process: what it compares with what, and what it refuses."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from genbench import cli, evaluate, report
from genbench.catalogue import load_catalogue
from genbench.datasets import DatasetSpec, Split
from genbench.datasets.bundled import load_digits
from genbench.datasets.prepare import resize_images
from genbench.errors import GenbenchError
from genbench.evaluate import Evaluation
from genbench.images import Opened, read_statistics
from genbench.metrics import Measurement, MetricSpec, fid
from genbench.records import ModelRef, RunRecord, RunSpec, Score, Store
from genbench.reference import Statistics, set_of, split_of, statistics_of
from genbench.score import Scorer
from genbench.seeds import stream
from genbench.track import shipped_tracks

CPU = torch.device("cpu")
RNG = np.random.default_rng(7)
DIGITS = load_digits(Path())
TRAIN = DIGITS["train"].images
FEW = np.ascontiguousarray(TRAIN[:120])
OTHERS = np.clip(TRAIN[200:420] + RNG.normal(0, 12, (220, 1, 8, 8)), 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", images=FEW)
    np.savez("others.npz", arr_0=OTHERS.transpose(0, 2, 3, 1))


def scores_of(found: Evaluation) -> dict[str, Score]:
    return {score.name: score for scores in found.scores.values() for score in scores}


def digits(samples="few.npz", reference="digits", **options) -> dict[str, Score]:
    return scores_of(evaluate.evaluate(Path(samples), reference, device="cpu", **{"extractor": "digits-cnn"} | options))


def features(images):
    network = load_catalogue(kinds=("extractor",)).extractor("digits-cnn").spec.load(CPU, None)
    with torch.inference_mode():
        return network(torch.from_numpy(np.ascontiguousarray(images)))[0].numpy()


def fid_by_sqrtm(x, y):
    """FID as pytorch-fid and clean-fid compute it, from all features at once."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(axis=0, dtype=np.float64) - y.mean(axis=0, dtype=np.float64)
    return shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)


def write_pngs(folder, images, **kwargs):
    for i, image in enumerate(images):
        path = Path(folder, f"{i:04}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)).save(path, **kwargs)
    return folder


# References


def test_a_set_of_images_is_compared_with_as_a_whole():
    np.savez("first.npz", TRAIN[:400].transpose(0, 2, 3, 1))
    np.savez("second.npz", OTHERS.transpose(0, 2, 3, 1))
    found = digits("first.npz", "second.npz", metrics=["fid", "prdc", "kid"])
    x, y = features(TRAIN[:400]), features(OTHERS)
    assert found["fid"].value == pytest.approx(fid_by_sqrtm(x, y), rel=1e-4)
    assert (found["fid"].split, found["fid"].n_fake, found["fid"].n_real) == ("all", 400, 220)
    assert (found["precision"].n_fake, found["precision"].n_real) == (220, 220)
    assert not {name for name in found if name.startswith("fid_t")}  # there is no other split
    back = digits("second.npz", "first.npz", metrics=["prdc"])
    assert back["precision"].value != found["precision"].value
    assert digits("second.npz", "second.npz", metrics=["fid"])["fid"].value == pytest.approx(0, abs=1e-9)


def test_the_floor_of_a_set_is_one_half_against_the_other():
    np.savez("set.npz", TRAIN)
    reference = set_of("set", Split(TRAIN, None))
    first, other = reference.halves()
    assert sorted([*first, *other]) == list(range(len(TRAIN)))
    assert (len(first), len(other)) == (748, 749)
    everything = digits("set.npz", "set.npz", metrics=["fid"])["fid"]  # more than half: the whole half
    assert everything.floor == pytest.approx(fid_by_sqrtm(features(TRAIN[first]), features(TRAIN[other])), rel=1e-4)
    assert everything.floor > 100 * abs(everything.value)
    fewer = digits("few.npz", "set.npz", metrics=["fid", "statistical_fidelity"])
    chosen = np.sort(np.random.default_rng(0).permutation(first)[:120])
    mu, S, _ = fid.moments([features(TRAIN[chosen])])
    assert fewer["fid"].floor == pytest.approx(fid.frechet(mu, S, *fid.moments([features(TRAIN[other])])[:2]), rel=1e-5)
    assert fewer["statistical_fidelity"].floor > 0.7
    assert fewer["mean_gap"].floor > 0


def test_every_way_to_name_a_set_gives_the_same_scores():
    write_pngs("deep/a/b", FEW[:60])
    with zipfile.ZipFile("set.zip", "w") as archive:
        for path in sorted(Path("deep").rglob("*.png")):
            archive.write(path, path.name)
    np.save("set.npy", FEW[:60, 0])
    names = ["deep", "folder:deep", "./deep", "set.zip", "zip:set.zip", "set.npy", str(Path("deep").absolute())]
    found = [digits("others.npz", name, metrics=["fid", "kid"]) for name in names]
    assert all(scores == found[0] for scores in found)


def test_a_split_of_a_folder_is_not_all_of_it():
    write_pngs("deep", TRAIN[:200])
    whole, test = (digits("few.npz", name, metrics=["fid"])["fid"] for name in ("folder:deep", "folder:deep:test"))
    assert (whole.split, whole.n_real, test.split, test.n_real) == ("all", 200, "test", 20)
    assert digits("few.npz", "deep:train", metrics=["fid"])["fid"].n_real == 162


def test_protocols_tell_apart_references_sizes_and_files_that_may_be_lossy():
    np.savez("set.npz", DIGITS["test"].images)  # the same pixels as the dataset's split
    np.savez("statistics.npz", mu=(y := features(DIGITS["test"].images)).mean(axis=0), sigma=np.cov(y, rowvar=False))
    every = [
        digits("few.npz", "digits", metrics=["fid"]), digits("few.npz", "digits:train", metrics=["fid"]),
        digits("few.npz", "set.npz", metrics=["fid"]), digits("few.npz", "statistics.npz", metrics=["fid"]),
        digits("few.npz", "digits", metrics=["fid"], allow_lossy=True), digits("few.npz", "digits", metrics=["fid"], resize=8),
    ]  # fmt: skip
    assert len({scores["fid"].protocol for scores in every}) == len(every)
    assert {round(every[i]["fid"].value, 6) for i in (0, 2, 4, 5)} == {round(every[0]["fid"].value, 6)}
    assert every[3]["fid"].value == pytest.approx(every[0]["fid"].value, rel=1e-4)


# Published statistics


def test_statistics_give_fid_and_leave_out_what_needs_images():
    y = features(OTHERS)
    np.savez("float32.npz", mu=y.mean(axis=0), sigma=np.cov(y, rowvar=False).astype(np.float32))
    found = evaluate.evaluate(Path("few.npz"), "float32.npz", extractor="digits-cnn", device="cpu")
    scores = scores_of(found)
    assert scores["fid"].value == pytest.approx(fid_by_sqrtm(features(FEW), y), rel=1e-3)
    assert (scores["fid"].split, scores["fid"].n_real, scores["fid"].floor) == ("all", None, None)
    assert scores["is"].value > 1
    assert set(found.scores) == {"fid", "is"}
    assert {"kid", "prdc", "statistical_fidelity", "memorisation"} <= set(found.left_out)
    assert found.left_out["kid"] == ["real"]


def test_of_a_batch_with_images_beside_its_statistics_the_images_count():
    np.savez("adm.npz", arr_0=OTHERS.transpose(0, 2, 3, 1), mu=np.zeros(128), sigma=np.eye(128), mu_s=np.zeros(9), sigma_s=np.eye(9))
    assert digits("few.npz", "adm.npz", metrics=["fid"]) == digits("few.npz", "others.npz", metrics=["fid"])


@pytest.mark.parametrize(
    ("mu", "sigma", "says"),
    [
        (np.zeros(3), np.eye(4), r"mu is \(3,\) and sigma \(4, 4\)"),
        (np.zeros((1, 3)), np.eye(3), "mu is"),
        (np.zeros(0), np.zeros((0, 0)), "mu is"),
        (np.zeros(3, int), np.eye(3), "not floating point"),
        (np.array([0, np.nan, 0]), np.eye(3), "not all values are finite"),
        (np.zeros(2), np.array([[1, 0.5], [0.4, 1]]), "not symmetric"),
        (np.zeros(2), np.array([[1, 2.0], [2.0, 1]]), "negative eigenvalues"),
        (np.zeros(2, object), np.eye(2), "pickled"),
    ],
)
def test_statistics_that_are_none_are_refused(mu, sigma, says):
    np.savez("bad.npz", mu=mu, sigma=sigma)
    with pytest.raises(GenbenchError, match=says):
        read_statistics(Path("bad.npz"))


def test_a_metric_that_asks_statistics_for_images_is_told_so():
    for attribute in ("images", "features", "logits", "labels"):
        metric = MetricSpec("odd", lambda e, a=attribute: [Measurement("odd", float(len(getattr(e.real, a))), "lower")], "", "", needs=())
        spec = load_catalogue(kinds=("extractor",)).extractor("digits-cnn").spec
        scorer = Scorer(statistics_of("s", Statistics(np.zeros(128), np.eye(128))), spec, [metric], device=CPU)
        with pytest.raises(GenbenchError, match=f"published statistics have no {attribute}"):
            scorer.score(FEW, 0)


# Sizes and channels


def test_images_of_any_size_are_reduced_on_request_as_datasets_are():
    big = [RNG.integers(0, 256, (1, *size), dtype=np.uint8) for size in [(16, 16), (24, 16), (8, 8), (17, 31)] * 5]
    write_pngs("big", big)
    found = evaluate.evaluate(Path("big"), "digits", device="cpu", resize=8, metrics=["statistical_fidelity"])
    by_hand = np.concatenate([resize_images(image[None], 8, "area") for image in big])
    np.savez("small.npz", images=by_hand)
    plain = digits("small.npz", "digits", metrics=["statistical_fidelity"])
    assert {name: s.value for name, s in scores_of(found).items()} == {name: s.value for name, s in plain.items()}
    assert found.reference.resize == "samples area-reduced to 8"
    np.savez("wide.npz", images=np.repeat(np.repeat(OTHERS, 2, axis=2), 2, axis=3))
    both = evaluate.evaluate(Path("big"), "wide.npz", extractor="digits-cnn", device="cpu", resize=8, metrics=["fid"])
    assert both.reference.resize == "all area-reduced to 8"
    assert "what 20 images of one half of the reference score against its other half" in " ".join(report.sheet(both, 80).plain.split())
    np.testing.assert_array_equal(both.reference.real.images, OTHERS)
    with pytest.raises(GenbenchError, match=r"mixed sizes: 0001.png is 24x16 where 16x16"):
        digits("big", "wide.npz")
    with pytest.raises(GenbenchError, match="8x8: images are reduced to 9x9, never enlarged"):
        digits("big", "wide.npz", resize=9)


def test_samples_at_a_datasets_native_size_are_padded_as_it_is():
    def padded(size, pad=True, own=True):
        images = RNG.integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)
        spec = DatasetSpec(
            "mnist", lambda root: {"train": Split(images, None), "test": Split(images[:20], None)}, 1, 28, holdout=10, resize="pad"
        )
        chosen = load_catalogue(kinds=("extractor",)).extractor("mnist-cnn" if own else "pixels-pca").spec
        samples = images[:, :, :size, :size]
        return images, evaluate._with_dataset(
            spec, "test", lambda spec: chosen, lambda channels: Opened(samples, None), lambda *step: None, pad=pad
        )

    images, pair = padded(28)
    assert pair.images.shape == (40, 1, 32, 32)
    np.testing.assert_array_equal(pair.images[:, :, 2:30, 2:30], images)
    assert pair.images.sum() == images.sum()
    assert pair.reference.shape == (1, 32, 32)
    assert pair.reference.resize == "zero-padded 28 → 32, samples too"
    # what a run drew, and what another extractor sees, stays as it is
    for options in ({"pad": False}, {"own": False}):
        _, pair = padded(28, **options)
        assert pair.images.shape == (40, 1, 28, 28)
        assert pair.reference.resize == ""
    with pytest.raises(GenbenchError, match="cannot be had at 20x20"):
        padded(20)


def test_grey_and_colour():
    np.savez("colour.npz", images=np.repeat(OTHERS, 3, axis=1))
    equal = digits("colour.npz", "digits", metrics=["fid"])  # three equal channels are one
    assert equal == digits("others.npz", "digits", metrics=["fid"])
    np.savez("red.npz", images=np.concatenate([OTHERS, OTHERS, OTHERS // 2], axis=1))
    with pytest.raises(GenbenchError, match="in colour where 1 grey channel is expected"):
        digits("red.npz", "digits")
    grey = digits("others.npz", "colour.npz", metrics=["fid"], extractor="pixels-pca")["fid"]  # grey becomes three equal channels
    assert grey.value == pytest.approx(0, abs=1e-6)


# The extractor that is chosen


def test_the_extractor_is_the_one_that_names_the_references_classes():
    def chosen(spec, **changes):
        catalogue = load_catalogue(kinds=("extractor",))
        entry = catalogue.extractors["pixels-pca"]
        own = replace(entry, spec=replace(entry.spec, num_classes=3, **changes))
        return evaluate._extractor("", replace(catalogue, extractors={"fish": own, **catalogue.extractors}), None, spec)

    fish = DatasetSpec("zip:fish.zip", dict, 3, 8, class_names=("cod", "eel", "tench"))
    assert chosen(fish, class_names=("cod", "eel", "tench")).class_names
    assert chosen(DatasetSpec("fish", dict, 3, 8), labels_of="fish").labels_of == "fish"
    assert evaluate._extractor("", load_catalogue(kinds=("extractor",)), None, DatasetSpec("digits", dict, 1, 8)).name == "digits-cnn"
    cifar = load_catalogue(kinds=("dataset",)).dataset("cifar10").spec
    assert evaluate._extractor("", load_catalogue(kinds=("extractor",)), None, replace(cifar, name="zip:mine.zip")).name == "cifar10-cnn"
    for others in (("eel", "cod", "tench"), ("cod", "eel"), ()):
        with pytest.raises(GenbenchError, match=r"inception-v3-compat.*another extractor with -x"):
            chosen(replace(fish, class_names=others), class_names=("cod", "eel", "tench"))


@pytest.fixture(autouse=True)
def _no_weights(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GENBENCH_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch")))


def test_labels_and_class_names_of_a_set_are_read():
    write_pngs("set", TRAIN[:30])
    table = {"labels": [[f"{i:04}.png", i % 3] for i in range(30)], "classes": ["cod", "eel", "tench"]}
    Path("set/dataset.json").write_text(json.dumps(table))
    found = evaluate.evaluate(Path("few.npz"), "set", extractor="digits-cnn", device="cpu", metrics=["fid"])
    assert found.reference.spec.class_names == ("cod", "eel", "tench")
    assert found.reference.real.labels.tolist() == [i % 3 for i in range(30)]


# Run folders


def write_run(folder="run", **changes):
    track = next(track for track in shipped_tracks() if track.name == "digits-20s")
    model = ModelRef(name="m", family="gan", source="s", distribution="d", version="1", digest="x")
    spec = RunSpec(model=model, track=track, track_hash=track.hash, seed=3, device="cpu-2")
    path = Store(Path(folder)).commit(RunRecord(spec=spec, status="done", started="2026-01-01T00:00:00+00:00", **changes)).parent
    np.savez_compressed(path / "samples.npz", images=OTHERS)
    return path


def test_a_run_folder_brings_its_reference_extractor_and_seed():
    path = write_run()
    found = evaluate.evaluate(path, device="cpu", metrics=["fid", "kid"])
    assert (found.extractor.name, found.reference.name, found.reference.of) == ("digits-cnn", "digits", "test")
    assert scores_of(found) == digits("others.npz", "digits", metrics=["fid", "kid"], seed=stream(3, "metrics"))
    assert scores_of(found) != digits("others.npz", "digits", metrics=["fid", "kid"])
    assert digits("few.npz", str(path), metrics=["fid"])["fid"].value == digits("few.npz", "others.npz", metrics=["fid"])["fid"].value


def test_a_record_stands_for_its_runs_folder():
    path = write_run()
    by_folder, by_record = (evaluate.evaluate(named, device="cpu", metrics=["fid"]) for named in (path, path / "record.json"))
    assert scores_of(by_record) == scores_of(by_folder)
    references = [digits("few.npz", str(named), metrics=["fid"])["fid"].value for named in (path, path / "record.json")]
    assert references[0] == references[1]
    with pytest.raises(GenbenchError, match=r"record nowhere.record\.json: No such file"):
        evaluate.evaluate(Path("nowhere/record.json"), device="cpu")


def test_a_folder_of_runs_is_no_folder_of_samples():
    path = write_run("results")
    write_pngs(path, FEW[:3])
    for folder in (Path("results"), path.parents[1]):
        with pytest.raises(GenbenchError, match=rf"^{folder} holds runs; name the folder of one, like {path}$"):
            evaluate.evaluate(folder, "digits", device="cpu")
    write_pngs("set/a", FEW)
    Path("set/a/record.json").write_text("{}")  # somebody else's
    assert digits("set", metrics=["fid"]) == digits("few.npz", metrics=["fid"])


def test_samples_that_are_not_the_runs_are_refused():
    path = write_run(digests={"samples": "0" * 64})
    with pytest.raises(GenbenchError, match="not what was drawn"):
        evaluate.evaluate(path, device="cpu")
    (path / "samples.npz").unlink()
    with pytest.raises(GenbenchError, match=r"holds a record \(done\) but no samples.npz"):
        evaluate.evaluate(path, device="cpu")


def test_a_conditional_run_brings_the_images_made_on_request():
    path = write_run()
    np.savez(path / "samples.npz", images=OTHERS, labels=np.zeros(220, int), asked=FEW, asked_labels=DIGITS["train"].labels[:120])
    assert "conditional" not in evaluate.evaluate(path, device="cpu", metrics=["conditional"]).left_out
    assert "conditional" in evaluate.evaluate(Path("few.npz"), "digits", device="cpu", metrics=["conditional"]).left_out


# Refusals, as a user meets them


def genbench(*arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["genbench", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def encode(image, kind="PNG", **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def bomb():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", b"\0")
        + chunk(b"IEND", b"")
    )


GREY = Image.fromarray(FEW[0, 0])
COLOUR = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
FILES = {
    "lossy": (encode(COLOUR, "JPEG"), "lossy JPEG"),
    "truncated": (encode(GREY)[:60], "cannot be decoded"),
    "palette": (encode(COLOUR.quantize(8)), "palette"),
    "16-bit": (encode(Image.fromarray(FEW[0, 0].astype(np.uint16) * 255)), "more than 8 bits"),
    "CMYK": (encode(COLOUR.convert("CMYK"), "JPEG"), "CMYK"),
    "animated": (encode(GREY, save_all=True, append_images=[GREY.rotate(90), GREY.rotate(180)]), "animated"),
    "bomb": (bomb(), "decompression bomb"),
    "colour": (encode(COLOUR), "in colour where 1 grey channel"),
}
ARRAYS = {
    "floats": (FEW / np.float32(255), "float32; images are expected as uint8, 0 to 255; x in [-1, 1] becomes floor"),
    "not a number": (np.full((5, 1, 8, 8), np.nan), "float64; images are expected as uint8"),
    "pickled": (np.array([{"code": 1}], dtype=object), "pickled objects"),
    "five channels": (np.zeros((2, 8, 8, 5), np.uint8), "neither 1 nor 3 channels"),
    "not square": (np.zeros((5, 1, 8, 6), np.uint8), "8x6, not square; --resize"),
    "other size": (np.zeros((5, 1, 9, 9), np.uint8), "cannot be had at 9x9"),
}


@pytest.mark.parametrize("what", [*FILES, *ARRAYS, "empty", "outside"])
def test_samples_that_would_mislead_are_refused_in_one_line(what, monkeypatch, capsys):
    if what in FILES:
        content, says = FILES[what]
        Path("bad").mkdir()
        Path("bad/0.png").write_bytes(content)
    elif what in ARRAYS:
        array, says = ARRAYS[what]
        np.savez("bad", array)
    elif what == "empty":
        Path("bad").mkdir()
        says = "holds no images"
    else:
        with zipfile.ZipFile("bad.zip", "w") as archive:
            archive.writestr("../0.png", encode(GREY))
        says = "outside the archive"
    (samples,) = Path().glob("bad*")
    options = ["--allow-lossy"] if what == "CMYK" else []
    code, out, err = genbench("evaluate", samples, "--reference", "digits", *options, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (2, ""), err
    assert says in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--reference is missing"),
        (["--reference", "digist"], "did you mean 'digits'?"),
        (["--reference", "digits:tset"], "did you mean 'test'?"),
        (["--reference", "folder:nowhere"], "no images at nowhere"),
        (["--reference", "zip:nowhere.zip:test"], "nowhere.zip does not exist"),
        (["--reference", "./nowhere"], "no images at nowhere"),
        (["--reference", "digits", "-x", "digits-cmm"], "did you mean 'digits-cnn'?"),
        (["--reference", "digits", "-m", "fjd"], "did you mean 'fid'?"),
        (["--reference", "digits", "--device", "tpu9"], "unknown device 'tpu9'"),
        (["--reference", "digits", "--device", "meta"], "unknown device 'meta'"),
        (["--reference", "digits", "--device", "cuda:99"], "'cuda:99' is not here"),
        (["--reference", "digits", "-x", "mnist-cnn"], "sees 1x32x32 uint8 images, not 1x8x8"),
        (["--reference", "digits", "--resize", "16"], "reduced to 16x16, never enlarged"),
        (["--reference", "statistics.npz"], "the network they are of; name it with -x. Of 128 dimensions: digits-cnn"),
        (["--reference", "statistics.npz", "-x", "pixels-pca"], "made from real images"),
        (["--reference", "narrow.npz", "-x", "digits-cnn"], "statistics in 2 dimensions; extractor digits-cnn has 128"),
        (["--reference", "three.npz", "-x", "digits-cnn"], "holds 3 images; a reference needs at least 4"),
        (["--reference", "large.npz", "-x", "digits-cnn"], "samples are 8x8, large.npz is 9x9; --resize SIZE"),
        (["--reference", "few.npz"], "inception-v3-compat: its weights are not here"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line(arguments, says, monkeypatch, capsys):
    np.savez("statistics.npz", mu=np.zeros(128), sigma=np.eye(128))
    np.savez("narrow.npz", mu=np.zeros(2), sigma=np.eye(2))
    np.savez("three.npz", images=FEW[:3])
    np.savez("large.npz", images=np.zeros((9, 1, 9, 9), np.uint8))
    code, out, err = genbench("evaluate", "few.npz", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (2, ""), err
    assert says in err
    assert len([line for line in err.strip().splitlines() if line.startswith("genbench:")]) == 1
    assert "Traceback" not in err


def test_lossy_samples_are_scored_where_that_is_wanted(monkeypatch, capsys):
    write_pngs("png", OTHERS[:40])
    Path("jpeg").mkdir()
    for path in Path("png").iterdir():
        with Image.open(path) as image:
            image.save(f"jpeg/{path.stem}.jpg", quality=60)
    code, out, _ = genbench(
        "evaluate", "jpeg", "--reference", "digits", "--allow-lossy", "-m", "fid", "--json", monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 0
    assert json.loads(out)[0]["value"] != digits("png", "digits", metrics=["fid"])["fid"].value


# What is shown


def test_a_metric_with_too_few_images_says_so_in_its_row(monkeypatch, capsys):
    np.savez("five.npz", images=FEW[:5])
    code, out, err = genbench("evaluate", "five.npz", "--reference", "digits", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    lines = out.splitlines()
    row = next(i for i, line in enumerate(lines) if line.split()[:1] == ["precision"])
    assert "needs at least 6 images" in lines[row] + lines[row + 1]
    assert "left out: " in out
    assert "conditional (needs images made for asked labels)" in " ".join(out.split())
    assert "features of samples: 5" in err  # plain lines where there is no terminal


def test_json_is_all_that_is_printed(monkeypatch, capsys):
    code, out, err = genbench(
        "evaluate", "few.npz", "--reference", "digits", "-m", "kid", "-m", "fid", "--json", monkeypatch=monkeypatch, capsys=capsys
    )
    assert (code, err) == (0, "")
    assert [score["name"] for score in json.loads(out)] == ["kid", "fid", "fid_train", "fid_infinity"]


@pytest.mark.parametrize("width", [80, 100])
def test_the_sheet_fits_the_terminal_and_explains_itself(width):
    found = evaluate.evaluate(Path("few.npz"), "digits", device="cpu", resize=8)
    lines = report.sheet(found, width).plain.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0] == "120 images, 1x8x8, against the 300 test images of digits"
    assert "digits-cnn" in lines[1]
    assert "what 120 real images score that are not the reference's own" in " ".join(lines)
    assert any(line.startswith("size: samples area-reduced to 8") for line in lines)
    fid_row = next(line for line in lines if line.split()[:1] == ["fid"])
    scores = scores_of(found)
    assert f"{scores['fid'].value:.4g}" in fid_row
    assert f"{scores['fid'].floor:.4g}" in fid_row
    assert f"{scores['fid'].interval[0]:.3g} … {scores['fid'].interval[1]:.3g}" in fid_row
    assert "120/300" in fid_row
    assert "↓" in fid_row
    for score in scores.values():
        assert any(line.split()[:1] == [score.name] for line in lines)
        assert " ".join(score.note.split()) in " ".join(" ".join(lines).split())


def test_the_sheet_fits_80_columns_with_long_numbers_and_names_nothing_it_cannot_print():
    long = Score(
        name="statistical_fidelity", value=-0.00012345, better="lower", unit="dB", interval=(-0.0012345, -0.0012345), floor=-0.00012345,
        extractor="digits-cnn", split="test", n_real=50_000, n_fake=50_000, note="a note \x1b[31m" + "that is long " * 9,
    )  # fmt: skip
    found = evaluate.evaluate(Path("few.npz"), "digits", device="cpu", metrics=["fid"])
    shown = report.sheet(found._replace(scores={"fid": [long]}), 80).plain
    assert max(map(len, shown.splitlines())) <= 80
    assert "↓ -0.0001234 -0.00123 … -0.00123 -0.0001234 50000/50000\n" in shown
    assert "dB; a note" in shown
    assert "\x1b" not in shown


def test_progress_has_counts(monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(Path("cache").absolute()))  # nothing is kept from before
    told = []
    evaluate.evaluate(Path("few.npz"), "digits:train", device="cpu", metrics=["fid", "kid"], show=lambda *step: told.append(step))
    assert ("features of samples", 120, 120) in told
    assert ("features of the reference", 1197, 1197) in told
    assert ("features of the reference", 250, 1197) in told
    assert [step for step in told if step[0] == "metrics"] == [("metrics", i, 2) for i in range(3)]
    write_pngs("some", FEW)
    evaluate.evaluate(Path("some"), "digits", device="cpu", metrics=["is"], show=lambda *step: told.append(step))
    assert ("reading samples", 120, 120) in told


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere():
    from rich.console import Console

    terminal, file = io.StringIO(), io.StringIO()
    with report.steps(Console(file=terminal, force_terminal=True, width=100)) as show:
        show("reading samples", 30, 120)
    assert "reading samples" in terminal.getvalue()
    assert "30/120" in terminal.getvalue()
    with report.steps(Console(file=file, width=100)) as show:
        for done in (30, 60, 120):
            show("reading samples", done, 120)
    assert file.getvalue() == "reading samples: 120\n"


def test_splits_of_a_dataset_have_the_floor_of_another_split():
    from tests.toys import make_data

    data = make_data()
    assert (split_of(data, "test").second, split_of(data, "train").second) == ("train", "test")
    assert split_of(data).shape == (3, 8, 8)
    assert statistics_of("s", Statistics(np.zeros(2), np.eye(2))).shape is None
