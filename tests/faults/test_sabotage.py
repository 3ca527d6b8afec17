"""What keeps runs safe, tested by breaking it: each line of the table spoils one place of the package, and a named test must turn red.

The test runs in a process of its own, on a copy of the package whose text is changed; so do the children that it starts. A text that
is no longer there fails: the table follows the code. Those whose test starts whole runs are slow: ``pytest -m slow``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.deathsig import adopt_orphans, children, end_orphans

ROOT = Path(__file__).parents[2]
CRASH, PLUGIN, ENVIRONMENT = (f"tests/faults/test_{name}.py" for name in ("crash", "plugin", "environment"))
slow = pytest.mark.slow

STATE_JSON = "    write_atomic(new / HEADER, seal(state))\n"
PRUNE = "    for old in saved(folder)[KEPT:]:\n        shutil.rmtree(old, ignore_errors=True)\n"
VERIFY = "    if _content(place) is None:\n"
CLOCK = '"""Device-seconds."""\n        return perf_counter()'
STANDING = (
    "if checkpoint.state_digest(model) != before:\n"
    "            raise GenbenchError(f\"the model's parameters or buffers changed while"
)
KILL = "os.killpg(process.pid, signal.SIGKILL)"

SABOTAGES = {
    # what is done: (module, [(text, replacement), ...], the test that sees it)
    "time.time for the meter's clock": (
        "budget", [("import perf_counter, process_time", "import process_time, time as perf_counter")],
        f"{ENVIRONMENT}::test_a_wall_clock_that_is_set_moves_no_clock_of_ours",
    ),
    "time.time for the run's clock": (
        "ranks", [("from time import perf_counter", "from time import time as perf_counter")],
        f"{ENVIRONMENT}::test_a_wall_clock_that_is_set_moves_no_clock_of_ours",
    ),
    "whatever time.perf_counter is now": (
        "ranks", [(CLOCK, CLOCK.replace("perf_counter()", '__import__("time").perf_counter()'))],
        f"{PLUGIN}::test_a_replaced_clock_does_not_lengthen_the_budget_and_is_told", slow,
    ),
    "the supervisor's clock not compared": (
        "run", [("trained = _by_our_clock(trained, place.devices * outcome.trained, budget)", "pass")],
        f"{PLUGIN}::test_a_clock_that_is_slowed_in_the_harness_itself_is_found_out_by_the_supervisors", slow,
    ),
    "no fsync of a file": (
        "records", [("            os.fsync(file.fileno())\n        temporary.replace(path)", "        temporary.replace(path)")],
        f"{CRASH}::test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_anybody_goes_on",
    ),
    "no fsync of a record": (
        "records", [("            os.fsync(file.fileno())\n        try:\n            os.link", "        try:\n            os.link")],
        f"{CRASH}::test_so_is_a_record",
    ),
    "no fsync of a folder": (
        "records", [("            os.fsync(folder)\n", "            pass\n")],
        f"{CRASH}::test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_anybody_goes_on",
    ),
    "a record over another's": (
        "records", [("os.link(temporary, path)\n", "temporary.replace(path)\n")],
        "tests/test_records.py::test_of_commits_at_the_same_moment_the_first_wins",
    ),
    "another run's record taken": (
        "records", [("if record.spec.folder != spec.folder:", "if False:")],
        f"{CRASH}::test_a_record_that_is_not_the_runs_is_set_aside_and_named",
    ),
    "a state named before it is written": (
        "resume", [(STATE_JSON, ""), ("    new.rename(place)\n", "    new.rename(place)\n" + STATE_JSON.replace("new /", "place /"))],
        f"{CRASH}::test_a_state_is_whole_and_read_back_before_an_older_one_goes",
    ),
    "pruning before verifying": (
        "resume", [(PRUNE, ""), (VERIFY, PRUNE + VERIFY)],
        f"{CRASH}::test_a_state_that_cannot_be_read_back_costs_none_of_the_earlier_ones",
    ),
    "one state kept": (
        "states", [("KEPT = 2", "KEPT = 1")],
        "tests/test_resume.py::test_two_states_are_kept_and_a_damaged_one_falls_back_to_the_one_before",
    ),
    "digests not looked at": (
        "resume", [('if hashlib.sha256(content).hexdigest() == state["tensors"] else None', "if True else None")],
        "tests/test_resume.py::test_a_damaged_state_is_none",
    ),
    "states ordered by the wall clock": (
        "states", [("max(time_ns(), 1 + max(map(order, _names(folder)), default=0))", "time_ns()")],
        f"{CRASH}::test_the_newest_state_counts_even_where_the_clock_was_put_back",
    ),
    "steps counted from 0 on resume": (
        "budget", [("= ledger.seconds, ledger.steps, ledger.images", "= ledger.seconds, 0, ledger.images")],
        "tests/test_resume.py::test_continued_training_is_bit_equal",
    ),
    "lost seconds not charged": (
        "budget", [("        self._banked += seconds\n        self._lost", "        self._lost")],
        "tests/test_resume.py::test_seconds_that_a_crash_undid_are_charged_and_listed",
    ),
    "the witness not asked": (
        "witness", [("return max(0.0, last.seconds - restored)", "return 0.0")],
        "tests/test_resume.py::test_seconds_that_a_crash_undid_are_charged_and_listed",
    ),
    "overshoot not measured": (
        "budget", [("return max(0.0, self.spent - self.budget.amount)", "return 0.0")],
        "tests/test_budget.py::test_other_budgets_count_their_own_kind",
    ),
    "overshoot not recorded": (
        "stages", [("overshoot=training.overshoot", "overshoot=0.0")],
        "tests/test_run.py::test_one_giant_step_is_a_timeout", slow,
    ),
    "a lease never expires": (
        "lease", [("    return abs(age) > STALE", "    return False")],
        "tests/test_lease.py::test_a_lease_that_nobody_touches_is_taken_over",
    ),
    "a lease is not touched": (
        "lease", [("            os.utime(path)\n", "            pass\n")],
        "tests/test_lease.py::test_a_holder_touches_it_and_never_another_ones",
    ),
    "a lost lease not noticed": (
        "lease", [('return not isinstance(said, dict) or said.get("token") != token', "return False")],
        "tests/test_lease.py::test_who_was_stopped_finds_out_that_it_lost_it",
    ),
    "a process id of another container believed": (
        "lease", [("any(holder.get(name) != value for name, value in process_space().items())", "False")],
        "tests/test_lease.py::test_a_process_id_of_another_host_boot_or_container_says_nothing",
    ),
    "a lease not confirmed before a record": (
        "sweep/cell", [("                confirm()  #", "                pass  #")],
        f"{CRASH}::test_a_run_that_was_taken_over_from_a_stopped_process_is_left_to_the_other", slow,
    ),
    "SIGTERM only": (
        "supervisor", [(KILL, KILL.replace("SIGKILL", "SIGTERM"))],
        "tests/test_supervisor.py::test_the_whole_group_is_killed_and_nobody_is_asked",
    ),
    "the child killed alone": (
        "supervisor", [(KILL, KILL.replace("killpg", "kill"))],
        "tests/test_supervisor.py::test_the_whole_group_is_killed_and_nobody_is_asked",
    ),
    "sessions of their own left alone": (
        "supervisor", [("            end_orphans(known)\n", "            pass\n")],
        "tests/test_run.py::test_a_grandchild_with_a_session_of_its_own_is_ended", slow,
    ),
    "training off the clock not looked for": (
        "stages", [(STANDING, STANDING.replace("checkpoint.state_digest(model) != before", "False"))],
        f"{PLUGIN}::test_a_model_that_trains_while_its_clock_stands_still_is_a_named_failure", slow,
    ),
    "deadlines before what waits is read": (
        "supervisor", [("        if away is not None:\n            continue\n", "")],
        "tests/test_supervisor.py::test_a_supervisor_that_was_stopped_reads_what_waits_before_it_judges",
    ),
    "ticks not looked at": (
        "supervisor", [('case {"kind": "tick"} if is_tick(message):', 'case {"kind": "tick"}:')],
        "tests/test_supervisor.py::test_what_no_stage_says_ends_the_stage",
    ),
    "a training waits for who does not listen": (
        "child", [('if content.get("phase") == "train" and self._is_full():', "if False:")],
        "tests/test_child.py::test_a_training_does_not_wait_for_a_supervisor_that_is_stopped",
    ),
    "whichever GPU waited for": (
        "throughput", [("partial(torch.cuda.synchronize, device)", "torch.cuda.synchronize")],
        "tests/test_throughput.py::test_a_gpu_is_waited_for_by_its_number",
    ),
    "what a plugin changed not told": (
        "surroundings", [("        self._told |= dict.fromkeys(found)\n", "")],
        f"{PLUGIN}::test_a_working_directory_that_is_gone_is_told_and_stops_nothing",
    ),
    "the seed not looked at": (
        "sample", [("if not stored and np.array_equal(one, other)", "if False and np.array_equal(one, other)")],
        f"{PLUGIN}::test_a_model_that_does_not_heed_its_seed_is_told_and_no_other",
    ),
}  # fmt: skip
TABLE = [pytest.param(*line[:3], marks=line[3:], id=what) for what, line in SABOTAGES.items()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package and its tests, to be spoilt."""
    folder = tmp_path_factory.mktemp("copy")
    nothing = shutil.ignore_patterns("__pycache__")
    for name in ("genbench", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=nothing)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_of(copy, *tests):
    """Run tests of the copy, on its package -> exit code and what was said. Nothing that they start outlives them."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "200", "--tb", "line", *tests]
    adopt_orphans()
    known = children()
    try:
        ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
    finally:
        end_orphans(known)
    return ended.returncode, ended.stdout + ended.stderr


test_of.__test__ = False


def test_the_copy_is_what_is_tested_and_is_whole(copy):
    """Red tests mean something only where the same tests are green without sabotage: the quick ones here, all in the suite itself."""
    (copy / "tests" / "test_where.py").write_text(
        f"import genbench\n\ndef test_where():\n    assert genbench.__file__ == {str(copy / 'genbench' / '__init__.py')!r}\n"
    )
    quick = dict.fromkeys(line[2] for line in SABOTAGES.values() if len(line) == 3)
    code, said = test_of(copy, "tests/test_where.py", *quick)
    assert code == 0, said


@pytest.mark.parametrize(("module", "changes", "test"), TABLE)
def test_a_named_test_turns_red(copy, module, changes, test):
    path = copy / "genbench" / f"{module}.py"
    whole = text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{module} holds {text.count(old)} times, not once: {old}"
        text = text.replace(old, new)
    path.write_text(text)
    try:
        code, said = test_of(copy, "-x", test)
    finally:
        path.write_text(whole)
    summary = said.strip().splitlines()[-1]
    assert code == 1, said
    assert re.search(r"\b1 failed\b", summary), said
    assert "error" not in summary, said
