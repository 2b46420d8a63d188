# Pixel labels in other forms, made by the score room: COCO's masks, tags read from VOC's masks.

if CONFIG.data.kind == "coco" and CONFIG.data.masks:

    rule coco_masks:
        input:
            lambda wildcards: local_files(
                f"{CONFIG.data.root}/annotations/instances_{wildcards.drawn}2014.json"
            ),
        output:
            f"{expand_path(CONFIG.data.masks)}/{{drawn}}2014.json",
        log:
            "results/logs/coco_masks.{drawn}.log",
        benchmark:
            "results/logs/coco_masks.{drawn}.tsv"
        wildcard_constraints:
            drawn="train|val",
        conda:
            "../../envs/core.yaml"
        threads: CONFIG.compute.workers
        resources:
            mem_mb=6000,
            runtime="4h",
        params:
            code=code("coco_masks"),
            root=str(expand_path(CONFIG.data.root)),
            folder=subpath(output[0], parent=True),
        message:
            "Drawing COCO's masks of {wildcards.drawn}2014"
        shell:
            "python -m wsss truth coco-masks {params.root:q} --out {params.folder:q}"
            " --part {wildcards.drawn} --workers {threads} > {log} 2>&1"


if CONFIG.data.tags == "masks":

    rule mask_tags:
        output:
            MASK_TAGS,
        log:
            f"results/{CONFIG.name}/logs/mask_tags.log",
        benchmark:
            f"results/{CONFIG.name}/benchmarks/mask_tags.tsv"
        conda:
            "../../envs/core.yaml"
        threads: CONFIG.compute.workers
        resources:
            mem_mb=4000,
            runtime="1h",
        params:
            sections=lambda wildcards: stage_sections("mask_tags", CONFIG),
            code=code("mask_tags"),
            masks=[truth_state(CONFIG, split) for split in ("train", "val")],
        message:
            "Reading tags from pixel labels (data.tags: masks)"
        shell:
            "python -m wsss truth tags --out {output:q} --workers {threads}"
            " --sections {params.sections:q} > {log} 2>&1"
