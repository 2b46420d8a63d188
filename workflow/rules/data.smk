# Images and tags: the demo's data set, ingest, quarantine, manifest; wrong tags on purpose.


for index, (record, (train, val, seed)) in enumerate(demos().items()):

    rule:
        name:
            f"demo_data_{index}" if index else "demo_data"
        output:
            record,
        log:
            f"results/logs/demo_data_{index}.log",
        benchmark:
            f"results/logs/demo_data_{index}.tsv"
        localrule: True
        conda:
            "../../envs/core.yaml"
        params:
            code=code("demo"),
            job=job_file("demo"),
            packages=packages("demo"),
            train=train,
            val=val,
            seed=seed,
            folder=subpath(output[0], parent=True),
        message:
            "Drawing the demo data set"
        shell:
            "WSSS_JOB={params.job:q}"
            " python -m wsss demo make {params.folder:q} --train {params.train}"
            " --val {params.val} --seed {params.seed} > {log} 2>&1"


rule ingest:
    input:
        dataset_files,
    output:
        manifest="results/{run}/manifest/manifest.csv",
        classes="results/{run}/manifest/classes.json",
    log:
        "results/{run}/logs/ingest.log",
    benchmark:
        "results/{run}/benchmarks/ingest.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="4h",
    params:
        sections=sections("ingest"),
        code=code("ingest"),
        job=job_file("ingest"),
        packages=packages("ingest"),
        state=watched_data,
        folder=subpath(output.manifest, parent=True),
    message:
        "Decoding every image and reading the tags"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss ingest --out {params.folder:q} --workers {threads}"
        " --state {params.state:q} 2> {log}"


rule tag_noise:
    input:
        manifest=product_file("manifest", "manifest.csv"),
        weights=ancient(clip_files),
    output:
        manifest="results/{run}/noisy_tags/manifest.csv",
        given="results/{run}/noisy_tags/given.csv",
        classes="results/{run}/noisy_tags/classes.json",
    log:
        "results/{run}/logs/tag_noise.log",
    benchmark:
        "results/{run}/benchmarks/tag_noise.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="4h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU,
    params:
        sections=sections("tag_noise"),
        code=code("tag_noise"),
        job=job_file("tag_noise"),
        packages=packages("tag_noise"),
        files=watched_files(clip_files),
        given=subpath(input.manifest, parent=True),
        folder=subpath(output.manifest, parent=True),
    message:
        "Changing the tags (tag_noise)"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss tag-noise {params.given:q} --out {params.folder:q}"
        " --device {resources.device} --precision {resources.precision} 2> {log}"
