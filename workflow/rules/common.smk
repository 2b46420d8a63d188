# The configuration, typed, and what rules ask of it.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The package beside this Snakefile is the one that runs, here and in every job, installed or not.
sys.path.insert(0, workflow.basedir)

from wsss.cli.engine import prepare_jobs
from wsss.cli.stages import stage_code, stage_sections
from wsss.clip.knowledge import built_in
from wsss.config import ConfigError, expand_path, from_mapping
from wsss.config.sweep import points
from wsss.score.truth import truth_state

prepare_jobs(Path(workflow.basedir))
WHERE = "config.yaml (with what is laid over it)"
try:
    CONFIG = from_mapping(config, where=WHERE)
    # What a rule's wildcard `run` stands for: the run, and the runs of a sweep below it.
    RUNS = {CONFIG.name: CONFIG} | {
        f"{CONFIG.name}/{label}": point
        for label, point in points(config, where=WHERE).items()
        if label
    }
except ConfigError as error:
    raise WorkflowError(str(error)) from None
SWEEP = [run for run in RUNS if run != CONFIG.name]

# What the runs of a sweep share.
MANIFEST = f"results/{CONFIG.name}/manifest/manifest.csv"


def owners():
    """The run whose CAMs each run uses: the first of those for which they are the same."""
    first, found = {}, {}
    for run, settings in RUNS.items():
        found[run] = first.setdefault(stage_sections("cams", settings), run)
    return found


CAMS_OF = owners()


def cam_shard(wildcards):
    """The CAM shard that belongs to a job of a run."""
    folder = f"results/{CAMS_OF[wildcards.run]}/cams/{wildcards.split}"
    return f"{folder}/{wildcards.scatteritem}.h5"


def cam_shards(split=None):
    """All CAM shards of a split: of that which is named, or of the job's."""
    return lambda wildcards: gather.part(
        f"results/{CAMS_OF[wildcards.run]}/cams/{split or wildcards.split}/{{scatteritem}}.h5"
    )


def sections(stage):
    """The configuration values that a stage reads: a change reruns it."""
    texts = {run: stage_sections(stage, of_run) for run, of_run in RUNS.items()}
    # A function, because the text has braces that are no wildcards.
    return lambda wildcards: texts[wildcards.run]


def code(stage):
    """Digest of the source files that a stage imports: a change reruns it."""
    if not stage.startswith("refine"):  # the configuration chooses none of its modules
        return stage_code(stage, CONFIG)
    digests = {run: stage_code(stage, of_run) for run, of_run in RUNS.items()}
    return lambda wildcards: digests[wildcards.run]


def truth(wildcards):
    """State of a split's pixel labels: adding or editing one scores the split again."""
    return truth_state(CONFIG, wildcards.split)


def local_files(*texts):
    """Those of the given paths that are files here: weights, lists, annotations."""
    return [str(path) for path in map(expand_path, texts) if path.is_file()]


def dataset_files():
    """Files that say which images there are and what is on them."""
    data = CONFIG.data
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
    return local_files(*lists, *tables, *annotations)


def clip_files(wildcards):
    """Local files of the frozen encoder, and the descriptions that its texts take up."""
    settings = of_run(wildcards)
    texts, tse = [
        settings.clip.model,
        settings.clip.pretrained,
    ], settings.cams.patch_text.tse
    if tse.form != "off":
        texts += [str(built_in(settings.data.kind)), tse.knowledge or "none"]
    return local_files(*texts)


def has_truth():
    """Whether there are pixel labels to score against."""
    return CONFIG.data.kind != "folder" or bool(CONFIG.data.masks)


def final_products():
    """What this configuration ends in."""
    if not SWEEP:
        return run_products(CONFIG.name)
    products = [product for run in SWEEP for product in run_products(run)]
    if has_truth():
        products += [
            f"results/{CONFIG.name}/tables/sweep.{s}" for s in ("md", "csv", "html")
        ]
    return products


def run_products(run):
    """What one run ends in."""
    settings, folder = RUNS[run], f"results/{run}"
    splits = settings.cams.splits
    products = [f"{folder}/pictures/{split}.png" for split in splits]
    if has_truth():
        products += [
            f"{folder}/tables/table.{suffix}" for suffix in ("md", "csv", "html")
        ]
        products += [f"{folder}/pictures/class_iou.png"]
    if settings.refine.trains:
        products += [f"{folder}/pictures/refiner_loss.png"]
        products += [f"{folder}/tables/efficiency.{s}" for s in ("md", "csv", "html")]
    if settings.retrain.enabled:
        products += [f"{folder}/pictures/segmenter_loss.png"]
    predicts = settings.refine.is_trained or settings.retrain.enabled
    if predicts and settings.data.val_list and "val" not in splits:
        products += [f"{folder}/pictures/val.png"]
    return products


def scored(run):
    """The records of a run, in the order of the table's rows."""
    settings, folder, shared = RUNS[run], f"results/{run}", f"results/{CONFIG.name}"
    # CAMs that all runs share have a row of their own; others are scored for each run.
    cams = shared if CAMS_OF[run] == CONFIG.name else folder
    records = []
    for split in settings.cams.splits:
        records += [f"{shared}/scores/blob.{split}.json"]
        records += [f"{cams}/scores/cam.{split}.json"]
        if settings.cams.has_affinity:
            records.append(f"{cams}/scores/affinity.{split}.json")
        if settings.refine.needs_seeds and split == "train":
            records.append(f"{folder}/scores/seeds.{split}.json")
        if settings.refine.is_trained:
            records.append(f"{folder}/scores/refined.{split}.json")
        records.append(f"{folder}/scores/masks.{split}.json")
    if settings.refine.is_trained and settings.data.val_list:
        records.append(f"{folder}/scores/refiner.val.json")
    if settings.retrain.enabled and settings.data.val_list:
        records.append(f"{folder}/scores/predictions.val.json")
    return records


def scored_of(wildcards):
    """The records of the run that a rule works for."""
    return scored(wildcards.run)


def scored_of_sweep(wildcards):
    """The records of all runs of a sweep."""
    return list(dict.fromkeys(record for run in SWEEP for record in scored(run)))


def of_run(wildcards):
    """The configuration of the run that a rule works for."""
    return RUNS[wildcards.run]
