"""`wsss export …`: results in the forms that others ask for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.options import ManifestDir

app = typer.Typer(help="Results in the forms that others ask for.", no_args_is_help=True)


class Protocol(StrEnum):
    """Label maps in shards of predictions."""

    single = "single"
    multi = "multi"
    single_crf = "single_crf"
    multi_crf = "multi_crf"


class Competition(StrEnum):
    """Competitions of VOC's segmentation."""

    comp5 = "comp5"
    comp6 = "comp6"


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
    protocol: Annotated[Protocol, typer.Option(help="Which label maps.")] = Protocol.multi_crf,
    competition: Annotated[
        Competition,
        typer.Option(help="comp6: trained on more than VOC (CLIP, ImageNet); comp5: on VOC alone."),
    ] = Competition.comp6,
) -> None:
    """Pack predictions of VOC's test images for its evaluation server.

    Every image of the list must be there once, of its image's size, with labels 0 … 20.
    """
    from wsss.score.submission import write_submission

    made = write_submission(
        shards,
        manifest,
        ids,
        out,
        protocol=protocol.value,
        competition="comp5" if competition == Competition.comp5 else "comp6",
    )
    typer.echo(str(made))
