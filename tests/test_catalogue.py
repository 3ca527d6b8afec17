from __future__ import annotations

import hashlib
import importlib.util
import py_compile
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from genbench import catalogue as catalogue_module
from genbench.catalogue import load_catalogue, load_entry, plugin_manager
from genbench.errors import GenbenchError
from genbench.modelfile import is_file, load_model_file
from genbench.origin import KINDS, file_digest, model_digest, source_digest

METRICS = """
import genbench
from genbench.metrics import Measurement

def compute(evidence):
    return [Measurement("{name}", 1.0, "lower")]

@genbench.hookimpl
def genbench_metrics():
    return [genbench.MetricSpec(name, compute, "a paper", "a measure") for name in {names!r}]
"""

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
    def __init__(self, image):
        super().__init__()
    configure_optimizers = training_step = Model.training_step

class NoDefault(Model):
    def __init__(self, image, z_dim):
        super().__init__(image)

class NoImage(Model):
    def __init__(self, z_dim=4):
        super().__init__(None)

@genbench.hookimpl
def genbench_models():
    return [
        genbench.ModelSpec("no-image", NoImage, family="gan"),
        genbench.ModelSpec("good", Model, family="gan"),
        genbench.ModelSpec("no-sample", NoSample, family="gan"),
        genbench.ModelSpec("no-default", NoDefault, family="gan"),
        genbench.ModelSpec("odd-family", Model, family="autoregressive"),
        genbench.ModelSpec("odd-preset", Model, family="gan", presets={"mnist-60s": {"zdim": 3}}),
        genbench.ModelSpec("not-a-module", dict, family="gan"),
        genbench.ModelSpec("not a name", Model, family="gan"),
        "dcgan",
    ]
