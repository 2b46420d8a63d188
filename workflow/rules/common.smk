# The configuration, typed, and what rules ask of it.
import atexit
import importlib.resources
import os
import re
import sys
import time
from pathlib import Path

from snakemake.logging import logger

# In a source tree the package next to the workflow runs, here and in every job, whether or not one
# is installed.
PROJECT = Path(str(workflow.current_basedir)).parents[1]
if (PROJECT / "wsss").is_dir():
    sys.path.insert(0, str(PROJECT))

from wsss.pipeline.utf8 import ensure_utf8

ensure_utf8()

from wsss.pipeline.durations import PlannedJob, expected_seconds
from wsss.pipeline.engine import job_container, prepare_jobs, workflow_folder
from wsss.pipeline.engine_lock import remove_dead_locks
from wsss.pipeline.failures import explain_failure, say_last
from wsss.pipeline.plan import PLAN_VARIABLE, Plan
from wsss.pipeline.screen import show_run
from wsss.pipeline.slurm import queued_jobs_message
from wsss.pipeline.products import SCORED
from wsss.pipeline.runs import Runs
from wsss.pipeline.stages import stage_code, stage_packages, stage_state
from wsss.pipeline.watched import (
    data_state,
    file_contents,
    proposals_state,
    seeds_state,
    tokenizer_files,
)
from wsss.artifacts.digest import digest_file, digest_json
from wsss.artifacts.watch import is_listed, listing_path
from wsss.clip.text.knowledge import built_in
from wsss.config.base import AUTO, with_supervision
from wsss.config.errors import ConfigError
from wsss.config.paths import expand_path
from wsss.data.datasets.coco import instances_path, parts_of
from wsss.errors import WsssError
from wsss._compat.missing_packages import SEGMENTERS, require
from wsss.compute.device import local_gpus, local_problem, require_cuda
from wsss.compute.planned_gpus import PLANNED_GPUS, planned_gpus
from wsss.demo.dataset import RECORD, is_as_drawn
from wsss.photos.record import is_complete
from wsss.score.papers.table import load_table
from wsss.score.product import PRODUCTS
from wsss.score.truth.corrected import corrections_state
from wsss.score.truth.find import truth_files, truth_state


def stop(reason):
    """End the engine with one message; a WorkflowError would add frames of this file to it."""
    sys.exit(f"error: {reason}")


if workflow.modifier.path_modifier.replace_prefix("results/") != "results/":
    stop(
        "module wsss: prefix and replace_prefix are not supported, since jobs name files below "
        "results/ themselves; leave them out, and choose the folder by --directory"
    )


def failed_jobs():
    """Rule and log of each job that failed for good."""
    failed = workflow.scheduler.failed
    jobs = [job for one in failed for job in (one.jobs if one.is_group() else [one])]
    return [(job.rule.name, str(log)) for job in jobs for log in job.log]


def planned_seconds():
    """How long each job of this run may take, by its number."""
    jobs = workflow.dag.needrun_jobs()
    return expected_seconds(
        [
            PlannedJob(
                job.jobid,
                job.rule.name,
                None if job.rule.name.endswith("_nothing") else job.benchmark,
            )
            for job in jobs
        ]
    )


def show_progress():
    """Show the running jobs on the screen, unless the command line asks for the engine's lines."""
    if (
        len(workflow.modifier_stack) > 1
    ):  # a module: the screen is that of another workflow
        return
    output = workflow.output_settings
    quiet = {str(kind) for kind in output.quiet or ()}
    engine_shows = (
        output.dryrun or output.verbose or output.debug_dag or output.printshellcmds
    )
    if workflow.is_main_process and not engine_shows:
        show_run(
            logger,
            planned_seconds,
            names_runs=len(RUNS.final) > 1,
            shows_progress=not quiet & {"all", "progress"},
            shows_finished="rules" not in quiet,
        )


STARTED = time.time()
prepare_jobs()
if workflow.is_main_process and not workflow.output_settings.dryrun:
    if remove_dead_locks(Path.cwd()):
        print("An engine was killed here; its lock is removed.", file=sys.stderr)
CONTAINER = job_container()
# Tables of papers by name, each a rule.
TABLES = {
    path.stem: path for path in sorted((workflow_folder() / "tables").glob("*.yaml"))
}
RULES = [
    Path(workflow.main_snakefile),
    workflow_folder() / "Snakefile",
    *(workflow_folder() / "rules").glob("*.smk"),
]
# Parts (`shards: auto`) suit the nodes of a cluster, which the engine's own does not tell; jobs of a
# cluster inherit the variable.
if workflow.is_main_process and workflow.resource_settings.nodes:
    requests = workflow.resource_settings.overwrite_resources.get("cams", {})
    os.environ.setdefault(PLANNED_GPUS, str(int("gpu" in requests)))
