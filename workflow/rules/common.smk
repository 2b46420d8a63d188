# The configuration, typed, and what rules ask of it.
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The package beside this Snakefile is the one that runs, here and in every job, installed or not.
sys.path.insert(0, workflow.basedir)

from wsss.cli.engine import prepare_jobs
from wsss.cli.stages import stage_code, stage_sections
from wsss.config import ConfigError, expand_path, from_mapping
from wsss.score.truth import truth_state

prepare_jobs(Path(workflow.basedir))
try:
    CONFIG = from_mapping(config, where="config.yaml (with what is laid over it)")
except ConfigError as error:
    raise WorkflowError(str(error)) from None


def sections(stage):
    """The configuration values that a stage reads: a change reruns it."""
    text = stage_sections(stage, CONFIG)
    # A function, because the text has braces that are no wildcards.
    return lambda wildcards: text


def code(stage):
    """Digest of the source files that a stage imports: a change reruns it."""
    return stage_code(stage, CONFIG)


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


def clip_files():
    """Local files of the frozen encoder."""
    return local_files(CONFIG.clip.model, CONFIG.clip.pretrained)


def has_truth():
    """Whether there are pixel labels to score against."""
    return CONFIG.data.kind != "folder" or bool(CONFIG.data.masks)


def final_products():
    """What a run of this configuration ends in."""
    splits = CONFIG.cams.splits
    run = f"results/{CONFIG.name}"
    products = [f"{run}/pictures/{split}.png" for split in splits]
    if has_truth():
        products += [f"{run}/tables/table.{suffix}" for suffix in ("md", "csv", "html")]
        products += [f"{run}/pictures/class_iou.png"]
    if CONFIG.refine.is_trained:
        products += [f"{run}/pictures/refiner_loss.png"]
    if CONFIG.retrain.enabled:
        products += [f"{run}/pictures/segmenter_loss.png"]
    predicts = CONFIG.refine.is_trained or CONFIG.retrain.enabled
    if predicts and CONFIG.data.val_list and "val" not in splits:
        products += [f"{run}/pictures/val.png"]
    return products


def scored():
    """The records of a run, in the order of the table's rows."""
    run = f"results/{CONFIG.name}"
    records = []
    for split in CONFIG.cams.splits:
        products = ["blob", "cam"]
        if CONFIG.cams.has_affinity:
            products.append("affinity")
        if CONFIG.refine.needs_seeds and split == "train":
            products.append("seeds")
        if CONFIG.refine.is_trained:
            products.append("refined")
        products.append("masks")
        records += [f"{run}/scores/{product}.{split}.json" for product in products]
    if CONFIG.refine.is_trained and CONFIG.data.val_list:
        records.append(f"{run}/scores/refiner.val.json")
    if CONFIG.retrain.enabled and CONFIG.data.val_list:
        records.append(f"{run}/scores/predictions.val.json")
    return records
