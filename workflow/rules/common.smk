# The configuration, typed, and what rules ask of it.
import atexit
import json
import re
import sys
import time
from pathlib import Path

# The package next to this Snakefile runs, here and in every job, whether or not one is installed.
sys.path.insert(0, workflow.basedir)

from wsss.pipeline.utf8 import ensure_utf8

ensure_utf8()

from wsss.pipeline.engine import job_container, prepare_jobs
from wsss.pipeline.engine_lock import remove_dead_locks
from wsss.pipeline.failures import explain_failure
from wsss.pipeline.slurm import queued_jobs_message
from wsss.pipeline.runs import SCORED, Runs, table_paths
from wsss.pipeline.stages import stage_code, stage_sections
from wsss.clip.text.knowledge import built_in
from wsss.config.errors import ConfigError
from wsss.config.paths import expand_path
from wsss.compute.device import local_gpus, require_cuda
from wsss.score.papers.table import load_table
from wsss.score.product import PRODUCTS
from wsss.score.truth.find import truth_files, truth_state


def stop(reason):
    """End the engine with one message; a WorkflowError would add frames of this file to it."""
    sys.exit(f"error: {reason}")


def failed_jobs():
    """Rule and log of each job that failed for good."""
    failed = workflow.scheduler.failed
    jobs = [job for one in failed for job in (one.jobs if one.is_group() else [one])]
    return [(job.rule.name, str(log)) for job in jobs for log in job.log]


STARTED = time.time()
prepare_jobs(Path(workflow.basedir))
if workflow.is_main_process and not workflow.output_settings.dryrun:
    if remove_dead_locks(Path.cwd()):
        print("An engine was killed here; its lock is removed.", file=sys.stderr)
CONTAINER = job_container()
# Tables of papers by name, each a rule.
TABLES = {
    path.stem: path
    for path in sorted(Path(workflow.basedir, "workflow/tables").glob("*.yaml"))
}
try:
    # The runs, by the wildcard `run`.
    RUNS = Runs(
        config, where="config.yaml (with what is laid over it)", tables=TABLES.values()
    )
except ConfigError as error:
    stop(error)
CONFIG = RUNS[RUNS.name].config
# Jobs run here with this interpreter, unless a cluster or an environment of their own is asked for.
HERE = not (
    workflow.resource_settings.nodes or workflow.deployment_settings.deployment_method
)
try:
    if HERE:
        require_cuda(CONFIG.compute.device)
except ValueError as error:
    raise WorkflowError(str(error)) from None
# GPUs of this machine, on which its jobs take turns. On a cluster (`--jobs`) the profile says which
# rules need a GPU, and the cluster assigns them.
GPUS = 0 if workflow.resource_settings.nodes else local_gpus(CONFIG.compute.device)
GPU = min(1, GPUS)
if GPUS and "gpu" not in workflow.resource_settings.resources:
    workflow.register_resource("gpu", GPUS)
MANY = [run for run in RUNS.final if run != CONFIG.name]


def product_file(product, file):
    """A file of a product."""
    return lambda wildcards: f"{RUNS.folder(product, wildcards.run)}/{file}"


manifest = product_file("manifest", "manifest.csv")


def test_manifest(wildcards):
    """The images of VOC's test server, which have no tags."""
    return f"results/{RUNS.producer('manifest', wildcards.run)}/test/manifest.csv"


def manifest_of(wildcards):
    """The manifest that has a split."""
    return (
        test_manifest(wildcards) if wildcards.split == "test" else manifest(wildcards)
    )


def test_list(wildcards):
    """The list of VOC's test images."""
    root = expand_path(of_run(wildcards).data.root)
    return str(root / "ImageSets" / "Segmentation" / "test.txt")


def shard(product):
    """The shard of a product that belongs to a job."""
    return (
        lambda wildcards: f"{RUNS.folder(product, wildcards.run)}/{wildcards.split}/{wildcards.part}.h5"
    )


def shards(product, split=None):
    """All shards of a product: of the named split, or of the job's split."""

    return lambda wildcards: RUNS.shards(
        product, wildcards.run, split or wildcards.split
    )


def shown(product):
    """The shards of a product that a contact sheet shows."""
    return lambda wildcards: RUNS.shown(wildcards.run, wildcards.split).get(product, [])


def sections(stage):
    """The configuration values that a stage reads; a change reruns it."""
    # A function, because the text has braces that are no wildcards.
    return lambda wildcards: stage_sections(stage, of_run(wildcards))


def code(stage):
    """Digest of what the code of a stage does: a change reruns it."""
    if not stage.startswith("refine"):  # the configuration chooses none of its modules
        return stage_code(stage, CONFIG)
    return lambda wildcards: stage_code(stage, of_run(wildcards))


