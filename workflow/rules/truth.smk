# Pixel labels in other forms, made by the score room: COCO's masks, tags read from masks, and masks
# to learn from: of all images for the supervised upper bound, of some that a person corrected.

for index, (masks, rule_of_masks, root) in enumerate(drawn_masks()):

    rule:
        name:
            f"coco_masks_{index}" if index else "coco_masks"
        input:
            lambda wildcards, root=root: instances(root, wildcards),
        output:
            f"{masks}/{rule_of_masks}/{{part}}2014.json",
        log:
            f"results/logs/coco_masks_{index}.{{part}}.log",
        benchmark:
            f"results/logs/coco_masks_{index}.{{part}}.tsv"
        wildcard_constraints:
            part="train|val",
        conda:
            "../../envs/core.yaml"
        threads: CONFIG.compute.workers
        resources:
            mem_mb=6000,
            runtime="4h",
        params:
            code=code("coco_masks"),
            job=job_file("coco_masks"),
            packages=packages("coco_masks"),
            files=watched_files(lambda wildcards, root=root: instances(root, wildcards)),
            root=str(expand_path(root)),
            masks=lambda wildcards, masks=masks: masks,
            rule=rule_of_masks,
        message:
            "Drawing COCO's masks of {wildcards.part}2014 ({params.rule})"
        shell:
            "WSSS_JOB={params.job:q}"
            " python -m wsss truth coco-masks {params.root:q} --out {params.masks:q}"
            " --rule {params.rule} --part {wildcards.part} --workers {threads} > {log} 2>&1"


rule mask_tags:
    input:
        drawn_truth_of_tags,
    output:
        "results/{run}/manifest/mask-tags.csv",
    log:
        "results/{run}/logs/mask_tags.log",
    benchmark:
        "results/{run}/benchmarks/mask_tags.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=6000,
        runtime="1h",
    params:
        sections=sections("mask_tags"),
        code=code("mask_tags"),
        job=job_file("mask_tags"),
        packages=packages("mask_tags"),
        files=watched_files(files_of_masks),
        masks=lambda wildcards: [
            truth_state(of_run(wildcards).data, split) for split in ("train", "val")
        ],
    message:
        "Reading tags from pixel labels (data.tags: masks)"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss truth tags --out {output:q} --workers {threads} > {log} 2>&1"


# Only runs that ask for it: a weakly supervised run has no such rule.
SUPERVISED = (
    "|".join(re.escape(run) for run in RUNS if RUNS[run].config.supervision == "masks")
    or "(?!)"
)


rule truth_masks:
    input:
        manifest=manifest,
        drawn=drawn_truth,
    output:
        "results/{run}/truth_masks/{split}/{part}.h5",
    log:
        "results/{run}/logs/truth_masks/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/truth_masks/{split}.{part}.tsv"
    wildcard_constraints:
        run=SUPERVISED,
        split="train",
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="2h",
    params:
        sections=sections("truth_masks"),
        code=code("truth_masks"),
        job=job_file("truth_masks"),
        packages=packages("truth_masks"),
        truth=truth,
        folder=subpath(input.manifest, parent=True),
    message:
        "Pixel labels to learn from (supervision: masks), part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss truth training-masks --manifest {params.folder:q}"
        " --shard {wildcards.part} --out {output:q} --workers {threads} 2> {log}"


# Only runs that ask for it: retrain.corrected.
CORRECTED = (
    "|".join(re.escape(run) for run in RUNS if RUNS[run].config.retrain.corrected)
    or "(?!)"
)


rule corrected_masks:
    input:
        manifest=manifest,
    output:
        "results/{run}/corrected_masks/train.h5",
    log:
        "results/{run}/logs/corrected_masks.log",
    benchmark:
        "results/{run}/benchmarks/corrected_masks.tsv"
    wildcard_constraints:
        run=CORRECTED,
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="2h",
    params:
        sections=sections("corrected_masks"),
        code=code("corrected_masks"),
        job=job_file("corrected_masks"),
        packages=packages("corrected_masks"),
        state=watched_corrections,
        folder=subpath(input.manifest, parent=True),
    message:
        "Corrected masks to learn from (retrain.corrected)"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss truth corrected-masks --manifest {params.folder:q}"
        " --out {output:q} --workers {threads} --state {params.state:q} 2> {log}"
