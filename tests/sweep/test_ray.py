"""Sweeps on a Ray cluster of two nodes: what is asked of nodes, and what is lost when workers, nodes and the driver are killed."""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from genbench import run as runs
from genbench.descriptions import ModelDescription
from genbench.errors import GenbenchError
from genbench.records import RunRecord, Store
from genbench.sweep import night
from genbench.sweep.cell import Wishes
from genbench.sweep.plan import Sweep
from genbench.track import load_track

ray = pytest.importorskip("ray", reason="the extra genbench[ray] is not installed")
pytestmark = [
    # Ray leaves sockets, files and processes of the clusters it starts to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess [0-9]+ is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ZOO = """
import time
import torch
from torch import nn

class Slow(nn.Module):
    family = "other"
    def __init__(self, image, pause: float = 0.05):
        super().__init__()
        self.image, self.pause, self.batch_size = image, pause, 16
        self.net = nn.Conv2d(1, 1, 3, padding=1)
    def configure_optimizers(self):
        return {"all": torch.optim.Adam(self.parameters(), 1e-2)}
    def training_step(self, batches, optimizers):
        real = next(batches).images
        time.sleep(self.pause)
        loss = (self.net(real) - real).square().mean()
        optimizers["all"].minimize(loss)
        return {"loss": loss.detach()}
    def sample(self, n):
        return self.net(torch.randn(n, *self.image.shape)).tanh()
"""
TRACK = """
dataset = "digits"
size = 8
budget = "{budget}"
num_samples = 60
extractor = "digits-cnn"
curve = [1.0]
curve_samples = 0
metrics = ["fid"]
"""


def scripted(planned, place, supervisor, on_event):
    """Stands in for a run on a node: what happens is in the model's name. A model in a file is trained as ever."""
    spec = planned.spec
    if spec.model.distribution == "unpackaged":
        return runs.run(planned, place, supervisor, on_event)
    folder = place.store.folder(spec)
    on_event({"kind": "stage", "stage": "train"})
    with open(folder / "tally", "a") as tally:
        tally.write(f"{os.getpid()}\n")
    if spec.model.name == "fills-one-disk":  # that of the first node that comes here
        here, full = ray.get_runtime_context().get_node_id(), place.store.root / "full"
        mine = full.with_name(f"full-{here}")
        mine.write_text(here)
        with contextlib.suppress(FileExistsError):
            os.link(mine, full)  # whole at once, and the first one stays
        if full.read_text() == here:
            raise OSError(28, "No space left on device")
        time.sleep(1)
    if spec.model.name == "kills-its-worker":
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.model.name == "fills-the-disk":
        raise OSError(28, "No space left on device")
    if spec.model.name == "breaks":
        raise RuntimeError("nobody knows why")
    if spec.model.name == "takes-a-while":
        time.sleep(2)
    if spec.model.name == "waits":
        while not (folder / "go").exists():
            time.sleep(0.05)
    if spec.model.name.startswith("is-interrupted"):
        steps = 5 * len((folder / "tally").read_text().split())
        if spec.model.name.endswith("getting-on"):
            (folder / "state" / f"{steps}-1").mkdir(parents=True)
        if steps < 25:
            return None
    status = "error" if spec.model.name == "fails" else "done"
    record = RunRecord(spec=spec, status=status, reason="as it says" * (status == "error"), started=f"{time.time()}")
    (folder / "samples.npz").write_bytes(b"many bytes")
    (folder / "curve.csv").write_text("progress\n")
    place.store.commit(record)
    return record


@pytest.fixture(scope="module", autouse=True)
def cluster(served):
    """Two nodes of one CPU each, both on this machine; the driver is on the first. Nodes reach the object storage that is served."""
    from ray.cluster_utils import Cluster

    settings = {
        "RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300",  # for a machine that is busy
        "RAY_AUTH_MODE": "disabled",  # else Ray leaves a token in the user's home
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **ports()})
        nodes.add_node(num_cpus=1, **ports())
        yield nodes
        ray.shutdown()
        nodes.shutdown()
        gc.collect()  # what Ray leaves open is reported here, not in the tests of another file
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def ports():
    """Of a node's agents: where they are to find them itself, a node waits for it no longer than 15 seconds."""
    names = ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
    return {name: next(filter(is_free, PORTS)) for name in names}


