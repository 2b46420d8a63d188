# What comes from outside the workflow: files that rules read but do not make, and their states.
from pathlib import Path

from wsss._compat.missing_packages import SEGMENTERS, require
from wsss.clip.text.knowledge import built_in
from wsss.config.clip import folder_files
from wsss.config.paths import expand_path
from wsss.data.datasets.coco import instances_path, parts_of
from wsss.demo.dataset import RECORD, is_as_drawn
from wsss.errors import WsssError
from wsss.pipeline.watched import (
    data_state,
    proposals_state,
    seeds_state,
)
from wsss.score.truth.corrected import corrections_state
from wsss.score.truth.find import truth_files, truth_state


def test_list(wildcards):
    """The list of VOC's test images."""
    root = expand_path(of_run(wildcards).data.root)
    return str(root / "ImageSets" / "Segmentation" / "test.txt")


def watched_data(wildcards):
    """State of images, lists and tags: ingest runs again when one is changed, new or missing."""
    folder = f"results/{wildcards.run}/manifest"
    return data_state(of_run(wildcards).data, folder, remember=computes())


def watched_test_data(wildcards):
    """The same of VOC's test images."""
    folder = f"results/{wildcards.run}/test"
    data = of_run(wildcards).data
    return data_state(data, folder, test_list(wildcards), remember=computes())


def watched_seeds(wildcards):
    """State of imported CAMs or seeds."""
    return seeds_state(of_run(wildcards))


def watched_proposals(wildcards):
    """State of mask proposals: the masks are made again when one is edited, new or missing."""
    return proposals_state(of_run(wildcards))


def watched_corrections(wildcards):
    """State of the corrected masks: the training runs again when one is edited, new or missing."""
    folder = f"results/{wildcards.run}/corrected_masks"
    corrected = of_run(wildcards).retrain.corrected
    return corrections_state(corrected, folder, remember=computes())


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
        mark = Path(demo_record(data))
        force_unless(is_as_drawn, mark, mark.parent)
        return [str(mark)]
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
    return local_files(*texts, *folder_files(settings.clip.model))


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


def demo_record(data):
    """The file that stands for a demo data set."""
    return str(expand_path(data.root) / RECORD)


def demos():
    """Files that stand for the demo data sets, with the numbers of images and the seed of the
    drawings."""
    drawn_by_record = {}
    for run in RUNS.values():
        data = run.config.data
        if data.kind != "demo":
            continue
        drawn = (*data.demo_images, data.demo_seed)
        if drawn_by_record.setdefault(demo_record(data), drawn) != drawn:
            stop(
                f"{data.root}: two runs want different demo_images or demo_seed there; give one of them another data.root"
            )
    return drawn_by_record


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
