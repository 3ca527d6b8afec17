from __future__ import annotations

import csv
import hashlib
import html.parser
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genbench.errors import GenbenchError
from genbench.leaderboard import build, read_rows, render, schemas
from genbench.leaderboard.aggregate import read
from genbench.leaderboard.text import stem
from genbench.track import load_track, shipped_tracks
from genbench.verification import write_verification
from tests.test_verification import verification


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Elements(html.parser.HTMLParser):
    """Every tag with its attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.shown.append(data)


def test_everything_is_written_and_said(tmp_path, make):
    out = tmp_path / "out"
    written = build(make.write(tmp_path / "results", *make.full(), grids=True), out)
    assert sorted(path.relative_to(out).as_posix() for path in written) == sorted(digests(out))
    names = set(digests(out))
    assert {"README.md", "mnist-3m.md", "mnist-3m.csv", "mnist-3m.json", "mnist-3m.tex", "records.schema.json"} <= names
    assert {f"site/{name}" for name in ("index.html", "protocol.html", "mnist-3m.html", "assets/site.css", "assets/site.js")} <= names
    assert sum(name.startswith("site/models/") for name in names) == 10  # one a row, controls too
    page = Elements((out / "site" / "mnist-3m.html").read_text())
    text = " ".join(" ".join(page.shown).split())
    for said in (
        "loss_D became nan at step 812",
        "can't allocate memory",
        "real-holdout",
        "genbench run wgan-gp --track",
        "--hp wgan-gp.width=48",
        "mnist, 32 × 32 pixels",
    ):
        assert said in text
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert all(attrs["alt"] for attrs in images)
    assert all((out / "site" / attrs["src"]).is_file() for attrs in images)
    assert sum(attrs["src"].endswith(".png") for attrs in images) == 10
    grid = next(attrs for attrs in images if "dcgan" in attrs["src"])
    assert (grid["width"], grid["height"]) == ("260", "260")  # 130 pixels, twice
    markdown = (out / "mnist-3m.md").read_text()
    assert re.search(r"\| \(1\)[^|]*\| dcgan \| gan \| 3/5 \|.*\| 96\.18 \| \*\*96\*\* ± 11 ", markdown)
    assert "| – | sn-gan (1 done, 1 diverged, 1 oom) | gan | 1/5 |" in markdown
    assert "| *noise* |" in markdown
    for path in re.findall(r'(?:\]\(|src=")(site/[^)"]+)', markdown):
        assert (out / path).is_file()


def test_equal_records_give_equal_bytes(tmp_path, make):
    records = make.full()
    one = make.write(tmp_path / "one", *records, grids=True)
    two = make.write(tmp_path / "elsewhere" / "two", *reversed(records), grids=True)
    build(one, tmp_path / "a")
    build(two, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_json_and_csv_round_trip(tmp_path, make):
    results = make.write(tmp_path / "results", *make.full())
    out = tmp_path / "out"
    build(results, out)
    content = json.loads((out / "mnist-3m.json").read_text())
    (table,) = content["tables"]
    assert table["rows"] == json.loads(json.dumps(read_rows(results, "mnist-3m")))
    lines = list(csv.DictReader(io.StringIO((out / "mnist-3m.csv").read_text())))
    assert [line["label"] for line in lines] == [row["label"] for row in table["rows"]]
    for line, row in zip(lines, table["rows"], strict=True):
        for key, cell in row["scores"].items():
            assert line[key] == ("" if cell["mean"] is None else str(cell["mean"]))
            assert line[f"{key}_ci95"] == ("" if cell["half_width_95"] is None else str(cell["half_width_95"]))
    sn_gan = next(row for row in table["rows"] if row["label"] == "sn-gan")
    assert sn_gan["scores"]["fid"]["by_seed"] == {"0": 120.0, "1": None, "2": None}
    assert sn_gan["scores"]["fid"]["median"] is None
    assert [run["status"] for run in sn_gan["runs"]] == ["done", "diverged", "oom"]


def test_how_far_a_row_was_verified_stands_in_every_form(tmp_path, make):
    results, out = make.write(tmp_path / "results", *make.full()), tmp_path / "out"
    for name, seeds, by in (("dcgan", 3, "self"), ("vae", 3, "A. Reader"), ("gan", 2, "self")):
        for folder in sorted((results / "runs" / "mnist-3m" / name).iterdir())[:seeds]:
            write_verification(folder, verification(folder, 2, by=by))
    build(results, out)
    expected = {"dcgan": "T2 (self)", "vae": "T2", "gan": "T0"}  # a row is what its least verified run is
    rows = {row["label"]: row["tier"] for row in json.loads((out / "mnist-3m.json").read_text())["tables"][0]["rows"]}
    lines = {line["label"]: line["tier"] for line in csv.DictReader(io.StringIO((out / "mnist-3m.csv").read_text()))}
    markdown, page = (out / "mnist-3m.md").read_text(), (out / "site" / "mnist-3m.html").read_text()
    for label, tier in expected.items():
        assert (rows[label], lines[label]) == (tier, tier)
        assert re.search(rf"\| {label} \| \w+ \| 3/5 \| {re.escape(tier)} \|", markdown)
    assert "**tier**: how far the row was verified: T0 reported" in markdown
    assert page.count('<span class="under">T2 (self)</span>') == page.count('<th scope="row" data-sort="dcgan">') == 4  # once a table
    assert "dcgan T2 (self); vae T2; the others T0." in (out / "mnist-3m.tex").read_text()


def test_a_measure_that_nobody_could_compute_is_no_column_but_keeps_its_reason(tmp_path, make):
    nothing = make.score("fid_infinity", None, note="needs at least 72 images")
    results = make.write(tmp_path / "results", make.record("a", 0, 1.0, scores=[nothing]))
    build(results, tmp_path / "out")
    (row,) = read_rows(results)
    assert row["scores"]["fid_infinity"]["mean"] is None
    assert row["scores"]["fid_infinity"]["note"] == "needs at least 72 images"
    assert "FID∞" not in (tmp_path / "out" / "site" / "mnist-3m.html").read_text()


def test_rows_of_one_track_only(tmp_path, make):
    other = make.track(name="mnist-60s", budget="60s")
    results = make.write(tmp_path, make.record("a", 0, 1.0), make.record("b", 0, 2.0, the_track=other))
    assert [row["label"] for row in read_rows(results)] == ["b", "a"]  # the shorter budget first
    assert [row["label"] for row in read_rows(results, "mnist-3m")] == ["a"]
    assert read_rows(results, "no-such-track") == []


def test_hostile_names_are_harmless(tmp_path, make):
    track = make.track(description='</p><script>alert("d")</script>', dataset="folder:</title><script>x")
    records = []
    for position, name in enumerate(make.hostile):
        changed = {"width": position, "mode": name}
        records.append(
            make.record(
                name, 0, 10.0 + position, the_track=track, changed=changed, flags=[name], source=name, curve=make.falling(20.0 + position)
            )
        )
        records.append(
            make.record(
                name, 1, the_track=track, changed=changed, status="error", reason=name, log_tail=[name, "</pre><script>alert(2)</script>"]
            )
        )
    records.append(
        make.record("=1+1|calc", 0, 1.0, family="control", the_track=track, scores=[make.score("<img src=x onerror=alert(3)>", 1.0)])
    )
    out = tmp_path / "out"
    written = build(make.write(tmp_path / "results", *records, grids=True), out)
    assert all(path.resolve().is_relative_to(out.resolve()) for path in written)
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]+", part) for path in written for part in path.relative_to(out).parts)
    pages = sorted((out / "site").rglob("*.html"))
    assert len(pages) == 3 + 2 * len(make.hostile) + 1  # the failures' sources differ, so theirs are rows of their own
    for path in pages:
        page = Elements(path.read_text())
        assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
        assert all(re.fullmatch(r"(\.\./)?img/[\w.=-]+", attrs["src"]) for tag, attrs in page.tags if tag == "img")
        assert [attrs["src"].removeprefix("../") for tag, attrs in page.tags if tag == "script"] == ["assets/site.js"]
        links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
        assert not [link for link in links if not re.fullmatch(r"https://arxiv\.org/abs/[\d.v]+|#\w+|[\w./=-]+(#\w+)?", link)]
        targets = [path.parent / link.partition("#")[0] for link in links if not link.startswith(("https:", "#"))]
        assert all(target.is_file() for target in targets)
        assert not [character for character in path.read_text() if character in "\u202e\x00"]
    for cell in (cell for line in csv.reader(io.StringIO((out / "mnist-3m.csv").read_text())) for cell in line):
        assert not cell.startswith(("=", "@", "+", "\t"))
    for file in ("README.md", "mnist-3m.md"):
        # outside code blocks no tag but ours, no link but ours
        text = re.sub(r"(?s)(`{3,})sh\n.*?\n\1", "", (out / file).read_text())
        assert not re.search(
            r"(?<!\\)<(?!/?details>|/?summary>|/?sup>|img src=\"site/img/[\w.=-]+\" width=\"220\" alt=\"[^\"<>]*\">)", text
        )
        assert not re.search(r"(?<!\\)\]\(http", text)
        assert "\u202e" not in text
    json.loads((out / "mnist-3m.json").read_text())


def test_pages_forbid_the_network_and_what_is_written_into_them(tmp_path, make):
    build(make.write(tmp_path / "results", make.record("a", 0, 1.0)), tmp_path / "out")
    pages = sorted((tmp_path / "out" / "site").rglob("*.html"))
    assert len(pages) == 4
    for path in pages:
        text = path.read_text()
        page = Elements(text)
        policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy
        assert not re.search(r"<style|<script(?! src=\"(\.\./)?assets/site\.js\" defer></script>)", text)
        assert not [attrs for _, attrs in page.tags if "style" in attrs]
        fetched = [attrs.get(key) for tag, attrs in page.tags if tag not in ("a",) for key in ("src", "href", "srcset") if key in attrs]
        assert not [address for address in fetched if "//" in address]


def test_missing_and_damaged_grids_are_said(tmp_path, make):
    results = make.write(
        tmp_path / "results", make.record("a", 0, 1.0), make.record("b", 0, 2.0), make.record("c", 0, status="timeout", reason="too slow")
    )
    damaged = next((results / "runs" / "mnist-3m" / "b").iterdir()) / "grid.png"
    damaged.write_bytes(b"<svg onload=alert(1)>")
    build(results, tmp_path / "out")
    text = " ".join((tmp_path / "out" / "site" / "mnist-3m.html").read_text().split())
    assert "a (no grid beside its record), b (the grid beside its record is damaged), c (no run finished)." in text
    assert not list((tmp_path / "out" / "site").rglob("*.png"))


def test_protocol_mixture_is_footnoted(tmp_path, make):
    records = [make.record("a", 0, 1.0), make.record("c", 0, 3.0), make.record("b", 0, 2.0, protocol="bbbb2222")]
    build(make.write(tmp_path / "results", *records), tmp_path / "out")
    markdown = (tmp_path / "out" / "mnist-3m.md").read_text()
    assert "| – | b | gan | 1/5 | T0 | 2.000<sup>a</sup> |" in markdown
    assert "<sup>a</sup> FID (mnist-cnn): measured under protocol bbbb2222" in markdown
    assert not re.search(r"1/5 \| T0 \| \*\*", markdown)  # the mixed column is not bold


def test_a_track_of_ones_own_comes_with_its_file(tmp_path, make):
    build(make.write(tmp_path / "results", make.record("a", 0, 1.0, the_track=make.track(name="mine", budget="9m"))), tmp_path / "out")
    file = f"mine-{make.track(name='mine', budget='9m').hash}.toml"
    assert load_track(tmp_path / "out" / file) == make.track(name="mine", budget="9m")
    markdown = (tmp_path / "out" / "mine.md").read_text()
    assert f"--track {file}" in markdown
    assert f"[{file}]({file})" in markdown


def test_tracks_of_one_name_that_fix_different_things_have_a_file_each(tmp_path, make):
    shipped = next(track for track in shipped_tracks() if track.name == "mnist-3m")
    mine, longer = make.track(name="mine"), make.track(name="mine", budget="9m")
    changed = shipped.model_copy(update={"num_samples": 64})
    chosen = {"a": mine, "b": longer, "c": shipped, "d": changed}
    records = [make.record(name, 0, 1.0, the_track=track) for name, track in chosen.items()]
    records += [make.record(f"more-{n}", 0, 2.0, the_track=track) for n in range(2) for track in (mine, shipped)]
    out = tmp_path / "out"
    build(make.write(tmp_path / "results", *records), out)
    assert {path.name for path in out.glob("*.toml")} == {f"{track.name}-{track.hash}.toml" for track in (mine, longer, changed)}
    recipes = {row["label"]: shlex.split(row["reproduce"]) for file in ("mine", "mnist-3m") for row in rows_of(out / f"{file}.json")}
    for name, track in chosen.items():
        asked = recipes[name][recipes[name].index("--track") + 1]
        assert asked == "mnist-3m" if name == "c" else load_track(out / asked) == track
        (page,) = (out / "site" / "models").glob(f"{name}-*.html")
        links = {attrs["href"] for tag, attrs in Elements(page.read_text()).tags if tag == "a" and attrs["href"].endswith(".toml")}
        assert links == ({f"../../{asked}"} if name != "c" else set())
    for file, count in (("mine", 2), ("mnist-3m", 1)):
        page = Elements((out / "site" / f"{file}.html").read_text())
        linked = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs["href"].endswith(".toml")]
        assert len(linked) == count
        assert all((out / "site" / href).is_file() for href in linked)


def rows_of(path):
    return [row for table in json.loads(path.read_text())["tables"] for row in table["rows"]]


def test_a_long_command_stands_whole_in_the_csv(tmp_path, make):
    changed = {f"hparam_{n}": "x" * 50 for n in range(20)}
    results, out = make.write(tmp_path / "results", make.record("a", 0, 1.0, changed=changed)), tmp_path / "out"
    build(results, out)
    (line,) = csv.DictReader(io.StringIO((out / "mnist-3m.csv").read_text()))
    (row,) = read_rows(results)
    assert line["reproduce"] == row["reproduce"]
    assert len(row["reproduce"]) > 1000
    assert "…" not in row["reproduce"]


def test_a_hash_that_nobody_checked_is_as_harmless_as_a_name(tmp_path, make):
    records = []
    for name, track_hash in (("a", "x"), ("b", "|<i>\u202e\n# $\\today{[l](http://x)")):
        one = make.record(name, 0, 1.0)
        records.append(one.model_copy(update={"spec": one.spec.model_copy(update={"track_hash": track_hash})}))
    out = tmp_path / "out"
    build(make.write(tmp_path / "results", *records), out)
    for file in ("README.md", "mnist-3m.md"):
        text = (out / file).read_text()
        assert text.count(r"\|\<i\> \# \$\\today\{\[l\](") == (1 if file == "README.md" else 2)
        assert not re.search(r"<i>|(?<!\\)\]\(http|\u202e", text.replace(r"\<i\>", ""))
    for path in (out / "site").rglob("*.html"):
        text = path.read_text()
        assert "i" not in {tag for tag, _ in Elements(text).tags}
        assert "\u202e" not in text
    assert "&lt;i&gt; #" in (out / "site" / "mnist-3m.html").read_text()
    latex = (out / "mnist-3m.tex").read_text()
    assert r"track hash \textbar{}\textless{}i\textgreater{} \# \$\textbackslash{}today\{" in latex
    assert r"\today" not in latex


def test_names_of_a_builds_own_files_are_no_tracks(tmp_path, make):
    tracks = [make.track(name=f"zz{n}", dataset=f"d{n}", target=20.0) for n in range(6)]
    records = [make.record(name, 0, fid, the_track=track) for track in tracks for name, fid in (("a", 1.0), ("b", 2.0))]
    out = tmp_path / "out"
    written = build(make.write(tmp_path / "results", *records, grids=True), out)
    parts = {part for path in written for part in path.relative_to(out).parts if not re.match(r"zz\d|across-\d|[ab]-", part)}
    own = {part.lower().rsplit(".", 1)[0] for part in parts}
    assert {"readme", "across", "index", "protocol", "models", "img", "assets", "site", "tables.schema"} <= own
    assert not [name for name in own if stem(name) == name]
    clash = [make.record("a", 0, 1.0, the_track=make.track(name=name)) for name in sorted(own)]
    again = build(make.write(tmp_path / "clash", *clash), tmp_path / "clashed")
    assert len(set(again)) == len(again)
    assert "What the numbers mean" in (tmp_path / "clashed" / "site" / "protocol.html").read_text()
    assert {path.name for path in again} >= {f"{stem(name)}.html" for name in own}


def test_the_json_is_what_its_schemas_say(tmp_path, make):
    tracks = [make.track(name=f"t{n}", dataset=f"d{n}", target=20.0) for n in range(6)]
    records = make.full()
    for track in tracks:
        curve = make.falling(5.0)
        records += [make.record(name, seed, 5.0 + n + seed, the_track=track, curve=curve) for n, name in enumerate("ab") for seed in (0, 1)]
    records.append(make.record("a", 0, 1.0, the_track=make.track(name="mine", published={"a": {"fid": (0.5, 2.0)}}, rank_by="absent")))
    out = tmp_path / "out"
    build(make.write(tmp_path / "results", *records), out)
    files = {"across.json": "across", **{f"{name}.json": "tables" for name in ("mnist-3m", "mine", "t0")}}
    for file, name in files.items():
        schemas.PUBLISHED[name].model_validate_json((out / file).read_text(), strict=True)
        schema = json.loads((out / f"{name}.schema.json").read_text())
        assert schema["required"] == list(schema["properties"])
    across = json.loads((out / "across.json").read_text())["across"]
    assert [one["friedman"] is not None for one in across] == [True]
    jsonschema = pytest.importorskip("jsonschema")
    for file, name in files.items():
        checker = jsonschema.Draft202012Validator(json.loads((out / f"{name}.schema.json").read_text()))
        content = json.loads((out / file).read_text())
        checker.validate(content)
        content["unheard-of"] = 1
        assert not checker.is_valid(content)
    for path in (tmp_path / "results").rglob("record.json"):
        jsonschema.validate(json.loads(path.read_text()), json.loads((out / "records.schema.json").read_text()))


def test_several_tables_of_one_track_stand_apart_on_its_page(tmp_path, make):
    records = [make.record("a", 0, 1.0), make.record("b", 0, 2.0), make.record("c", 0, 3.0, the_track=make.track(budget="5m"))]
    build(make.write(tmp_path / "results", *records), tmp_path / "out")
    page = (tmp_path / "out" / "site" / "mnist-3m.html").read_text()
    for track_hash in (make.track().hash, make.track(budget="5m").hash):
        assert f"Track {track_hash} on cpu-2" in page
    assert len(json.loads((tmp_path / "out" / "mnist-3m.json").read_text())["tables"]) == 2


def test_an_unwritable_folder_is_one_line(tmp_path, make):
    results = make.write(tmp_path / "results", make.record("a", 0, 1.0))
    (tmp_path / "file").write_text("")
    with pytest.raises(GenbenchError, match="can't be written"):
        build(results, tmp_path / "file")


def test_a_record_that_is_set_aside_while_tables_are_built_is_as_it_was_read(tmp_path, make, monkeypatch):
    results = make.write(tmp_path / "results", make.record("a", 0, 1.0), make.record("b", 0, 2.0), grids=True)
    build(results, tmp_path / "before")

    def read_and_lose(folders):
        found = read(folders)
        for path in results.rglob("record.json"):
            path.replace(path.with_name("failed.json"))
        return found

    monkeypatch.setattr(render, "read", read_and_lose)
    build(results, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "before")


def test_the_spread_of_a_large_count_has_its_unit_in_every_form(tmp_path, make):
    records = []
    for seed, steps in enumerate((16_200, 17_300)):
        one = make.record("a", seed, 1.0 + seed)
        records.append(one.model_copy(update={"spent": one.spent.model_copy(update={"steps": steps})}))
    out = tmp_path / "out"
    build(make.write(tmp_path / "results", *records), out)
    assert "| 16.8\u202fk ± 7.0\u202fk |" in (out / "mnist-3m.md").read_text()
    assert '16.8\u202fk<span class="under">± 7.0\u202fk</span>' in (out / "site" / "mnist-3m.html").read_text()
    (page,) = (out / "site" / "models").iterdir()
    assert "<td>16.8\u202fk</td><td>7.0\u202fk</td>" in page.read_text()


def test_no_torch_is_imported(tmp_path, make):
    results = make.write(tmp_path / "results", *make.full(1))
    code = (
        "import sys; from pathlib import Path; from genbench.leaderboard import build, read_rows, terminal\n"
        f"results, out = Path({str(results)!r}), Path({str(tmp_path / 'out')!r})\n"
        "build(results, out); read_rows(results); terminal(results)\n"
        "print([name for name in ('torch', 'torchvision', 'torch_fidelity', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_further_measures_stand_in_sections_with_the_rows_that_have_them(tmp_path, make):
    copies = [make.score("exact_copies", 0.25, floor=0.01, extractor=None), make.score("auth_pct", 31.0, "neither", floor=62.0)]
    bound = make.score("elbo_bpd", 1.75, extractor=None)
    agreement = make.score("label_agreement", 0.875, "higher", floor=0.996)
    build(
        make.write(
            tmp_path / "results",
            make.record("gan-a", 0, 10.0, scores=copies),
            make.record("vae-b", 0, 11.0, family="vae", scores=[*copies, bound]),
            make.record("cgan-c", 0, 12.0, scores=[*copies, agreement], flags=["conditional"], prior="GMM(20)"),
        ),
        tmp_path / "out",
    )
    text = (tmp_path / "out" / "mnist-3m.md").read_text()
    parts = dict(re.findall(r"<details><summary>(.*?)</summary>(.*?)</details>", text, re.DOTALL))
    assert list(parts) == ["Images on request", "Memorisation", "Likelihood and reconstruction", "Budget and memory"]
    ranking = text[: text.index("<details>")]
    assert "0.875" not in ranking
    assert "| gan, conditional, prior GMM(20) |" in ranking  # the badge
    rows = {name: [line for line in part.splitlines() if line.startswith("|")] for name, part in parts.items()}
    assert len(rows["Memorisation"]) == 2 + 3 + 1
    assert "*real data (holdout, equal N)*" in rows["Memorisation"][-1]
    assert "0.010 | 62.00" in rows["Memorisation"][-1]
    assert [line.split(" | ")[1] for line in rows["Likelihood and reconstruction"][2:]] == ["vae-b"]
    assert [line.split(" | ")[1] for line in rows["Images on request"][2:]] == ["cgan-c", "*real data (holdout, equal N)*"]
    page = (tmp_path / "out" / "site" / "mnist-3m.html").read_text()
    titles = re.findall(r"<details><summary>(.*?)</summary>", page)
    assert titles[:4] == list(parts)
    assert page.count("holdout, equal N") == 2