PORTS = iter(range(20_001, 32_000))
"""Neither those that the system gives to whoever asks for any, nor those of Ray's workers."""


def is_free(port):
    with socket.socket() as one, contextlib.suppress(OSError):
        one.bind(("127.0.0.1", port))
        return True
    return False


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "zoo.py").write_text(ZOO)
    (folder / "tiny.toml").write_text(TRACK.format(budget="120steps"))
    (folder / "long.toml").write_text(TRACK.format(budget="300steps"))
    return folder


def wishes(cluster, home, results="results", **more):
    return Wishes(results=home / results, device="cpu", threads=1, address=cluster.address, **more)


@pytest.fixture(scope="module")
def executor(cluster, home):
    """Connected once, its nodes asked once."""
    before = signal.getsignal(signal.SIGTERM)
    with night.started("ray", wishes(cluster, home), scripted) as found:
        assert signal.getsignal(signal.SIGTERM) is before
        assert found.slots == 2
        found.tracks = [load_track(home / "tiny.toml")]
        places = found.places(found.tracks, [])
        assert [place.checked.device_class for place in places] == ["cpu-1"]
        found.places = lambda tracks, models: places
        yield found


def made_up(*names):
    return {name: ModelDescription(name=name, distribution="d", version="1", digest=name, source="s", family="gan") for name in names}


def in_file(home, *names):
    from genbench.inventory import describe_file

    return {name: describe_file(f"{home / 'zoo.py'}:{name}") for name in names}


def cells_of(executor, models, seeds=1):
    return night.cells_of(Sweep(models=tuple(models), tracks=("tiny",), seeds=seeds), models, executor.tracks, executor)


def execute(executor, cells):
    """-> records by model and seed, and what was said of crashes."""
    found, said = {}, []

    def on_event(cell, event):
        if event["kind"] != "begun":
            said.append(event["reason"])

    executor.execute(cells, on_event, lambda cell, r: found.update({(r.spec.model.name, r.spec.seed): r}))
    return found, said


def tally(cell):
    return (cell.folder / "tally").read_text().split()


def assert_nothing_is_left(results):
    left = [path.name for path in Path(results).rglob("*") if path.name.startswith((".", "lease"))]
    assert left == []


def test_every_run_happens_once_on_the_nodes_and_the_same_again_repeats_nothing(executor, home):
    cells = cells_of(executor, made_up("a", "b"), seeds=10)
    found, said = execute(executor, cells)
    assert len(found) == 20
    assert {record.status for record in found.values()} == {"done"}
    assert said == []
    assert [len(tally(cell)) for cell in cells] == [1] * 20
    assert os.getpid() not in {int(pid) for cell in cells for pid in tally(cell)}
    again, _ = execute(executor, cells)
    assert again == found
    assert [len(tally(cell)) for cell in cells] == [1] * 20
    assert_nothing_is_left(home / "results")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("kills-its-worker", "its Ray worker on {host} was killed"),
        ("breaks", "its Ray worker failed: RuntimeError: nobody knows why"),
    ],
)
def test_a_run_that_always_loses_its_worker_is_an_error_after_three_times(executor, name, says, capsys):
    cells = cells_of(executor, made_up(name, "sound"))
    found, said = execute(executor, cells)
    assert capsys.readouterr().out == ""  # of Ray, which would spoil --json
    assert found["sound", 0].status == "done"
    record = found[name, 0]
    assert record.status == "error"
    assert record.reason.startswith(says.format(host=socket.gethostname()))
    assert record.reason.endswith("3 times in a row without getting on")
    assert [len(tally(cell)) for cell in cells if cell.planned.spec.model.name == name] == [3]
    assert len(said) == 2
    assert next(cell.record for cell in cells if cell.planned.spec.model.name == name) == record


