"""`wsss export …`: results in the forms that others ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsss.cli.options import ManifestDir
from wsss.score.product import Protocol

app = typer.Typer(help="Results in the forms that others ask for.", no_args_is_help=True)


@app.command()
def voc_submission(
    shards: Annotated[
        list[Path],
        typer.Argument(help="Prediction shards of the test images.", show_default=False),
    ],
    manifest: ManifestDir,
    ids: Annotated[
        Path,
        typer.Option(
            "--list", help="The test images: VOC's ImageSets/Segmentation/test.txt, 1456 ids."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Archive to write: .tgz, .tar.gz or .zip.")],
    protocol: Annotated[Protocol, typer.Option(help="Which label maps.")] = "multi_crf",
    competition: Annotated[
        Literal["comp5", "comp6"],
        typer.Option(help="comp6: trained on more than VOC (CLIP, ImageNet). comp5: on VOC alone."),
    ] = "comp6",
) -> None:
    """Pack predictions of VOC's test images for its evaluation server.

    Every image of the list must be there once, of its image's size, with labels 0 … 20.
    """
    from wsss.score.submission import write_submission

    submission = write_submission(
        shards, manifest, ids, out, protocol=protocol, competition=competition
    )
    typer.echo(str(submission))
