"""The pages on verifying and submitting, and the workflow that checks submissions, say what the code does."""

import re
from pathlib import Path

import pytest

from genbench.agreement import ANOTHER_DRAW, LEVEL, SHARE_OF_SAME_DRAWS, SLACK, TOLERANCES, WIDEST
from genbench.bundle import CHECKPOINT_LIMIT, EXCERPT_IMAGES, LIMITS
from genbench.leaderboard.elsewhere import FORMS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def verify_page():
    return (ROOT / "docs" / "verify.md").read_text()


@pytest.fixture(scope="module")
def submit_page():
    return (ROOT / "docs" / "submit.md").read_text()


def test_the_numbers_of_the_page_on_verifying_are_those_of_the_code(verify_page):
    assert f"within {ANOTHER_DRAW:.2f} of its half-widths" in verify_page
    assert f"Student's t at {1 - LEVEL:.0%}".replace("%", " %") in verify_page
    assert f"{SHARE_OF_SAME_DRAWS:.0%} of pixels".replace("%", " %") in verify_page
    assert f"at most {WIDEST:.0%}".replace("%", " %") in verify_page
    assert SLACK == 10
    assert "ten times the tolerances" in verify_page
    assert (TOLERANCES["fid"].relative, TOLERANCES["fid"].absolute) == (1e-3, 1e-2)
    assert "0.1 %, at least 0.01 |" in verify_page
    assert (TOLERANCES["precision"].images, TOLERANCES["precision"].absolute) == (2, 1e-3)


def test_the_page_on_submitting_names_every_file_form_and_limit(submit_page):
    assert CHECKPOINT_LIMIT == 1 << 20
    assert EXCERPT_IMAGES == 1000
    for name in [*LIMITS, *FORMS]:
        assert name in submit_page or name == "checkpoint.json", name


def test_every_command_of_the_pages_exists(verify_page, submit_page):
    from genbench.cli import app, leaderboard

    commands = {command.name for command in app.registered_commands}
    nested = {command.name for command in leaderboard.registered_commands}
    named = re.findall(r"genbench (leaderboard )?([a-z]+)", verify_page + submit_page)
    assert {word for group, word in named if group} <= nested
    assert {word for group, word in named if not group} <= commands | {"leaderboard"}
    assert {"verify", "submit", "export"} <= {word for group, word in named if not group}


def test_the_workflow_can_only_read_and_runs_the_checker_of_the_base_branch():
    text = (ROOT / ".github" / "workflows" / "leaderboard.yml").read_text()
    flow = pytest.importorskip("yaml").safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert set(flow[True]) == {"pull_request"}  # `on`, as YAML 1.1 reads it; not pull_request_target, which has secrets
    steps = flow["jobs"]["check"]["steps"]
    checkouts = [step["with"] for step in steps if "checkout" in step.get("uses", "")]
    submission, base = checkouts
    assert [one["path"] for one in checkouts] == ["submission", "base"]
    assert (submission["ref"], submission["fetch-depth"]) == ("${{ github.sha }}", 2)  # as merged, and into what
    (parent,) = [step for step in steps if step.get("id") == "base"]
    assert parent["run"] == 'echo "sha=$(git -C submission rev-parse HEAD^1)" >> "$GITHUB_OUTPUT"'
    assert base["ref"] == "${{ steps.base.outputs.sha }}"
    assert "head.sha" not in text
    assert all(one["persist-credentials"] is False for one in checkouts)
    installed = [step for step in steps if "pip install" in step.get("run", "")]
    assert [step["working-directory"] for step in installed] == ["base"]
    assert "secrets." not in text
    theirs = re.compile(r"\$\{\{.*(title|body|head_ref|head\.ref)")
    assert not any(theirs.search(step.get("run", "")) for step in steps)  # none of it in a shell
