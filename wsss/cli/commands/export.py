"""`wsss export …`: results in the forms that others ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wsss.cli.options import ManifestDir
from wsss.score.product import Protocol

if TYPE_CHECKING:
    from wsss.export.run import Form

app = typer.Typer(help="Export results for other programs.", no_args_is_help=True)
Run = Annotated[
    Path,
    typer.Argument(help="Results of a run that has masks, e.g. results/demo.", show_default=False),
]
Folder = Annotated[Path, typer.Option("--out", help="Folder to write; it must be new or empty.")]
Product = Annotated[
    Literal["label", "train"],
    typer.Option(help="label: a label for every pixel. train: 255 where the mask is unsure."),
]
WhichSplit = Annotated[
    Literal["train", "val", "all"],
    typer.Option(help="train, val, or all that have masks."),
]
Photos = Annotated[
    Literal["copy", "link", "none"],
    typer.Option("--photos", help="Copy the photos, link to them, or leave them out."),
]
Tolerance = Annotated[
    float,
    typer.Option(
        help="Pixels by which a polygon may differ from its mask. 0: not simplified.", min=0
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an older export.")]


@app.command()
def coco(
    run: Run,
    out: Folder,
    product: Product = "label",
    split: WhichSplit = "all",
    photos: Photos = "copy",
    polygons: Annotated[
        bool, typer.Option("--polygons", help="Write polygons, which are not exact.")
    ] = False,
    tolerance: Tolerance = 0.5,
    overwrite: Overwrite = False,
) -> None:
    """COCO: an instances JSON per split, exact as run lengths, and the photos."""
    options = {"polygons": polygons, "tolerance": tolerance, "photos": photos}
    _export("coco", run, out, product, split, overwrite, **options)


@app.command()
def label_studio(
    run: Run,
    out: Folder,
    product: Product = "label",
    split: WhichSplit = "all",
    photos: Photos = "copy",
    photo_root: Annotated[
        str,
        typer.Option(
            help="Address of the folder of photos. Default: that of Label Studio's local files."
        ),
    ] = "",
    overwrite: Overwrite = False,
) -> None:
    """Label Studio: tasks with brush masks as predictions, config.xml, and the photos."""
    options = {"photo_root": photo_root, "photos": photos}
    _export("label-studio", run, out, product, split, overwrite, **options)


@app.command()
def cvat(
    run: Run,
    out: Annotated[Path, typer.Option(help="Archive to write (.zip, added where missing).")],
    product: Product = "label",
    split: WhichSplit = "all",
    overwrite: Overwrite = False,
) -> None:
    """CVAT: an archive "Segmentation mask 1.1", to upload to a task that has the photos."""
    _export("cvat", run, out, product, split, overwrite)


@app.command()
def yolo(
    run: Run,
    out: Folder,
    product: Product = "label",
    split: WhichSplit = "all",
    photos: Photos = "copy",
    tolerance: Tolerance = 0.5,
    overwrite: Overwrite = False,
) -> None:
    """YOLO segmentation: data.yaml, labels as polygons, and the photos."""
    options = {"tolerance": tolerance, "photos": photos}
    _export("yolo", run, out, product, split, overwrite, **options)


@app.command()
def folder(
    run: Run,
    out: Folder,
    product: Product = "label",
    split: WhichSplit = "all",
    photos: Photos = "copy",
    overwrite: Overwrite = False,
) -> None:
    """Photos and index PNGs in parallel folders, with equal names, and a table of the classes."""
    _export("folder", run, out, product, split, overwrite, photos=photos)


def _export(
    form: Form,
    run: Path,
    out: Path,
    product: Literal["label", "train"],
    split: Literal["train", "val", "all"],
    overwrite: bool,
    **options: Any,
) -> None:
    from wsss.export.run import export
    from wsss.export.source import SPLITS, open_run
    from wsss.export.task import ExportTask

    task = ExportTask(open_run(run, product, SPLITS if split == "all" else (split,)), **options)
    typer.echo(str(export(form, task, out, overwrite=overwrite)))


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
    protocol: Annotated[
        Protocol, typer.Option(help="Protocol of the label maps to pack.")
    ] = "multi_crf",
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