def truth(wildcards):
    """State of a split's pixel labels: adding or editing one scores the split again."""
    return truth_state(of_run(wildcards).data, wildcards.split)


def drawn_truth(wildcards):
    """The masks of COCO that are drawn before a split is scored."""
    return list(map(str, truth_files(of_run(wildcards).data, wildcards.split)))


def local_files(*texts):
    """The given paths that are files on this machine: weights, lists, annotations."""
    # Files inside this folder go by relative names, so that moving the folder reruns nothing.
    here = Path.cwd()
    files = [path for path in map(expand_path, texts) if path.is_file()]
    return [
        str(path.relative_to(here) if path.is_relative_to(here) else path)
        for path in files
    ]


def dataset_files(wildcards):
    """Files that say which images there are and what is on them."""
    data = of_run(wildcards).data
    root = expand_path(data.root)
    if data.kind == "demo":
        return [f"{data.root}/demo.json"]
    lists = [
        text
        for name in (data.train_list, data.val_list)
        for text in (name, f"{root}/ImageSets/Segmentation/{name}.txt")
    ]
    tables = [data.tags, f"{root}/tags.csv"]
    annotations = [
        f"{root}/annotations/instances_{name}2014.json" for name in ("train", "val")
    ]
    read = [f"results/{wildcards.run}/manifest/mask-tags.csv"]
    return local_files(*lists, *tables, *annotations) + (
        read if data.tags == "masks" else []
    )


def clip_files(wildcards):
    """Local files of the frozen encoder and the descriptions that its texts use."""
    settings = of_run(wildcards)
    texts, tse = [
        settings.clip.model,
        settings.clip.pretrained,
    ], settings.cams.patch_text.tse
    if tse.form != "off":
        texts += [str(built_in(settings.data.kind)), tse.knowledge or "none"]
    return local_files(*texts)


def tables(run, name):
    """A table in all its forms."""
    return table_paths(run, name)


def final_products():
    """The last products of this configuration."""
    products = [product for run in RUNS.final for product in RUNS.last_products(run)]
    if MANY and CONFIG.data.has_truth:
        products += tables(CONFIG.name, "sweep")
    return products


PRODUCT_OF_FILE = {PRODUCTS[product].file: product for product in SCORED}


def scored(wildcards):
    """The product that a file of records scores."""
    return PRODUCT_OF_FILE[wildcards.file]


def scored_shards(wildcards):
    """Its shards; the blob, which ignores the image, has none."""
    folder = SCORED[scored(wildcards)]
    return [] if folder == "manifest" else shards(folder)(wildcards)


def scored_sections(wildcards):
    """The configuration values that scoring it reads."""
    return sections(f"score_{scored(wildcards)}")(wildcards)


def scored_of(wildcards):
    """The records of the job's run."""
    return list(RUNS.records(wildcards.run).values())


def scored_of_all(wildcards):
    """The records of all runs that are compared."""
    return list(
        dict.fromkeys(record for run in MANY for record in RUNS.records(run).values())
    )


def rows_of_all(wildcards):
    """The records of each run that is compared, as JSON."""
    return json.dumps(
        {
            run.removeprefix(f"{CONFIG.name}/"): list(RUNS.records(run).values())
            for run in MANY
        }
    )


def of_run(wildcards):
    """The configuration of the job's run."""
    return RUNS[wildcards.run].config


def demos():
    """Folders of the demo data sets, with the numbers of images."""
    images_by_root = {}
    for run in RUNS.values():
        data = run.config.data
        if data.kind != "demo":
            continue
        if images_by_root.setdefault(data.root, data.demo_images) != data.demo_images:
            stop(
                f"{data.root}: two runs want different demo_images there; give one of them another data.root"
            )
    return images_by_root


def table_files(name):
    """The files behind the cells of each row."""
    try:
        return RUNS.table_files(TABLES[name])
    except ConfigError as error:
        stop(error)


def table_bars(name):
    """The bars of a table that shows each class."""
    if not load_table(TABLES[name]).class_columns:
        return []
    caption = f"{workflow.basedir}/workflow/report/paper_bars.rst"
    labels = {"table": name, "what": "IoU per class"}
    kind = {"caption": caption, "category": "Tables of papers", "labels": labels}
    bars = report(f"results/tables/{name}/{name}.png", **kind)
    return [bars]


def drawn_masks():
    """Folders of the masks of COCO, with the data set's folder."""
    data = [run.config.data for run in RUNS.values()]
    return {
        str(expand_path(one.masks)): one.root
        for one in data
        if one.kind == "coco" and one.masks
    }