FULL = rf"node {socket.gethostname()} \(\w{{8}}\): results folder .* can't be written: No space left"


def test_a_full_results_folder_stops_the_sweep_and_says_where(executor, monkeypatch):
    from genbench.sweep import ray as module

    monkeypatch.setattr(module, "can_write", lambda folder: False)
    cells = cells_of(executor, made_up("fills-the-disk"))
    with pytest.raises(GenbenchError, match="^" + FULL):
        execute(executor, cells)
    assert len(tally(cells[0])) == 1


def test_where_every_node_refuses_the_sweep_ends_and_says_why(executor, caplog):
    (cell,) = cells_of(executor, made_up("fills-the-disk"), seeds=1)
    before = len(tally(cell)) if cell.folder.exists() else 0
    with pytest.raises(GenbenchError, match=f"no node is left that takes these runs: {FULL}.*; {FULL}"):
        execute(executor, [cell])
    assert len(tally(cell)) - before == 2
    assert len([r for r in caplog.records if "gets no more runs" in r.message]) == 2


def test_a_node_that_cannot_write_is_named_once_and_its_runs_happen_elsewhere(executor, caplog):
    cells = cells_of(executor, made_up("fills-one-disk"), seeds=6)
    found, said = execute(executor, cells)
    assert [record.status for record in found.values()] == ["done"] * 6
    assert said == []
    (told,) = [r.message for r in caplog.records if "gets no more runs" in r.message]
    assert (executor._results / "full").read_text()[:8] in told
    assert max(len(tally(cell)) for cell in cells) == 2  # whoever was refused there is not sent there again
    assert "No space left" in told
    assert_nothing_is_left(executor._results)


def test_whether_a_folder_can_be_written_is_seen_by_writing(tmp_path):
    from genbench.sweep.ray import can_write

    assert can_write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not can_write(tmp_path / "none")


def test_that_a_run_begins_is_told_with_its_host_once(executor, monkeypatch):
    from genbench.sweep import ray as module

    monkeypatch.setattr(module, "LOOK", 0.1)
    cells, told = cells_of(executor, made_up("takes-a-while"), seeds=3)[1:], []
    executor.execute(cells, lambda cell, event: told.append((cell.planned.spec.seed, event)), lambda cell, record: told.append("record"))
    assert sorted(one for one in told if one != "record") == [(seed, {"kind": "begun", "host": socket.gethostname()}) for seed in (1, 2)]
    assert told[-1] == "record"


def test_a_run_that_is_interrupted_on_its_node_goes_on_for_as_long_as_it_gets_on(executor):
    """As where a scheduler takes single nodes back: the sweep goes on, and nobody pressed Ctrl-C."""
    cells = cells_of(executor, made_up("is-interrupted-getting-on", "is-interrupted"))
    found, said = execute(executor, cells)
    on, stuck = found["is-interrupted-getting-on", 0], found["is-interrupted", 0]
    assert on.status == "done"
    assert {cell.planned.spec.model.name: len(tally(cell)) for cell in cells} == {"is-interrupted-getting-on": 5, "is-interrupted": 3}
    assert (stuck.status, stuck.reason) == ("error", "it was interrupted on its node, 3 times in a row without getting on")
    assert len(said) == 4 + 2


def test_a_task_that_is_executed_twice_is_one_run(executor):
    from genbench.sweep.node import work

    (cell,) = cells_of(executor, made_up("waits"))
    task = ray.remote(max_retries=0)(work)
    ticket = executor._tickets["tiny"]
    asked = [task.remote(cell.planned, ticket) for _ in range(2)]
    ray.wait(asked, timeout=60)  # for the one that finds the other at work
    (cell.folder / "go").touch()
    both = ray.get(asked)
    assert len(tally(cell)) == 1
    assert [answer.busy for answer in both].count(True) == 1
    later = ray.get(task.remote(cell.planned, ticket))
    assert later == next(answer for answer in both if not answer.busy)
    assert len(tally(cell)) == 1
    found, _ = execute(executor, [cell])
    assert len(found) == 1