"""


def metrics(*names):
    return METRICS.format(name=names[0], names=list(names))


def reasons(found):
    return {item.distribution: item.reason for item in found.broken}


def load(*points):
    return load_catalogue(points, builtin=False)


def test_an_entry_says_what_is_registered_and_whose_it_is(site):
    code = metrics("sharpness")
    found = load(site.install("someones-metrics", code, version="2.3"))
    entry = found.metric("sharpness")
    assert (entry.name, entry.distribution, entry.version, entry.source) == ("sharpness", "someones-metrics", "2.3", "someones_metrics")
    assert entry.spec.paper == "a paper"
    assert entry.digest == hashlib.sha256(f"someones_metrics.py\0{len(code)}\0{code}".encode()).hexdigest()
    assert found.broken == ()


def test_the_built_ins_come_through_the_same_hooks():
    found = load_catalogue(())
    assert {"digits", "mnist", "cifar10"} <= set(found.datasets)
    assert {"fid", "kid", "is", "prdc", "statistical_fidelity"} <= set(found.metrics)
    assert "inception-v3-compat" in found.extractors
    assert found.track("digits-20s").spec.dataset == "digits"
    assert found.dataset("digits").distribution == "genbench"
    assert found.models == {}
    assert found.broken == ()


def test_built_in_tracks_need_no_torch():
    code = "import sys; from genbench.catalogue import load_catalogue; load_catalogue((), kinds=('track',)).track('mnist-3m')"
    subprocess.run([sys.executable, "-c", f"{code}; assert not {{'torch', 'scipy'}} & set(sys.modules)"], check=True)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library' (site/broken.py:1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (site/broken.py:1)"),
        ("def f(:", "SyntaxError: invalid syntax (broken.py, line 1)"),
        ("class Odd(BaseException):\n    def __str__(self):\n        raise ValueError\nraise Odd", "Odd (site/broken.py:4)"),
        ("x = 1", "it implements no hook; mark functions such as genbench_models with @genbench.hookimpl"),
        ("import genbench\n@genbench.hookimpl\ndef genbench_modelz(): return []",
         "unknown hook 'genbench_modelz'; did you mean 'genbench_models'? hooks: genbench_datasets, genbench_extractors, genbench_metrics, "
         "genbench_models, genbench_tracks"),
        ("import genbench\n@genbench.hookimpl\ndef genbench_metrics(): 1 / 0",
         "genbench_metrics raised ZeroDivisionError: division by zero (site/broken.py:3)"),
        ("import genbench\n@genbench.hookimpl\ndef genbench_metrics(): raise SystemExit",
         "genbench_metrics raised SystemExit (site/broken.py:3)"),
        ("import genbench\n@genbench.hookimpl\ndef genbench_metrics(): return {}", "genbench_metrics returned a dict, not a list"),
        ("import genbench\n@genbench.hookimpl\ndef genbench_metrics(): pass", "genbench_metrics returned a NoneType, not a list"),
        ("import genbench\n@genbench.hookimpl\ndef genbench_metrics(): return ['fid']", "genbench_metrics: a str is not a MetricSpec"),
        ("import genbench\n@genbench.hookimpl(wrapper=True)\ndef genbench_metrics(): return (yield)",
         "genbench_metrics is a wrapper; a plugin registers its own things only"),
    ],
)  # fmt: skip
def test_a_broken_plugin_is_listed_with_its_reason_and_stops_no_other(site, code, reason):
    found = load(site.install("broken", code), site.install("working", metrics("sharpness")))
    assert reasons(found) == {"broken": reason}
    assert set(found.metrics) == {"sharpness"}


def test_a_hook_with_arguments_it_is_not_given_does_not_fit(site):
    code = "import genbench\n@genbench.hookimpl\ndef genbench_metrics(config): return []"
    found = load(site.install("broken", code), site.install("working", metrics("sharpness")))
    assert "genbench_metrics(config); Argument(s) {'config'}" in reasons(found)["broken"]
    assert set(found.metrics) == {"sharpness"}


def test_keyboard_interrupt_passes(site):
    point = site.install("interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(point)


def test_one_hook_of_a_plugin_failing_leaves_its_others(site):
    code = metrics("sharpness") + "\n@genbench.hookimpl\ndef genbench_datasets():\n    raise OSError('no disk')\n"
    found = load(site.install("half", code))
    assert set(found.metrics) == {"sharpness"}
    assert [(item.kind, item.name) for item in found.broken] == [("dataset", "")]


def test_a_name_from_two_distributions_is_an_error_that_names_both_only_when_asked_for(site):
    found = load(site.install("one", metrics("sharpness", "contrast")), site.install("two", metrics("sharpness", "colour")))
    assert set(found.metrics) == {"contrast", "colour"}
    broken = {(item.distribution, item.name, item.duplicate) for item in found.broken}
    assert broken == {("one", "sharpness", True), ("two", "sharpness", True)}
    with pytest.raises(GenbenchError, match="metric 'sharpness' is registered by both one and two; uninstall one"):
        found.metric("sharpness")
    assert found.metric("contrast").distribution == "one"


def test_a_name_twice_in_one_distribution(site):
    found = load(site.install("one", metrics("sharpness", "sharpness")))
    with pytest.raises(GenbenchError, match="metric 'sharpness' is registered 2 times by one"):
        found.metric("sharpness")


def test_unknown_names_get_a_suggestion_and_what_there_is(site):
    found = load(site.install("one", metrics("sharpness", "contrast")))
    with pytest.raises(GenbenchError) as caught:
        found.metric("sharpnes")
    assert str(caught.value) == "unknown metric 'sharpnes'; did you mean 'sharpness'? installed: contrast, sharpness"
    with pytest.raises(GenbenchError, match="unknown track 'mnist'; no track is installed"):
        found.track("mnist")


def test_a_name_that_a_broken_distribution_may_hold_says_so(site):
    found = load(site.install("genbench-stylegan", "import nvcc"))
    with pytest.raises(GenbenchError, match=r"unknown model 'StyleGAN'.*genbench-stylegan is installed but broken: ModuleNotFoundError"):
        found.model("StyleGAN")
    with pytest.raises(GenbenchError, match=r"unknown model 'dcgan'.*broken: genbench-stylegan: ModuleNotFoundError"):
        found.model("dcgan")


def test_models_are_held_to_the_contract(site):
    found = load(site.install("models", MODEL))
    assert set(found.models) == {"good"}
    assert found.model("good").spec.hparams["z_dim"].default == 4
    named = {item.name: item.reason for item in found.broken if item.name}
    assert "no-sample: NoSample has no method sample" in named["no-sample"]
    assert "'z_dim' needs a default" in named["no-default"]
    assert "first argument of NoImage.__init__ must be image" in named["no-image"]
    assert "family 'autoregressive' is not one of gan, vae, control, other" in named["odd-family"]
    assert "preset 'mnist-60s': unknown hparam 'zdim'; did you mean 'z_dim'?" in named["odd-preset"]
    assert "'dict' is not a subclass of torch.nn.Module" in named["not-a-module"]
    unnamed = [item.reason for item in found.broken if not item.name]
    assert len(unnamed) == 2
    assert "'not a name' is no name" in unnamed[0]
    assert "a str is not a ModelSpec" in unnamed[1]
    with pytest.raises(GenbenchError, match=r"model 'no-sample' of models is broken: .* has no method sample"):
        found.model("no-sample")


def test_loading_one_model_imports_no_other_plugin(site, monkeypatch):
    wanted = site.install("models", MODEL)
    bystander = site.install("bystander", "import sys; sys.bystander = True")
    monkeypatch.setattr(catalogue_module, "plugin_points", lambda: [bystander, wanted])
    assert load_entry("models", "good").distribution == "models"
    assert not hasattr(sys, "bystander")
    with pytest.raises(GenbenchError, match=r"unknown model 'goood'; did you mean 'good'\?"):
        load_entry("models", "goood")
    with pytest.raises(GenbenchError, match="model 'good': its plugin 'gone' is not installed"):
        load_entry("gone", "good")


def test_asking_for_one_kind_imports_only_plugins_that_name_its_hook(site, monkeypatch):
    wanted = site.install("measures", metrics("sharpness"))
    bystander = site.install("bystander", "import sys; sys.bystander = True\ndef genbench_models(): ...")
    monkeypatch.setattr(catalogue_module, "plugin_points", lambda: [bystander, wanted])
    assert "sharpness" in load_catalogue(kinds=("metric",)).metrics
    assert not hasattr(sys, "bystander")


def test_the_digest_covers_every_file_of_a_package_and_executes_none(site):
    package = site.folder / "package"
    (package / "nets").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('executed')")
    (package / "nets" / "g.py").write_text("depth = 3")
    before = source_digest("package.nets.g:thing")
    assert before == source_digest("package")
    assert len(before) == 64
    (package / "nets" / "g.py").write_text("depth = 4")
    changed = source_digest("package")
    assert changed != before
    (package / "nets" / "g.py").rename(package / "nets" / "h.py")
    assert source_digest("package") not in (before, changed)
    assert source_digest("no_such_package") == ""


def test_the_digest_of_a_namespace_package_is_of_its_own_part(site):
    for name in ("ours", "theirs"):
        (site.folder / "space" / name).mkdir(parents=True)
        (site.folder / "space" / name / "__init__.py").write_text(f"# {name}")
    before = source_digest("space.ours")
    (site.folder / "space" / "theirs" / "__init__.py").write_text("# changed")
    assert source_digest("space.ours") == before != source_digest("space.theirs")


def test_a_models_digest_covers_the_files_it_is_made_of_and_no_neighbours(site):
    package = site.folder / "zoo"
    (package / "nets").mkdir(parents=True)
    files = {
        "__init__.py": "raise SystemExit('executed')", "gan.py": "from zoo.nets import blocks\nfrom .losses import hinge\nimport torch",
        "losses.py": "import zoo.numbers", "numbers.py": "one = 1", "vae.py": "from zoo.nets import Encoder",
        "nets/__init__.py": "from .deep import Encoder", "nets/blocks.py": "wide = 2", "nets/deep.py": "class Encoder: ...",
    }  # fmt: skip
    for name, content in files.items():
        (package / name).write_text(content)
    before = {name: model_digest(f"zoo.{name}") for name in ("gan", "vae")}
    assert len(set(before.values())) == 2
    made_of = {"gan": {"gan.py", "losses.py", "numbers.py", "nets/blocks.py"}, "vae": {"vae.py", "nets/__init__.py", "nets/deep.py"}}
    for name, content in files.items():
        (package / name).write_text(content + "\n# changed")
        assert {model for model in before if model_digest(f"zoo.{model}") != before[model]} == {m for m in made_of if name in made_of[m]}
        (package / name).write_text(content)
    assert model_digest("zoo.no_such_file") == model_digest("no_such_package.gan") == ""


def test_a_registered_model_has_its_own_digest(site):
    package = site.folder / "many"
    package.mkdir()
    for name in ("first", "second"):
        code = (
            f"from torch import nn\nclass {name.title()}(nn.Module):\n    def __init__(self, image): ...\n"
            "    def configure_optimizers(self): ...\n    def training_step(self, batches, optimizers): ...\n    def sample(self, n): ...\n"
        )
        (package / f"{name}.py").write_text(code)
    (package / "__init__.py").write_text("")
    hook = (
        "from many.first import First\nfrom many.second import Second\nfrom genbench import ModelSpec, hookimpl\n"
        "@hookimpl\ndef genbench_models(): return [ModelSpec('first', First, 'other'), ModelSpec('second', Second, 'other')]\n"
    )
    (package / "hooks.py").write_text(hook)
    found = load(EntryPoint("many", "many.hooks", "genbench"))
    assert found.broken == ()
    assert {name: entry.digest for name, entry in found.models.items()} == {m: model_digest(f"many.{m}") for m in ("first", "second")}


def test_files_are_told_from_names():
    assert is_file("./mygan.py:MyGAN")
    assert is_file("mygan.py")
    assert not is_file("dcgan")
    assert not is_file("genbench_gans:plugin")


def write(tmp_path, code, name="mygan.py"):
    path = tmp_path / name
    path.write_text(code)
    return path


def test_a_model_in_a_file(tmp_path):
    head = "class Model(nn.Module):"
    path = write(tmp_path, MODEL.replace(head, f'{head}\n    """Mine.\n\n    More."""\n    family = "vae"'))
    entry = load_model_file(f"{path}:Model")
    assert (entry.name, entry.spec.family, entry.spec.description) == ("Model", "vae", "Mine.")
    assert entry.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry.source == f"{path}:Model"
    assert load_entry(entry.source, "Model").spec.hparams == entry.spec.hparams


def test_a_file_shadows_no_module_and_finds_its_neighbours(tmp_path):
    write(tmp_path, "depth = 7", "layers_beside.py")
    path = write(tmp_path, MODEL + "import layers_beside\nModel.depth = layers_beside.depth", "random.py")
    entry = load_model_file(f"{path}:Model")
    import random

    assert entry.spec.cls.depth == 7
    assert entry.spec.family == "other"
    assert not hasattr(random, "Model")


def test_the_digest_of_a_file_covers_what_it_imports_from_beside_it(tmp_path):
    """And nothing that is installed: torch.py beside it is never imported, for torch comes before it."""
    files = {
        "mine.py": "import layers\nfrom nets.deep import Wide\nimport torch\nimport json", "layers.py": "import numbers_of_mine",
        "numbers_of_mine.py": "one = 1", "nets/deep.py": "from . import wide", "nets/__init__.py": "", "nets/wide.py": "w = 2",
        "nets/unused.py": "", "torch.py": "", "json.py": "", "other.py": "",
    }  # fmt: skip
    (tmp_path / "nets").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    before, changed = file_digest(tmp_path / "mine.py"), set()
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n# changed")
        changed |= {name} if file_digest(tmp_path / "mine.py") != before else set()
        (tmp_path / name).write_text(content)
    assert changed == {"mine.py", "layers.py", "numbers_of_mine.py", "nets/deep.py", "nets/__init__.py", "nets/wide.py"}
    assert file_digest(tmp_path / "other.py") == hashlib.sha256(b"").hexdigest()  # one that stands alone has its own


def test_bytecode_of_a_file_is_neither_trusted_nor_left_behind(tmp_path):
    path = write(tmp_path, MODEL)
    cached = Path(importlib.util.cache_from_source(str(path)))
    assert load_model_file(f"{path}:Model").name == "Model"
    assert not cached.exists()
    py_compile.compile(str(path), cfile=str(cached))
    cached.write_bytes(cached.read_bytes()[:100])  # what a full disk leaves
    assert load_model_file(f"{path}:Model").name == "Model"


def test_the_only_model_of_a_file_needs_no_name(tmp_path):
    only = MODEL.partition("class NoSample")[0]
    assert load_model_file(str(write(tmp_path, only))).name == "Model"
    with pytest.raises(GenbenchError, match=r"say which class, like mygan.py:Model; models in it: Model, NoSample, NoDefault, NoImage"):
        load_model_file(str(write(tmp_path, MODEL)))


@pytest.mark.parametrize(
    ("code", "cls", "message"),
    [
        (MODEL, "Modle", r"^unknown class 'Modle'; did you mean 'Model'\? in mygan.py: Model, NoDefault, NoImage, NoSample$"),
        (MODEL, "genbench", r"^mygan.py: 'genbench' is not a subclass of torch.nn.Module$"),
        (MODEL, "NoSample", r"^mygan.py: NoSample: NoSample has no method sample$"),
        (MODEL, "NoDefault", r"hparam 'z_dim' needs a default"),
        ("x = 1", "", r"say which class, like mygan.py:MyGAN; no class in it has a training_step$"),
        ("x = 1\ndef f(:", "M", r"mygan.py, line 2: invalid syntax$"),
        ("raise SystemExit", "M", r"mygan.py cannot be imported: SystemExit"),
        ("import nvcc", "M", r"cannot be imported: ModuleNotFoundError: No module named 'nvcc'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, code, cls, message):
    with pytest.raises(GenbenchError, match=message) as caught:
        load_model_file(f"{write(tmp_path, code)}:{cls}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbours(tmp_path):
    write(tmp_path, MODEL)
    with pytest.raises(GenbenchError, match=r"my_gan.py: no such file; there: mygan.py$"):
        load_model_file(f"{tmp_path}/my_gan.py:Model")
    with pytest.raises(GenbenchError, match="is not written like"):
        load_model_file("mygan.pyc:Model")


def test_every_hook_is_one_of_a_kind():
    from genbench import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("genbench_")}
    assert hooks == {f"genbench_{kind}s" for kind in KINDS}
    assert all(getattr(plugin_manager().hook, name).spec for name in hooks)
