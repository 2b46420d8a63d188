# What the runs end in: scores, tables, pages, and the files that a whole run makes.
import importlib.resources
from pathlib import Path

from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.watch import is_listed, listing_path
from wsss.config.base import with_supervision
from wsss.config.errors import ConfigError
from wsss.config.paths import expand_path
from wsss.photos.record import is_complete
from wsss.pipeline.products import SCORED
from wsss.score.papers.table import load_table
from wsss.score.product import PRODUCTS
from wsss.score.truth.find import truth_files


def shown(product):
    """The shards of a product that a contact sheet shows."""
    return lambda wildcards: RUNS.shown(wildcards.run, wildcards.split).get(product, [])


def pngs(run):
    """The listings of a run's folders of PNGs."""
    settings = RUNS[run].config
    products = [("masks", split) for split in settings.cam_splits]
    products += [("seeds", "train")] if settings.needs_seeds else []
    folders = [
        Path(f"{RUNS.folder(product, run)}/{split}/png/{part}-of-{settings.shards}")
        for product, split in products
        for part in range(1, settings.shards + 1)
    ]
    for folder in folders:
        force_unless(is_listed, listing_path(folder), folder)
    return [str(listing_path(folder)) for folder in folders]


def page_assets(package="wsss.score.page"):
    """Digest of what a page consists of next to its data; no module, so code lacks it."""
    folder = importlib.resources.files(package) / "assets"
    return digest_json([digest_file(path) for path in sorted(folder.iterdir())])


def gallery_shards(wildcards):
    """The shards that the gallery of the job's run shows, by product."""
    return {
        product: [
            path
            for split in of_run(wildcards).cam_splits
            for path in RUNS.shards(product, wildcards.run, split)
        ]
        for product in ("masks", "cams")
    }


def page_shards(wildcards):
    """The shards that a result page shows, by product."""
    shards_by_product = {}
    for split in page_splits(wildcards):
        for product in RUNS.on_page(wildcards.run, split):
            paths = shards_by_product.setdefault(product, [])
            paths += RUNS.shards(product, wildcards.run, split)
    return shards_by_product


def page_splits(wildcards):
    """The splits of a result page."""
    return ["train", "val"] if of_run(wildcards).data.val_list else ["train"]


def page_records(wildcards):
    """The records that a result page shows; none without a truth."""
    return scored_of(wildcards) if of_run(wildcards).data.has_truth else []


def counts_of_page(wildcards):
    """The counts per image next to them."""
    return counts_of(wildcards) if of_run(wildcards).data.has_truth else []


def drawn_truth_of_page(wildcards):
    """The masks of COCO that are drawn before the page."""
    data = of_run(wildcards).data
    files = (truth_files(data, split) for split in page_splits(wildcards))
    return [str(path) for paths in files for path in paths]


def final_products(wildcards):
    """The last products of this configuration."""
    products = [
        product
        for run in RUNS.final
        for product in (*RUNS.last_products(run), *watched_products(run))
    ]
    return products + RUNS.overviews


def watched_products(run):
    """Files that no rule asks for by name; here Snakemake looks whether they are there."""
    settings = RUNS[run].config
    products = [*pngs(run), f"{RUNS.manifest_folder(run)}/classes.json"]
    if settings.data.kind == "demo":
        products += [demo_record(settings.data)]
    if settings.data.kind == "folder":
        record = Path(f"results/{run}/gallery.json")
        force_unless(is_complete, record, record)
    if settings.data.has_truth:
        records = map(Path, RUNS.records(run).values())
        products += [str(path.with_suffix(".images.h5")) for path in records]
    return products


PRODUCT_OF_FILE = {PRODUCTS[product].file: product for product in SCORED}


def scored(wildcards):
    """The product that a file of records scores."""
    return PRODUCT_OF_FILE[wildcards.file]


def scored_shards(wildcards):
    """Its shards; the blob, which ignores the image, has none."""
    product = scored(wildcards)
    return shards(SCORED[product])(wildcards) if PRODUCTS[product].shards else []


def scored_stage(wildcards):
    """The stage that scores it."""
    return f"score_{scored(wildcards)}"


def scored_sections(wildcards):
    """The configuration values that scoring it reads."""
    return sections(scored_stage(wildcards))(wildcards)


def loss_title(wildcards):
    """What stands above a loss curve: that pixel labels taught it, if they did."""
    settings = of_run(wildcards)
    kind = settings.supervision
    if settings.retrain.corrected and wildcards.product == "segmenter":
        kind = "mixed"
    title = with_supervision(wildcards.run, kind)
    return ["--title", title] if kind != "tags" else []


def workers_of_score(wildcards):
    """One for the demo, whose few images are counted while a process starts."""
    return 1 if of_run(wildcards).data.kind == "demo" else LOCAL_WORKERS


def scored_of(wildcards):
    """The records of the job's run."""
    return list(RUNS.records(wildcards.run).values())


def counts_of(wildcards):
    """The counts per image next to the records of the job's run."""
    return [
        str(Path(record).with_suffix(".images.h5")) for record in scored_of(wildcards)
    ]


def scored_of_all(wildcards):
    """The records of all runs that are compared."""
    return list(
        dict.fromkeys(record for run in MANY for record in RUNS.records(run).values())
    )


def rows_of_all(wildcards):
    """The records of each run that is compared."""
    return {
        run.removeprefix(f"{CONFIG.name}/"): list(RUNS.records(run).values())
        for run in MANY
    }


def table_files(name):
    """The files behind the cells of each row."""
    try:
        return RUNS.table_files(TABLES[name])
    except ConfigError as error:
        stop(error)


def table_lists(table):
    """The lists of images over which columns of a table are taken."""
    columns = table.columns.values()
    return [str(expand_path(column.images)) for column in columns if column.images]


def table_bars(name, table):
    """The bars of a table that shows each class."""
    if not table.class_columns:
        return []
    caption = "../report/paper_bars.rst"
    labels = {"table": name, "what": "IoU per class"}
    kind = {"caption": caption, "category": "Tables of papers", "labels": labels}
    bars = report(f"results/tables/{name}/{name}.png", **kind)
    return [bars]


def handed_over(product):
    """What the first job of a prediction hands to the second one."""

    def file(wildcards):
        path = Path(
            f"results/{wildcards.run}/{product}/{wildcards.split}/{wildcards.part}.planes"
        )
        # Where a run without GPUs was interrupted, the first job did nothing.
        is_empty = path.is_file() and not path.stat().st_size
        if APART and workflow.is_main_process and is_empty and awaits_crf(path):
            force(path)
        return str(path)

    return file


def awaits_crf(planes):
    """Whether the shard that is made from planes is older than they are, or not there."""
    shard = planes.with_suffix(".h5")
    return not shard.exists() or shard.stat().st_mtime < planes.stat().st_mtime


def take_planes(wildcards, input):
    """The option of a job that goes on from what a network's job handed over."""
    return f"--planes {input.planes}" if APART else ""


def threads_of_network(section):
    """Threads of the first job of a prediction, whose CRFs are elsewhere but for many labels."""

    def threads(wildcards):
        settings = of_run(wildcards)
        may_have_many = settings.data.kind in ("coco", "folder")
        is_all = getattr(settings, section).crf_labels == "all"
        return CONFIG.compute.workers if APART and may_have_many and is_all else 1

    return threads