def test_a_run_that_another_sweep_works_on_is_left_to_it(executor):
    from genbench import lease
    from genbench.sweep.node import work

    (cell,) = cells_of(executor, made_up("elsewhere"))
    with lease.held(cell.folder):
        assert ray.get(ray.remote(work).remote(cell.planned, executor._tickets["tiny"])).busy
    assert len(execute(executor, [cell])[0]) == 1


def test_a_node_that_is_killed_costs_its_run_the_time_that_was_lost_and_no_more(executor, cluster, home):
    doomed = cluster.add_node(num_cpus=1, **ports())
    warm(doomed)
    executor._cluster.nodes = executor._cluster.able()
    assert executor.slots == 3
    cells = cells_of(executor, in_file(home, "Slow"), seeds=3)
    killed = []

    def kill_when_all_train():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not all(trains(cell) for cell in cells):
            time.sleep(0.1)
        cluster.remove_node(doomed, allow_graceful=False)
        killed.append(True)

    killer = threading.Thread(target=kill_when_all_train)
    killer.start()
    found, said = execute(executor, cells)
    killer.join()
    executor._cluster.nodes = executor._cluster.able()
    assert killed
    assert [(record.status, record.spent.steps) for record in found.values()] == [("done", 120)] * 3
    assert sorted(record.spent.attempts for record in found.values()) == [1, 1, 2]
    assert len(said) == 1
    assert "node" in said[0] or "worker" in said[0]
    assert {record.environment.threads for record in found.values()} == {1}
    assert_nothing_is_left(home / "results")


def trains(cell):
    with contextlib.suppress(FileNotFoundError):  # it has just ended
        return any(any(path.read_bytes()) for path in cell.folder.glob("attempts/*/clock"))
    return False


