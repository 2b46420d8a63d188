# The segmenter: trained on the pseudo masks (as an upper bound on the truth), some of which a person
# may have corrected, then asked for the held-out images.


rule retrain:
    input:
        manifest=manifest,
        masks=learned_from("masks"),
        corrected=corrected_masks,
        init=ancient(initial_weights),
    output:
        weights="results/{run}/segmenter/weights.safetensors",
        log="results/{run}/segmenter/loss.csv",
    log:
        "results/{run}/logs/retrain.log",
    benchmark:
        "results/{run}/benchmarks/retrain.tsv"
    conda:
        "../../envs/mmseg.yaml"
    threads: 16
    resources:
        mem_mb=12000,
        runtime="48h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU,
        workers=WORKERS_OF_TRAINING,
    params:
        sections=sections("retrain"),
        code=code("retrain"),
        job=job_file("retrain"),
        packages=packages("retrain"),
        files=watched_files(initial_weights),
        folder=subpath(input.manifest, parent=True),
        work="results/{run}/segmenter/work",
        corrected=lambda wildcards, input: [
            f"--corrected {path}" for path in input.corrected
        ],
    message:
        "Training the segmenter"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss launch --processes {resources.gpu} retrain {input.masks:q} --manifest {params.folder:q}"
        " --out {output.weights:q} --log {output.log:q} --work {params.work:q}"
        " --device {resources.device} --precision {resources.precision} --workers {resources.workers} {params.corrected} 2> {log}"


# The segmenter's prediction, in one job or in two: see APART.
rule:
    name:
        "predict" if APART else "predict_nothing"
    input:
        manifest=manifest_of,
        weights=product_file("segmenter", "weights.safetensors"),
    output:
        temp(touch("results/{run}/predictions/{split}/{part}.planes")),
    log:
        "results/{run}/logs/predict/{split}.{part}.planes.log",
    benchmark:
        "results/{run}/benchmarks/predict/{split}.{part}.planes.tsv"
    localrule: not APART
    conda:
        "../../envs/mmseg.yaml"
    threads: threads_of_network("predict")
    resources:
        mem_mb=8000,
        runtime="8h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU if APART else 0,
        batch=CONFIG.compute.batch,
        runs="yes" if APART else "no",
    params:
        sections=sections("predict"),
        code=code("predict"),
        job=job_file("predict"),
        packages=packages("predict"),
        folder=subpath(input.manifest, parent=True),
        shard=lambda wildcards, output: str(Path(output[0]).with_suffix(".h5")),
    message:
        "The segmenter's network on {wildcards.split}, part {wildcards.part}"
    shell:
        "test {resources.runs} = no || WSSS_JOB={params.job:q}"
        " python -m wsss retrain-predict --manifest {params.folder:q} --checkpoint {input.weights:q}"
        " --split {wildcards.split} --shard {wildcards.part} --out {params.shard:q} --planes-to {output:q}"
        " --device {resources.device} --precision {resources.precision} --batch {resources.batch} --workers {threads} 2> {log}"


rule:
    name:
        "predict_crf" if APART else "predict"
    input:
        manifest=manifest_of,
        weights=product_file("segmenter", "weights.safetensors"),
        planes=handed_over("predictions"),
    output:
        "results/{run}/predictions/{split}/{part}.h5",
    log:
        "results/{run}/logs/predict/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/predict/{split}.{part}.tsv"
    conda:
        "../../envs/mmseg.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=8000,
        runtime="8h",
        device="cpu" if APART else CONFIG.compute.device,
        precision=precision,
        gpu=0 if APART else GPU,
        batch=CONFIG.compute.batch,
    params:
        sections=sections("predict"),
        code=code("predict"),
        job=job_file("predict"),
        packages=packages("predict"),
        folder=subpath(input.manifest, parent=True),
        planes=take_planes,
    message:
        "Segmenting {wildcards.split}, part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss retrain-predict --manifest {params.folder:q} --checkpoint {input.weights:q}"
        " --split {wildcards.split} --shard {wildcards.part} --out {output:q} {params.planes}"
        " --device {resources.device} --precision {resources.precision} --batch {resources.batch} --workers {threads} 2> {log}"
