"""Tier 1: every score, computed anew from the stored samples."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.arrays import read_drawn
from genbench.errors import GenbenchError
from genbench.verification import Finding
from genbench.verify.subject import Subject, Told, compare, score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def recompute(subject: Subject, told: Told, *, needed: bool) -> dict[str, NDArray[Any]] | None:
    """Every score that the stored samples give, against the recorded one; returns the samples. Raises GenbenchError where `needed` and
    not there."""
    record, path = subject.record, subject.folder / "samples.npz"
    if not path.exists():
        if needed:
            raise GenbenchError(f"{subject.folder} holds no samples.npz to recompute scores from; fetch it, or use --tier 2")
        told.findings.append(Finding(what="samples", ok=None, detail="no samples.npz beside the record"))
        return None
    try:
        arrays, digest = read_drawn(path, record.spec.track.num_samples, record.spec.track.size)
    except GenbenchError as error:
        told.findings.append(Finding(what="samples", ok=False, detail=str(error).replace(str(path), path.name)))
        return None
    same = digest == record.digests.get("samples")
    detail = f"{len(arrays['images'])} images, digest as recorded" if same else "not what was drawn: another digest than the record's"
    told.findings.append(Finding(what="samples", ok=same, detail=detail))
    told.findings.append(_grid(subject.folder / "grid.png", arrays["images"]))
    subject.tell(f"scoring the {len(arrays['images'])} stored samples")
    scored = score(subject, subject.work / "stored", arrays, record.spec)
    told.scores += compare(record, scored.scores, "stored samples")
    missing = sorted(set(scored.flags) - set(record.flags))
    told.findings.append(
        Finding(what="flags", ok=not missing, detail=f"the record leaves out: {', '.join(missing)}" if missing else "as recorded")
    )
    if record.extractor_accuracy != scored.extractor_accuracy:
        detail = f"recorded {record.extractor_accuracy}, here {scored.extractor_accuracy}"
        told.findings.append(Finding(what="extractor's accuracy", ok=False, detail=detail))
    told.findings.append(
        Finding(what="curve", ok=None, detail="FID along the way and timings can't be recomputed: only the final samples are kept")
    )
    return arrays if same else None


def _grid(path: Path, images: NDArray[np.uint8]) -> Finding:
    """Whether the sheet shows the first of the samples."""
    import numpy as np
    from PIL import Image

    from genbench.grid import check_png, grid_png

    if not path.exists():
        return Finding(what="grid.png", ok=None, detail="not beside the record")
    expected = np.asarray(Image.open(io.BytesIO(grid_png(images))))
    try:
        width, height = check_png(path)
        same = (height, width) == expected.shape[:2] and np.array_equal(np.asarray(Image.open(path, formats=("PNG",))), expected)
    except (GenbenchError, OSError, SyntaxError, ValueError) as error:
        return Finding(what="grid.png", ok=False, detail=str(error).replace(str(path), path.name)[:200])
    return Finding(what="grid.png", ok=same, detail="shows the first samples" if same else "shows other images than the samples")
