"""Records of verification: what gives a run its tier, and what does not."""

import json

import pytest

from genbench.errors import GenbenchError
from genbench.records import Environment, Store
from genbench.verification import Compared, Finding, Verification, read_verification, record_digest, standing, tier_of, write_verification
from tests.test_records import make_record

ENVIRONMENT = Environment(genbench="1", python="3", torch="2", device="cpu", cores=1, threads=1, platform="Linux")


@pytest.fixture
def folder(tmp_path):
    return Store(tmp_path).commit(make_record()).parent


FOUND = {1: ("record", "samples"), 2: ("record", "model", "checkpoint"), 3: ("record", "model", "checkpoint", "retrained")}


def compared(of, ok=True, score="fid"):
    return Compared(score=score, of=of, recorded=3.25, found=3.25, ok=ok)


def verification(folder, tier=1, ok=True, by="self", made="2026-03-04T05:06:07+00:00", **changes):
    """What `genbench verify` finds of an honest run, or of one whose samples are others."""
    values = {
        "tier": tier, "ok": ok, "by": by, "made": made, "run": "runs/t/m/0", "record_sha256": record_digest(folder / "record.json"),
        "same_machine": True, "environment": ENVIRONMENT,
        "findings": [Finding(what=what, ok=ok or what != FOUND[tier][-1], detail="looked at") for what in FOUND[tier]],
        "scores": [compared("stored samples" if tier == 1 else "fresh seed"), *([compared("retrained", None)] if tier == 3 else [])],
        "fresh_seed": 7 if tier > 1 else None, "retrained_seeds": [8] if tier == 3 else [],
    }  # fmt: skip
    return Verification.model_validate(values | changes)


def test_a_verification_comes_back_as_it_was_under_a_name_that_says_what_it_is(folder):
    one = verification(folder, 2)
    path = write_verification(folder, one)
    assert read_verification(path) == one
    assert path.name.startswith("verification-2-20260304T050607Z-")
    assert [found.name for found in folder.iterdir()] == ["record.json", path.name] or len(list(folder.iterdir())) == 2


def test_the_highest_tier_counts_and_self_is_said(folder):
    assert (tier_of(folder), standing(folder).label) == (0, "T0")
    write_verification(folder, verification(folder, 1, by="A. Reader"))
    assert standing(folder).label == "T1"
    write_verification(folder, verification(folder, 2))
    assert (tier_of(folder), standing(folder).label) == (2, "T2 (self)")
    write_verification(folder, verification(folder, 2, by="A. Reader"))
    assert (standing(folder).label, standing(folder).by) == ("T2", ("A. Reader", "self"))
    failed = write_verification(folder, verification(folder, 3, ok=False))
    assert (standing(folder).label, standing(folder).differs) == ("T2", (failed.name,))


def test_a_record_that_changes_has_no_verification_any_more(folder):
    write_verification(folder, verification(folder, 2))
    path = folder / "record.json"
    path.write_bytes(path.read_bytes().replace(b"3.25", b"1.25"))
    assert tier_of(folder) == 0


def edited(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def test_what_is_no_whole_verification_counts_for_nothing(folder):
    path = write_verification(folder, verification(folder, 1))
    content = path.read_bytes()
    for damaged, says in [
        (content.replace(b'"tier": 1', b'"tier": 3'), "was changed"),
        (content[:40], "was changed"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(GenbenchError, match=says):
            read_verification(path)
        assert tier_of(folder) == 0
    path.write_bytes(content)
    path.rename(path.with_name(path.name.replace("verification-1", "verification-3")))
    assert tier_of(folder) == 0  # its name says another tier


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"note": "x"}, "note"),
        ({"tier": 4}, "tier"),
        ({"by": ""}, "by"),
        ({"by": "x" * 81}, "by"),
        ({"record_sha256": "0"}, "record_sha256"),
        ({"findings": [{"what": "x", "ok": False}]}, "lists what is not"),
        ({"findings": []}, "reached tier 1: nothing found of record, samples"),
        ({"findings": [{"what": "record", "ok": True}, {"what": "samples", "ok": None}]}, "nothing found of samples"),
        ({"scores": []}, "reached tier 1: no score found as recorded"),
        ({"scores": [{"score": "fid", "of": "retrained", "recorded": 1.0, "found": 2.0, "ok": False}]}, "lists what is not"),
    ],
)
def test_verifications_are_read_strictly(folder, change, says):
    import hashlib

    value = json.loads(verification(folder).model_dump_json()) | change
    content = json.dumps(value).encode()
    path = folder / f"verification-1-20260304T050607Z-{hashlib.sha256(content).hexdigest()[:8]}.json"
    path.write_bytes(content)
    with pytest.raises(GenbenchError, match=says):
        read_verification(path)


HOLLOW = {
    "nothing at all": (3, {"findings": [], "scores": []}, "nothing found of checkpoint, model, record, retrained"),
    "a checkpoint that nobody looked at": (2, {"findings": [Finding(what="record", ok=True)]}, "nothing found of checkpoint, model"),
    "scores of the stored samples alone": (2, {"scores": [compared("stored samples")]}, "no score found as recorded"),
    "scores that nobody judged": (2, {"scores": [compared("fresh seed", None)]}, "no score found as recorded"),
    "no fresh seed": (2, {"fresh_seed": None}, "no fresh seed"),
    "no training": (3, {"retrained_seeds": []}, "no value for each retrained seed"),
    "trainings without values": (3, {"retrained_seeds": [8, 9]}, "no value for each retrained seed"),
}


@pytest.mark.parametrize("what", HOLLOW)
def test_a_verification_holds_what_its_tier_takes(folder, what):
    tier, changes, says = HOLLOW[what]
    path = write_verification(folder, verification(folder, tier, **changes))
    with pytest.raises(GenbenchError, match=f"says that it reached tier {tier}: {says}"):
        read_verification(path)
    assert tier_of(folder) == 0
    write_verification(folder, verification(folder, tier))
    assert tier_of(folder) == tier


def test_no_tier_beyond_the_first_without_the_score_that_the_track_ranks_by(folder):
    write_verification(folder, verification(folder, 2, scores=[compared("fresh seed", score="recall"), compared("fresh seed", None)]))
    assert tier_of(folder) == 0
    same = [*verification(folder, 2).findings, Finding(what="recorded seed", ok=True, detail="every pixel is as recorded")]
    write_verification(folder, verification(folder, 2, findings=same, scores=[compared("stored samples")]))
    assert tier_of(folder) == 2  # the same pixels, hence the same scores


def test_what_differs_is_told_with_what_is_allowed(folder):
    scores = (
        Compared(score="fid", of="stored samples", recorded=6.0, found=8.5, tolerance=0.01, ok=False),
        Compared(score="kid", of="stored samples", recorded=None, found=2.0, ok=False, note="the record leaves it out"),
        Compared(score="is", of="fresh seed", recorded=2.0, found=2.1, ok=None),
    )
    one = verification(folder, ok=False, scores=scores, findings=[Finding(what="curve", ok=None, detail="not kept")])
    assert one.differs == [
        "fid of stored samples: recorded 6, found 8.5, +2.5 where 0.01 is allowed",
        "kid of stored samples: recorded nothing, found 2 (the record leaves it out)",
    ]
    assert one.unchecked == ["curve: not kept"]