def warm(node):
    """Wait until a worker of that node has started."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.get(ray.remote(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False))(lambda: None).remote())


def other_plugin(folder):
    """A folder with another version of a plugin that is installed here."""
    (folder / "genbench_controls.py").write_text("old = True\n")
    info = folder / "genbench_controls-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: genbench-controls\nVersion: 9.9\n")
    (info / "entry_points.txt").write_text("[genbench]\ncontrols = genbench_controls\n")
    return folder


def test_a_node_with_another_plugin_is_named_with_the_difference(executor, cluster, home, tmp_path):
    odd = cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": str(other_plugin(tmp_path))}, **ports())
    try:
        from genbench.sweep.ray import RayExecutor

        both = RayExecutor(ray, wishes(cluster, home), scripted)
        with pytest.raises(GenbenchError, match=r"node .*: genbench-controls .* here, 9\.9 \(.*\) there") as error:
            both.places(executor.tracks, [])
        assert odd.node_id[:8] in str(error.value)
        assert str(error.value).count("node ") - str(error.value).count("on node ") < 3  # of three nodes one is named
        assert_nothing_is_left(home / "results")
    finally:
        cluster.remove_node(odd, allow_graceful=False)


def test_a_node_that_joins_with_another_plugin_is_named_once_and_gets_no_runs(executor, cluster, home, tmp_path, caplog):
    odd = cluster.add_node(num_cpus=2, env_vars={"PYTHONPATH": str(other_plugin(tmp_path))}, **ports())
    try:
        warm(odd)
        cells = cells_of(executor, made_up("takes-a-while"), seeds=9)[3:]
        found, said = execute(executor, cells)
        assert [record.status for record in found.values()] == ["done"] * 6
        assert said == []
        assert [len(tally(cell)) for cell in cells] == [1] * 6
        (told,) = [r.message for r in caplog.records if "gets no more runs" in r.message]
        assert odd.node_id[:8] in told
        assert "genbench-controls" in told
        assert "9.9" in told
    finally:
        cluster.remove_node(odd, allow_graceful=False)


def test_without_a_shared_folder_runs_come_back_through_a_storage(executor, cluster, home, tmp_path, s3):
    import s3fs

    from genbench.sweep.ray import RayExecutor

    storage = f"{s3}/{tmp_path.name}"
    gone = cluster.add_node(num_cpus=1, **ports())
    apart = RayExecutor(ray, wishes(cluster, tmp_path, "mine", storage=storage), scripted)
    apart.tracks = executor.tracks
    cluster.remove_node(gone, allow_graceful=False)  # a node that goes away before it is asked is no reason to stop
    cells = cells_of(apart, made_up("fails", "well"), seeds=2)
    assert apart.slots == 2
    found, _ = execute(apart, cells)
    assert {key: record.status for key, record in found.items()} == {
        ("fails", 0): "error", ("fails", 1): "error", ("well", 0): "done", ("well", 1): "done"
    }  # fmt: skip
    listed = s3fs.S3FileSystem(use_listings_cache=False)
    for cell in cells:
        there = f"{storage}/{cell.planned.spec.folder.as_posix()}"
        assert {path.rpartition("/")[2] for path in listed.ls(there)} == {"record.json", "samples.npz", "curve.csv", "tally"}
        assert {path.name for path in cell.folder.iterdir()} == {"record.json", "curve.csv", "tally"}  # what is heavy stays there
        assert cell.record == found[cell.planned.spec.model.name, cell.planned.spec.seed]
    # another driver, with nothing but the storage
    other = RayExecutor(ray, wishes(cluster, tmp_path, "theirs", storage=storage), scripted)
    other.tracks, other._tickets = executor.tracks, apart._tickets
    other.places = lambda tracks, models: [runs.Place(Store(tmp_path / "theirs"), cells[0].place.checked, 1)]
    known = cells_of(other, made_up("fails", "well"), seeds=2)
    assert {row["state"] for row in night.outlook(known)} == {"done", "error"}
    night.reopen_failed(known, other)
    again, _ = execute(other, known)
    assert again["well", 0].started == found["well", 0].started
    assert again["fails", 0].started != found["fails", 0].started
    assert_nothing_is_left(tmp_path)


@pytest.mark.slow
def test_without_a_shared_folder_a_killed_node_costs_its_run_what_it_had_spent(executor, cluster, home, tmp_path):
    """The other node has a cache of its own, as other machines have; the run begins there with what the storage knows of it."""
    from genbench.sweep.ray import RayExecutor

    storage = tmp_path / "storage"
    doomed = cluster.add_node(num_cpus=1, resources={"alone": 1}, env_vars={"GENBENCH_CACHE": str(tmp_path / "doomed")}, **ports())
    apart = RayExecutor(ray, wishes(cluster, home, "mine", storage=storage.as_uri(), resources=("alone",)), scripted)
    apart.tracks = [load_track(home / "long.toml")]
    cells = night.cells_of(Sweep(models=("Slow",), tracks=("long",), seeds=1), in_file(home, "Slow"), apart.tracks, apart)
    run = cells[0].planned.spec.folder
    noted, nodes, found, said = storage / run / "attempts" / "1" / "clock", [doomed], [], []

    def kill_once_it_is_noted():
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (noted.exists() and any(noted.read_bytes())):
            time.sleep(0.1)
        cluster.remove_node(nodes.pop(0), allow_graceful=False)

    def on_event(cell, event):
        if event["kind"] == "crash":
            said.append(event["reason"])
        elif not said:  # it has begun on the one node there is: there may be another now
            nodes.append(
                cluster.add_node(num_cpus=1, resources={"alone": 1}, env_vars={"GENBENCH_CACHE": str(tmp_path / "heir")}, **ports())
            )
            killer.start()

    killer = threading.Thread(target=kill_once_it_is_noted)
    try:
        apart.execute(cells, on_event, lambda cell, record: found.append(record))
    finally:
        killer.join()
        for node in nodes:
            cluster.remove_node(node, allow_graceful=False)
    (record,) = found
    assert record.status == "done"
    assert len(said) == 1
    assert record.spent.attempts == 2
    assert record.spent.lost > 0
    assert record.spent.seconds > record.spent.lost + 0.05 * 300  # that of the second attempt, and what the first had noted
    assert not list((storage / run).rglob("clock"))


@pytest.fixture
def sweep(cluster, home):
    """Arguments -> the command as a process that goes when the test does."""
    started = []

    def start(*more):
        command = [
            sys.executable, "-m", "genbench", "sweep", "sweep.toml", "--executor", "ray", "--address", cluster.address, "--device", "cpu",
            "--threads", "1", "--results", "others", *more,
        ]  # fmt: skip
        started.append(subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.timeout(900)
def test_ctrl_c_saves_a_killed_driver_loses_nothing_and_the_same_command_goes_on(sweep, home):
    (home / "sweep.toml").write_text('models = ["./zoo.py:Slow"]\ntracks = ["tiny.toml"]\n')
    results = home / "others"
    for number, end in enumerate((signal.SIGINT, signal.SIGKILL), 1):
        process = sweep()
        deadline = time.monotonic() + 250
        while not any(any(path.read_bytes()) for path in results.glob(f"runs/tiny/Slow/*/attempts/{number}/clock")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(end)
        _, said = process.communicate(timeout=150)
        assert process.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL), said
        assert list(results.glob("runs/*/*/*/record.json")) == []
        if end == signal.SIGINT:
            assert list(results.glob("runs/tiny/Slow/*/state/*"))
            assert not list(results.rglob("lease"))
    process = sweep("--json")
    told, said = process.communicate(timeout=250)
    assert process.returncode == 0, said
    (record,) = json.loads(told)
    assert record["spent"]["steps"] == 120
    assert record["spent"]["attempts"] == 3
    assert record["environment"]["device"]
    assert_nothing_is_left(results)


def test_no_node_that_can_take_a_run_is_said_with_what_there_is(executor, cluster, home):
    from genbench.sweep.ray import RayExecutor

    with pytest.raises(GenbenchError, match=r"no node .* has 64 CPUs for a run; nodes: .*1 CPU"):
        RayExecutor(ray, Wishes(home / "results", "cpu", threads=64))
    with pytest.raises(GenbenchError, match="has 1 CPUs and a GPU for a run"):
        RayExecutor(ray, Wishes(home / "results", "cuda"))
    with pytest.raises(GenbenchError, match="CPUs and accelerator_type:H100 for a run"):
        RayExecutor(ray, Wishes(home / "results", "cpu", resources=("accelerator_type:H100",)))


def test_a_cluster_that_starts_here_has_no_dashboard_and_one_that_is_not_there_is_said(monkeypatch, tmp_path):
    asked = {}

    def init(**more):
        asked.update(more)
        raise ConnectionError("Could not find any running Ray instance\nand more")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(GenbenchError, match=r"Ray cluster of this machine can't be reached: Could not find any running Ray instance$"),
        night.started("ray", Wishes(tmp_path)),
    ):
        pass
    assert asked["include_dashboard"] is False

    def refuse(**more):
        raise ray.exceptions.AuthenticationError("no token")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    there = Wishes(tmp_path, address="x:1")
    with pytest.raises(GenbenchError, match=r"Ray cluster x:1 can't be reached: [^;]*no token"), night.started("ray", there):
        pass
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    with pytest.raises(GenbenchError, match="there is a token here: export RAY_AUTH_MODE=token"), night.started("ray", there):
        pass
    with pytest.raises(GenbenchError, match="Ray Client"), night.started("ray", Wishes(tmp_path, address="ray://x:10001")):
        pass


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GenbenchError, match=r"pip install genbench\[ray\]"), night.started("ray", Wishes(tmp_path)):
        pass


def test_options_of_a_cluster_are_refused_where_there_is_none(tmp_path):
    wishes = Wishes(tmp_path, storage="s3://b")
    with pytest.raises(GenbenchError, match="--storage is for nodes of a Ray cluster"), night.started("local", wishes):
        pass