try:
    # Jobs of a cluster evaluate this file again; they follow the engine that submitted them.
    PLAN = Plan(dict(config), RULES, is_job=not workflow.is_main_process)
    # The runs, by the wildcard `run`.
    RUNS = Runs(
        PLAN.config,
        where="config.yaml (with what is laid over it)",
        tables=TABLES.values(),
    )
except WsssError as error:
    stop(error)
workflow.register_envvars(PLAN_VARIABLE)
if PLANNED_GPUS in os.environ:
    workflow.register_envvars(PLANNED_GPUS)
CONFIG = RUNS[RUNS.name].config
# With defaults, for report/overview.rst; a caption sees this dictionary alone.
config["effective"] = CONFIG.model_dump(mode="json")
# Jobs run here with this interpreter, unless a cluster or an environment of their own is asked for.
HERE = not (
    workflow.resource_settings.nodes or workflow.deployment_settings.deployment_method
)
try:
    if HERE:
        require_cuda(CONFIG.compute.device)
except ValueError as error:
    stop(error)
if HERE and workflow.is_main_process:
    if problem := local_problem(CONFIG.compute.device):
        logger.warning(problem)
# GPUs of this machine, on which its jobs take turns. On a cluster (`--jobs`) the profile says which
# rules need a GPU, and the cluster assigns them.
GPUS = 0 if workflow.resource_settings.nodes else local_gpus(CONFIG.compute.device)
GPU = min(1, GPUS)
if GPUS and "gpu" not in workflow.resource_settings.resources:
    workflow.register_resource("gpu", GPUS)
# Whether networks predict on GPUs: then one job predicts, and hands over what a second one, on CPUs,
# runs the CRFs on. Without GPUs the second job predicts as well, and the first one does nothing: the
# engine records the same inputs, so that another machine is no reason for a rerun.
APART = planned_gpus(CONFIG.compute.device) > 0
# Workers of jobs next to the engine; on a cluster these may use its few local cores.
LOCAL_WORKERS = CONFIG.compute.workers
# Workers of each process of a training, whose threads are those of its arithmetic. On a cluster the
# job counts its own CPUs (0) unless the configuration says a number.
WORKERS_OF_TRAINING = CONFIG.compute.workers
if workflow.resource_settings.nodes:
    local_cores = workflow.resource_settings.local_cores
    LOCAL_WORKERS = min(LOCAL_WORKERS, local_cores or os.cpu_count() or 1)
    if PLAN.config.get("compute", {}).get("workers", AUTO) == AUTO:
        WORKERS_OF_TRAINING = 0
MANY = [run for run in RUNS.final if run != CONFIG.name]
show_progress()


def product_file(product, file):
    """A file of a product."""
    return lambda wildcards: f"{RUNS.folder(product, wildcards.run)}/{file}"


def manifest(wildcards):
    """The manifest whose tags a run uses."""
    return f"{RUNS.manifest_folder(wildcards.run)}/manifest.csv"


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


def is_supervised(wildcards):
    """Whether the job's run learns from pixel labels: the upper bound."""
    return of_run(wildcards).supervision == "masks"


def learned_from(weak):
    """The shards that a training of the job's run learns from: of a product, or the truth."""
    return branch(
        is_supervised,
        then=shards("truth_masks", "train"),
        otherwise=shards(weak, "train"),
    )


def corrected_masks(wildcards):
    """The corrected masks that stand in for pseudo masks, where the job's run has some."""
    folder = RUNS.folder("corrected_masks", wildcards.run)
    return [f"{folder}/train.h5"] if of_run(wildcards).retrain.corrected else []


def handed_over(product):
    """What the first job of a prediction hands to the second one."""

    def file(wildcards):
        path = Path(
            f"results/{wildcards.run}/{product}/{wildcards.split}/{wildcards.part}.planes"
        )
        # Where a run without GPUs was interrupted, the first job did nothing.
        if (
            APART
            and workflow.is_main_process
            and path.is_file()
            and not path.stat().st_size
        ):
            path.unlink()
        return str(path)

    return file


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


def shown(product):
    """The shards of a product that a contact sheet shows."""
    return lambda wildcards: RUNS.shown(wildcards.run, wildcards.split).get(product, [])


def sections(stage):
    """State of the configuration values that a stage reads; a change reruns it."""
    return lambda wildcards: stage_state(stage, of_run(wildcards))


def code(stage):
    """Digest of what the code of a stage does: a change reruns it."""
    if not stage.startswith("refine"):  # the configuration chooses none of its modules
        return stage_code(stage, CONFIG)
    return lambda wildcards: stage_code(stage, of_run(wildcards))


