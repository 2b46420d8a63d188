# Class activation maps of the frozen CLIP, or imported seeds: one job per part of a split.


rule cams:
    input:
        manifest=manifest,
        weights=ancient(cams_files),
    output:
        "results/{run}/cams/{split}/{part}.h5",
    log:
        "results/{run}/logs/cams/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/cams/{split}.{part}.tsv"
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
        sections=sections("cams"),
        code=code("cams"),
        job=job_file("cams"),
        packages=packages("cams"),
        files=watched_files(cams_files),
        external=watched_seeds,
        folder=subpath(input.manifest, parent=True),
    message:
        "CAMs of {wildcards.split}, part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss cams --manifest {params.folder:q} --split {wildcards.split}"
        " --shard {wildcards.part} --out {output:q} --device {resources.device} --precision {resources.precision}"
        " --batch {resources.batch} --workers {threads} 2> {log}"
