# Hard labels straight from the CAMs, for a refiner that learns from seeds; HDF5 and palette PNG.


rule seeds:
    input:
        manifest=manifest,
        cams=shard("cams"),
    output:
        shard="results/{run}/seeds/{split}/{part}.h5",
        png=directory("results/{run}/seeds/{split}/png/{part}"),
        listing="results/{run}/seeds/{split}/png/{part}.json",
    log:
        "results/{run}/logs/seeds/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/seeds/{split}.{part}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="8h",
    params:
        sections=sections("seeds"),
        code=code("seeds"),
        job=job_file("seeds"),
        packages=packages("seeds"),
        external=watched_seeds,
        folder=subpath(input.manifest, parent=True),
    message:
        "Seeds of {wildcards.split}, part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss seeds {input.cams:q} --manifest {params.folder:q}"
        " --split {wildcards.split} --out {output.shard:q} --png {output.png:q}"
        " --workers {threads} 2> {log}"