def job_file(stage, rows=None):
    """The file of what a stage is given: its values and its code, as this engine sees them."""

    # Snakemake does not compare what depends on `output`; `sections` and `code` say when to rerun.
    def path(wildcards, output):
        name = stage(wildcards) if callable(stage) else stage
        run = wildcards.get("run", CONFIG.name)
        runs = workflow.executor_plugin is not None and not workflow.dryrun
        return PLAN.file(
            name, run, RUNS[run].config, rows and rows(wildcards), write=runs
        )

    return path


def packages(stage):
    """Versions of the packages that a stage uses: another one reruns it.

    Environments of conda and containers have packages of their own, and Snakemake watches what
    these are made from.
    """
    if workflow.deployment_settings.deployment_method:
        return "of the job's environment"
    if not stage.startswith("refine"):
        return stage_packages(stage, CONFIG)
    return lambda wildcards: stage_packages(stage, of_run(wildcards))


def watched_data(wildcards):
    """State of images, lists and tags: ingest runs again when one is changed, new or missing."""
    folder = f"results/{wildcards.run}/manifest"
    return data_state(of_run(wildcards).data, folder)


def watched_test_data(wildcards):
    """The same of VOC's test images."""
    folder = f"results/{wildcards.run}/test"
    return data_state(of_run(wildcards).data, folder, test_list(wildcards))


def watched_seeds(wildcards):
    """State of imported CAMs or seeds."""
    return seeds_state(of_run(wildcards))


def watched_proposals(wildcards):
    """State of mask proposals: the masks are made again when one is edited, new or missing."""
    return proposals_state(of_run(wildcards))


def watched_corrections(wildcards):
    """State of the corrected masks: the training runs again when one is edited, new or missing."""
    folder = f"results/{wildcards.run}/corrected_masks"
    return corrections_state(of_run(wildcards).retrain.corrected, folder)


def watched_files(files):
    """Contents of input files that no job writes. Snakemake misses one that is replaced by an
    older one."""
    # Snakemake does not compare parameters of functions that take `input`.
    return lambda wildcards: file_contents(files(wildcards), RUNS)


def truth(wildcards):
    """State of a split's pixel labels: adding or editing one scores the split again."""
    return truth_state(of_run(wildcards).data, wildcards.split)


def drawn_truth(wildcards):
    """The masks of COCO that are drawn before a split is scored."""
    return list(map(str, truth_files(of_run(wildcards).data, wildcards.split)))


def drawn_truth_of_tags(wildcards):
    """The same of both splits, from which tags are read."""
    data = of_run(wildcards).data
    marks = [*truth_files(data, "train"), *truth_files(data, "val")]
    return list(dict.fromkeys(map(str, marks)))


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
    """Files that rules make and ingest reads: all others are its parameter `state`."""
    data = of_run(wildcards).data
    if data.kind == "demo":
        return [f"{data.root}/demo.json"]
    masks = data.tags == "masks"
    return [f"results/{wildcards.run}/manifest/mask-tags.csv"] if masks else []


def refiner_file(wildcards):
    """The checkpoint of a refiner that is not trained here."""
    return str(expand_path(of_run(wildcards).refine.checkpoint))


def initial_weights(wildcards):
    """The files that the segmenter starts from, as far as they are not downloaded."""
    if HERE:  # hours before the job would say it
        try:
            require(*SEGMENTERS)
        except WsssError as error:
            stop(error)
    settings = of_run(wildcards)
    clip = [settings.clip.model, settings.clip.pretrained]
    return local_files(
        settings.retrain.init, *(clip if settings.retrain.uses_clip else [])
    )


def files_of_masks(wildcards):
    """The lists of images whose masks show the tags; of COCO also what the masks are drawn from."""
    data = of_run(wildcards).data
    root = expand_path(data.root)
    names = [name for name in (data.train_list, data.val_list) if name]
    files = [f"{root}/ImageSets/Segmentation/{name}.txt" for name in names]
    if data.kind == "coco":
        files = [str(instances_path(root, part)) for part in parts_of(data)]
        files += [f"{root}/{name}" for name in names]
    return local_files(*files, *names)


def clip_files(wildcards):
    """Local files of the frozen encoder and the descriptions that its texts use."""
    settings = of_run(wildcards)
    texts, tse = [
        settings.clip.model,
        settings.clip.pretrained,
    ], settings.cams.patch_text.tse
    if tse.form != "off":
        texts += [str(built_in(settings.data.kind)), tse.knowledge or "none"]
    return local_files(*texts, *tokenizer_files(settings.clip.model))


