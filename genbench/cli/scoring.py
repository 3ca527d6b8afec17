"""Commands on images and what scores them: evaluate, extractor train."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from genbench.cli.options import Json, Weights, console_for


def evaluate_command(
    samples: Annotated[Path, typer.Argument(help="Folder, zip, npz or npy of images, or a run's folder or record.json.")],
    reference: Annotated[
        str,
        typer.Option(
            help="What they are compared with: a dataset (its test images, where no split is named); folder:PATH or zip:PATH, or just a"
            " path, for all images there (with :train or :test for a part of them); or an npz of mu and sigma. A run's own by default.",
            metavar="DATASET[:SPLIT]|PATH",
            show_default=False,
        ),
    ] = "",
    extractor: Annotated[
        str,
        typer.Option(
            "-x", "--extractor", help="Network for FID and its kin; by default one that knows the reference's classes, or Inception."
        ),
    ] = "",
    metrics: Annotated[list[str] | None, typer.Option("-m", "--metric", help="Only these; may be repeated.")] = None,
    allow_lossy: Annotated[bool, typer.Option(help="Accept JPEG samples; their compression moves every score.")] = False,
    resize: Annotated[
        int | None,
        typer.Option(min=4, help="Reduce images of any size to SIZE x SIZE: area means of the centre square.", metavar="SIZE"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the metrics' random subsets; 0, or a run's own, by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Score images you already have."""
    from genbench import report
    from genbench.evaluate import evaluate
    from genbench.score import unseen

    with _nothing(unseen) if as_json else report.steps(console_for(stderr=True)) as show:
        found = evaluate(
            samples, reference, extractor=extractor, metrics=metrics, allow_lossy=allow_lossy, resize=resize, seed=seed, device=device,
            weights=weights, show=show,
        )  # fmt: skip
    if as_json:
        print(json.dumps([score.model_dump(mode="json") for scores in found.scores.values() for score in scores], indent=1))
        return
    console = console_for()
    console.print(report.sheet(found, console.width), soft_wrap=True)


def extractor_command(
    dataset: Annotated[str, typer.Argument(help="Dataset with labels.")],
    out: Annotated[Path, typer.Option(help="File for the weights (safetensors).")],
    size: Annotated[int | None, typer.Option(help="Image size; the dataset's track size by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of initialisation, order and augmentation.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
) -> None:
    """Train the in-domain classifier of a dataset by the recipe the shipped ones were made with."""
    from genbench.datasets.prepare import prepare, resolve
    from genbench.extractors.recipe import train_cnn
    from genbench.places import data_root
    from genbench.track import shipped_tracks

    sizes = [track.size for track in shipped_tracks() if track.dataset == dataset]
    data = prepare(dataset, size or (sizes[0] if sizes else resolve(dataset).native_size), data_root())

    def report(epoch: int, epochs: int, loss: float) -> None:
        print(f"epoch {epoch}/{epochs}: loss {loss:.4f}", file=sys.stderr)

    print(json.dumps(train_cnn(data, out, seed=seed, epochs=epochs, report=report), indent=1))


def _nothing(value: Any) -> Any:
    import contextlib

    return contextlib.nullcontext(value)
