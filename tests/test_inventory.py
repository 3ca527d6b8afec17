from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from genbench import inventory as inventory_module
from genbench.descriptions import HparamDescription, ModelDescription, check_hparams
from genbench.errors import GenbenchError
from genbench.inventory import describe_file, inventory

MODEL = """
import genbench
from torch import nn

class Model(nn.Module):
    def __init__(self, image, z_dim=4):
        super().__init__()
    def configure_optimizers(self):
        return {}
    def training_step(self, batches, optimizers):
        next(batches)
        return {}
    def sample(self, n):
        raise NotImplementedError

class NoSample(nn.Module):
    configure_optimizers = training_step = Model.training_step

@genbench.hookimpl
def genbench_models():
    return [genbench.ModelSpec("good", Model, family="gan"), genbench.ModelSpec("no-sample", NoSample, family="gan")]
"""


def metrics(*names):
    """The code of a plugin that registers metrics of these names."""
    return f"""
import genbench

@genbench.hookimpl
def genbench_metrics():
    return [genbench.MetricSpec(name, lambda evidence: [], "a paper", "a measure") for name in {names!r}]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GENBENCH_CACHE", str(folder))
    return folder


def reasons(found):
    return {item.distribution: item.reason for item in found.broken}


def children(monkeypatch):
    """A list that grows by one with every child started."""
    started, ask = [], inventory_module._ask
    monkeypatch.setattr(inventory_module, "_ask", lambda arguments: started.append(arguments) or ask(arguments))
    return started


def test_plugins_are_described_in_another_process(site):
    found = inventory(points=[site.install("someones-metrics", metrics("sharpness"), version="2.3")])
    metric = found.metric("sharpness")
    assert (metric.distribution, metric.version, metric.source, metric.paper) == ("someones-metrics", "2.3", "someones_metrics", "a paper")
    assert len(metric.digest) == 64
    assert "someones_metrics" not in sys.modules
    assert found.dataset("digits").distribution == "genbench"
    assert found.track("digits-20s").size == 8


def test_models_come_with_their_hparams_and_broken_ones_with_reasons(site):
    found = inventory(points=[site.install("models", MODEL)])
    assert [model.name for model in found.models] == ["good"]
    assert found.model("good").hparams == {"z_dim": HparamDescription(default=4, type="int")}
    assert found.model("good").family == "gan"
    with pytest.raises(GenbenchError, match=r"model 'no-sample' of models is broken: .*no method sample"):
        found.model("no-sample")


def test_unknown_names_get_a_suggestion(site):
    found = inventory(points=[site.install("one", metrics("sharpness"))])
    with pytest.raises(GenbenchError, match=r"^unknown metric 'sharpnes'; did you mean 'sharpness'\? installed: .*sharpness"):
        found.metric("sharpnes")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(0)", "importing it ended the process with exit status 0"),
        ("import os; os.abort()", "importing it was killed by SIGABRT"),
        ("raise KeyboardInterrupt", "importing it was killed by SIGINT"),
        ("import os, genbench\n@genbench.hookimpl\ndef genbench_metrics(): os._exit(7)",
         "importing it ended the process with exit status 7"),
    ],
)  # fmt: skip
def test_a_plugin_that_ends_the_process_is_found_out_and_stops_no_other(site, monkeypatch, code, reason):
    points = [site.install("fatal", code), site.install("working", metrics("sharpness"))]
    started = children(monkeypatch)
    for _ in range(2):
        found = inventory(points=points)
        assert reasons(found) == {"fatal": reason}
        assert found.metric("sharpness").distribution == "working"
    assert len(started) == 3  # both at once, each alone; the second time from the cache


def test_a_plugin_that_hangs_is_killed_with_what_it_started_and_tried_again_next_time(site, monkeypatch, tmp_path):
    code = f"""
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "100"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(100)
"""
    monkeypatch.setattr(inventory_module, "DEADLINE", 6.0)
    started = children(monkeypatch)
    points = [site.install("hangs", code)]
    before = time.monotonic()
    for _ in range(2):
        found = inventory(points=points)
        assert reasons(found) == {"hangs": "importing it took longer than 6 s"}
    assert time.monotonic() - before < 60
    assert len(started) == 2
    pid = int((tmp_path / "pid").read_text())
    assert _gone([pid])


def _gone(pids):
    """Whether all of these processes have ended within half a minute."""
    deadline = time.monotonic() + 30
    while (alive := any(_alive(pid) for pid in pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_plugin_prints_and_leaves_behind_is_no_harm(site):
    code = "import atexit, os, sys\nprint('{}' * 100_000)\nos.write(2, b'x' * 200_000)\natexit.register(os._exit, 9)\n"
    found = inventory(points=[site.install("loud", code + metrics("sharpness"))])
    assert found.metric("sharpness").distribution == "loud"
    assert reasons(found) == {}


def test_the_same_name_twice_is_broken_even_when_the_plugins_were_described_apart(site):
    points = [
        site.install("fatal", "import os; os._exit(1)"),
        site.install("one", metrics("sharpness", "contrast")),
        site.install("two", metrics("sharpness")),
        site.install("three", metrics("fid")),
    ]
    found = inventory(points=points)
    with pytest.raises(GenbenchError, match="metric 'sharpness' is registered by both one and two; uninstall one"):
        found.metric("sharpness")
    with pytest.raises(GenbenchError, match="metric 'fid' is registered by both genbench and three; uninstall one"):
        found.metric("fid")
    assert found.metric("contrast").distribution == "one"


def test_a_changed_plugin_is_described_anew(site, monkeypatch):
    points = [site.install("mine", metrics("sharpness"))]
    started = children(monkeypatch)
    assert inventory(points=points) == inventory(points=points)
    assert len(started) == 1
    (site.folder / "mine.py").write_text(metrics("contrast"))
    assert inventory(points=points).metric("contrast").distribution == "mine"
    assert len(started) == 2
    inventory(points=points, refresh=True)
    assert len(started) == 3


def test_a_plugin_broken_for_want_of_a_library_works_once_that_is_installed(site):
    points = [site.install("mine", "import late\n" + metrics("sharpness"))]
    assert "No module named 'late'" in reasons(inventory(points=points))["mine"]
    site.install("late", "")
    assert inventory(points=points).metric("sharpness").distribution == "mine"


@pytest.mark.parametrize("content", [b"", b'{"models": 3}', b"\xff\xfe", b'{"unknown": []}'])
def test_a_damaged_cache_is_made_again(site, cache, content):
    points = [site.install("mine", metrics("sharpness"))]
    whole = inventory(points=points)
    (path,) = (cache / "inventory").glob("*.json")
    path.write_bytes(content)
    assert inventory(points=points) == whole


def test_no_cache_is_no_harm(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert inventory(points=[site.install("mine", metrics("sharpness"))]).metric("sharpness").distribution == "mine"


def test_the_second_listing_imports_no_torch(site, cache):
    site.install("models", MODEL)
    code = (
        "import sys, time; from genbench.inventory import inventory, plugin_points\n"
        "points = [point for point in plugin_points() if point.value == 'models']\n"
        "assert inventory(points=points).model('good').hparams['z_dim'].default == 4\n"
        "assert 'torch' not in sys.modules and 'models' not in sys.modules\n"
        "print(bool({'scipy', 'numpy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site.folder), "GENBENCH_CACHE": str(cache)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_tracks_are_listed_without_a_child_where_no_plugin_has_any(site, monkeypatch):
    metric = site.install("one", metrics("sharpness"))
    track = site.install(
        "two",
        "import genbench\n@genbench.hookimpl\ndef genbench_tracks():\n"
        "    return [genbench.Track(name='mine', dataset='digits', size=8, budget='5s', num_samples=300, extractor='digits-cnn')]\n",
    )
    started = children(monkeypatch)
    assert inventory(("track",), points=[metric]).track("mnist-3m").dataset == "mnist"
    assert started == []
    found = inventory(("track",), points=[metric, track])
    assert len(started) == 1
    assert found.track("mine").budget == "5s"
    described = found.tracks[-1]
    assert (described.distribution, described.hash, type(found.track("mine")).__name__) == ("two", found.track("mine").hash, "Track")


def test_a_model_in_a_file_is_described_in_another_process(tmp_path, monkeypatch):
    path = tmp_path / "mygan.py"
    path.write_text("print('hello')\n" + MODEL)
    monkeypatch.chdir(tmp_path)
    model = describe_file("./mygan.py:Model")
    assert (model.name, model.family, model.distribution) == ("Model", "other", "unpackaged")
    assert (model.source, model.label) == (f"{path}:Model", "mygan.py:Model")
    with pytest.raises(GenbenchError, match=r"^unknown class 'Modle'; did you mean 'Model'\? in mygan.py: Model"):
        describe_file("mygan.py:Modle")
    with pytest.raises(GenbenchError, match=r"your.py: no such file; there: mygan.py$"):
        describe_file("your.py:Model")
    path.write_text("import os; os._exit(3)")
    with pytest.raises(GenbenchError, match=r"^model file mygan.py cannot be imported: it ended the process with exit status 3$"):
        describe_file("mygan.py:Model")
    path.write_text(MODEL.replace("z_dim=4", "z_dim=float('inf')"))
    with pytest.raises(GenbenchError, match=r"inf is not finite"):
        describe_file("mygan.py:Model")


GAN = ModelDescription(
    name="dcgan", family="gan", distribution="d", version="1", digest="", source="s",
    hparams={
        "z_dim": HparamDescription(default=100, type="int"),
        "lr": HparamDescription(default=2e-4, type="float"),
        "spectral": HparamDescription(default=False, type="bool"),
        "loss": HparamDescription(default="minimax", type="str", choices=("minimax", "hinge")),
        "depth": HparamDescription(default=None, type="int"),
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"z_dim": "64"}, 64), ({"z_dim": 64}, 64), ({"lr": "1e-3"}, 1e-3), ({"lr": 1}, 1.0), ({"spectral": "true"}, True),
        ({"spectral": "0"}, False), ({"loss": "hinge"}, "hinge"), ({"depth": "none"}, None), ({"depth": "3"}, 3),
    ],
)  # fmt: skip
def test_hparams_are_read_by_type(given, value):
    ((name, read),) = check_hparams(GAN, given).items()
    assert (name, read, type(read)) == (*given, value, type(value))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"zdim": "64"}, "model 'dcgan': unknown hparam 'zdim'; did you mean 'z_dim'? hparams: depth, loss, lr, spectral, z_dim"),
        ({"z_dim": "64.0"}, "model 'dcgan': hparam z_dim=64.0 is not a whole number; default: 100"),
        ({"z_dim": True}, "model 'dcgan': hparam z_dim=True is not a whole number; default: 100"),
        ({"z_dim": 1.5}, "model 'dcgan': hparam z_dim=1.5 is not a whole number; default: 100"),
        ({"z_dim": "none"}, "model 'dcgan': hparam z_dim=none is not a whole number; default: 100"),
        ({"lr": "fast"}, "model 'dcgan': hparam lr=fast is not a number; default: 0.0002"),
        ({"lr": "nan"}, "model 'dcgan': hparam lr=nan is not a finite number; default: 0.0002"),
        ({"lr": "1e999"}, "model 'dcgan': hparam lr=1e999 is not a finite number; default: 0.0002"),
        ({"lr": [1]}, "model 'dcgan': hparam lr=[1] is not a number; default: 0.0002"),
        ({"spectral": "2"}, "model 'dcgan': hparam spectral=2 is not true or false; default: False"),
        ({"loss": "wasserstein"}, "model 'dcgan': hparam loss=wasserstein is not one of minimax, hinge; default: 'minimax'"),
        ({"loss": 3}, "model 'dcgan': hparam loss=3 is not text; default: 'minimax'"),
    ],
)
def test_wrong_hparams_are_refused(given, message):
    with pytest.raises(GenbenchError) as caught:
        check_hparams(GAN, given)
    assert str(caught.value) == message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ending_the_asker_ends_the_child(site, number):
    site.install("slow", "import time; time.sleep(60)")
    code = "from genbench.inventory import inventory, plugin_points as p\ninventory(points=[x for x in p() if x.value == 'slow'])"
    asking = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(site.folder)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (started := _children(asking.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started
    asking.send_signal(number)
    assert asking.wait(30) == -number
    assert _gone(started)


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_our_own_plugins_are_found_like_anybodys():
    found = inventory()
    assert {found.model(name).distribution for name in ("gan", "dcgan", "wgan-gp")} == {"genbench-gans"}
    assert {found.model(name).distribution for name in ("vae", "conv-vae", "beta-vae")} == {"genbench-vaes"}
    assert {found.model(name).family for name in ("noise", "pca-gaussian", "real-holdout")} == {"control"}
    assert found.broken == ()
    with pytest.raises(GenbenchError, match=r"^unknown model 'dcgna'; did you mean 'dcgan'\? installed: "):
        found.model("dcgna")