def files_of_encoders(wildcards, names):
    """The same, and local files of encoders besides CLIP, by their sections."""
    others = [getattr(of_run(wildcards), name) for name in dict.fromkeys(names)]
    texts = [text for other in others for text in (other.model, other.pretrained)]
    return [*clip_files(wildcards), *local_files(*texts)]


def cams_files(wildcards):
    """Those that the affinity reads."""
    return files_of_encoders(wildcards, of_run(wildcards).cams.other_encoders)


def encoder_files(wildcards):
    """Those that the affinity or the refiner reads."""
    return files_of_encoders(wildcards, of_run(wildcards).encoders_besides_clip)


def repeated_images(wildcards):
    """The list of images that the training of a refiner sees twice per epoch."""
    settings = of_run(wildcards)
    name = settings.refine.options.repeated if settings.data.kind == "voc" else ""
    root = expand_path(settings.data.root)
    return (
        local_files(name, f"{root}/ImageSets/Segmentation/{name}.txt") if name else []
    )


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
        drop_outdated(listing_path(folder), folder, is_true=is_listed)
    return [str(listing_path(folder)) for folder in folders]


PAGE_OPTIONS = {
    "cams": "cams",
    "seeds": "seeds",
    "scores_grid": "scores",
    "masks": "masks",
    "refiner_predictions": "refiner",
    "predictions": "predictions",
}


def page_assets(package="wsss.score.page"):
    """Digest of what a page consists of next to its data; no module, so code lacks it."""
    folder = importlib.resources.files(package) / "assets"
    return digest_json([digest_file(path) for path in sorted(folder.iterdir())])


def gallery_shards(product):
    """The shards of a product that the gallery of the job's run shows, of all splits."""
    return lambda wildcards: [
        path
        for split in of_run(wildcards).cam_splits
        for path in RUNS.shards(product, wildcards.run, split)
    ]


def page_shards(wildcards):
    """The shards that a result page shows, by product."""
    shards_by_product = {product: [] for product in PAGE_OPTIONS}
    for split in page_splits(wildcards):
        for product in RUNS.on_page(wildcards.run, split):
            shards_by_product[product] += RUNS.shards(product, wildcards.run, split)
    return shards_by_product


def page_options(wildcards):
    """The same as options of `wsss page`."""
    return " ".join(
        f"--{PAGE_OPTIONS[product]} {path}"
        for product, paths in page_shards(wildcards).items()
        for path in paths
    )


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


def drop_outdated(mark, folder, is_true):
    """Remove the file that stands for those in a folder if it is not true any more: Snakemake then
    misses it and makes all of them again."""
    if workflow.is_main_process and mark.is_file() and not is_true(folder):
        logger.warning(
            f"{folder}: files are missing or were exchanged; a full run makes all again."
        )
        mark.unlink()


def final_products():
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
        products += [f"{settings.data.root}/{RECORD}"]
    if settings.data.kind == "folder":
        record = Path(f"results/{run}/gallery.json")
        drop_outdated(
            record, RUNS.gallery_folder(run), is_true=lambda _: is_complete(record)
        )
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


def precision(wildcards):
    """The precision of the job's run."""
    return of_run(wildcards).compute.precision


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


def of_run(wildcards):
    """The configuration of the job's run."""
    return RUNS[wildcards.run].config


def demos():
    """Folders of the demo data sets, with the numbers of images and the seed of the drawings."""
    drawn_by_root = {}
    for run in RUNS.values():
        data = run.config.data
        if data.kind != "demo":
            continue
        drawn = (*data.demo_images, data.demo_seed)
        if drawn_by_root.setdefault(data.root, drawn) != drawn:
            stop(
                f"{data.root}: two runs want different demo_images or demo_seed there; give one of them another data.root"
            )
    for root in map(Path, drawn_by_root):
        drop_outdated(root / RECORD, root, is_true=is_as_drawn)
    return drawn_by_root


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
    caption = "../report/paper_bars.rst"
    labels = {"table": name, "what": "IoU per class"}
    kind = {"caption": caption, "category": "Tables of papers", "labels": labels}
    bars = report(f"results/tables/{name}/{name}.png", **kind)
    return [bars]


def instances(root, wildcards):
    """The instances JSON of a part of COCO."""
    return local_files(f"{root}/annotations/instances_{wildcards.part}2014.json")


def drawn_masks():
    """Each folder of drawn masks of COCO: where it lies, by which rule, and the data set's folder."""
    data = [run.config.data for run in RUNS.values()]
    roots = {
        (str(expand_path(one.masks)), one.coco_truth): one.root
        for one in data
        if one.kind == "coco" and one.masks and one.coco_truth != "png"
    }
    return [(masks, rule, root) for (masks, rule), root in roots.items()]
