# The refiner trained (on the CAMs, as an upper bound on the truth) or imported, and the class scores
# that it gives.

# Patterns of the runs that import their refiner and that train it; "(?!)" matches nothing.
IMPORTED = (
    "|".join(re.escape(run) for run in RUNS if RUNS[run].config.refine.checkpoint)
    or "(?!)"
)
TRAINED = (
    "|".join(re.escape(run) for run in RUNS if RUNS[run].config.refine.trains) or "(?!)"
)


rule refine_train:
    input:
        manifest=manifest,
        shards=learned_from("cams"),
        seeds=branch(
            lambda wildcards: of_run(wildcards).needs_seeds,
            then=shards("seeds", "train"),
        ),
        repeated=repeated_images,
        weights=ancient(encoder_files),
    output:
        checkpoint="results/{run}/refine/checkpoint.safetensors",
        log="results/{run}/refine/loss.csv",
        efficiency="results/{run}/refine/efficiency.json",
    log:
        "results/{run}/logs/refine_train.log",
    benchmark:
        "results/{run}/benchmarks/refine_train.tsv"
    wildcard_constraints:
        run=TRAINED,
    conda:
        "../../envs/core.yaml"
    threads: 16
    resources:
        mem_mb=12000,
        runtime="24h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU,
        workers=WORKERS_OF_TRAINING,
    params:
        sections=sections("refine_train"),
        code=code("refine_train"),
        job=job_file("refine_train"),
        packages=packages("refine_train"),
        files=watched_files(
            lambda wildcards: [*encoder_files(wildcards), *repeated_images(wildcards)]
        ),
        folder=subpath(input.manifest, parent=True),
        work="results/{run}/refine/work",
        seeds=lambda wildcards, input: [f"--seeds {path}" for path in input.seeds],
    message:
        "Training the refiner"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss launch --processes {resources.gpu} refine-train {input.shards:q} {params.seeds} --manifest {params.folder:q}"
        " --out {output.checkpoint:q} --log {output.log:q} --efficiency {output.efficiency:q} --work {params.work:q}"
        " --device {resources.device} --precision {resources.precision} --workers {resources.workers} 2> {log}"


rule refine_import:
    input:
        manifest=manifest,
        checkpoint=refiner_file,
        weights=ancient(encoder_files),
    output:
        checkpoint="results/{run}/refine/checkpoint.safetensors",
        report="results/{run}/refine/imported.json",
    log:
        "results/{run}/logs/refine_import.log",
    benchmark:
        "results/{run}/benchmarks/refine_import.tsv"
    wildcard_constraints:
        run=IMPORTED,
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=8000,
    params:
        sections=sections("refine_import"),
        code=code("refine_import"),
        job=job_file("refine_import"),
        packages=packages("refine_import"),
        files=watched_files(
            lambda wildcards: [refiner_file(wildcards), *encoder_files(wildcards)]
        ),
        folder=subpath(input.manifest, parent=True),
    message:
        "Importing the refiner"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss refine-import {input.checkpoint:q} --manifest {params.folder:q}"
        " --out {output.checkpoint:q} --report {output.report:q} 2> {log}"


rule refine_apply:
    input:
        manifest=manifest,
        cams=shard("cams"),
        checkpoint=product_file("refine", "checkpoint.safetensors"),
        weights=ancient(encoder_files),
    output:
        "results/{run}/scores_grid/{split}/{part}.h5",
    log:
        "results/{run}/logs/refine_apply/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/refine_apply/{split}.{part}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=8000,
        runtime="8h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU,
        batch=CONFIG.compute.batch,
    params:
        sections=sections("refine_apply"),
        code=code("refine_apply"),
        job=job_file("refine_apply"),
        packages=packages("refine_apply"),
        files=watched_files(encoder_files),
        folder=subpath(input.manifest, parent=True),
    message:
        "Refined scores of {wildcards.split}, part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss refine-apply {input.cams:q} --manifest {params.folder:q}"
        " --split {wildcards.split} --checkpoint {input.checkpoint:q} --out {output:q}"
        " --device {resources.device} --precision {resources.precision} --batch {resources.batch} --workers {threads} 2> {log}"


# The refiner's own prediction, in one job or in two: see APART.
rule:
    name:
        "refine_predict" if APART else "refine_predict_nothing"
    input:
        manifest=manifest_of,
        checkpoint=product_file("refine", "checkpoint.safetensors"),
        weights=ancient(encoder_files),
    output:
        temp(touch("results/{run}/refiner_predictions/{split}/{part}.planes")),
    log:
        "results/{run}/logs/refine_predict/{split}.{part}.planes.log",
    benchmark:
        "results/{run}/benchmarks/refine_predict/{split}.{part}.planes.tsv"
    localrule: not APART
    conda:
        "../../envs/core.yaml"
    threads: threads_of_network("infer")
    resources:
        mem_mb=8000,
        runtime="8h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU if APART else 0,
        runs="yes" if APART else "no",
    params:
        sections=sections("refine_predict"),
        code=code("refine_predict"),
        job=job_file("refine_predict"),
        packages=packages("refine_predict"),
        files=watched_files(encoder_files),
        folder=subpath(input.manifest, parent=True),
        shard=lambda wildcards, output: str(Path(output[0]).with_suffix(".h5")),
    message:
        "The refiner's network on {wildcards.split}, part {wildcards.part}"
    shell:
        "test {resources.runs} = no || WSSS_JOB={params.job:q}"
        " python -m wsss refine-predict --manifest {params.folder:q} --checkpoint {input.checkpoint:q}"
        " --split {wildcards.split} --shard {wildcards.part} --out {params.shard:q} --planes-to {output:q}"
        " --device {resources.device} --precision {resources.precision} --workers {threads} 2> {log}"


rule:
    name:
        "refine_predict_crf" if APART else "refine_predict"
    input:
        manifest=manifest_of,
        checkpoint=product_file("refine", "checkpoint.safetensors"),
        weights=ancient(encoder_files),
        planes=handed_over("refiner_predictions"),
    output:
        "results/{run}/refiner_predictions/{split}/{part}.h5",
    log:
        "results/{run}/logs/refine_predict/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/refine_predict/{split}.{part}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=8000,
        runtime="8h",
        device="cpu" if APART else CONFIG.compute.device,
        precision=precision,
        gpu=0 if APART else GPU,
    params:
        sections=sections("refine_predict"),
        code=code("refine_predict"),
        job=job_file("refine_predict"),
        packages=packages("refine_predict"),
        files=watched_files(encoder_files),
        folder=subpath(input.manifest, parent=True),
        planes=take_planes,
    message:
        "The refiner's own prediction of {wildcards.split}, part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss refine-predict --manifest {params.folder:q} --checkpoint {input.checkpoint:q}"
        " --split {wildcards.split} --shard {wildcards.part} --out {output:q} {params.planes}"
        " --device {resources.device} --precision {resources.precision} --workers {threads} 2> {log}"
