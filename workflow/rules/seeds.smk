# Hard labels straight from the CAMs, for a refiner that learns from seeds; HDF5 and palette PNG.


rule seeds:
    input:
        manifest=MANIFEST,
        cams=cam_shard,
    output:
        shard="results/{run}/seeds/{split}/{scatteritem}.h5",
        png=directory("results/{run}/seeds/{split}/png/{scatteritem}"),
    log:
        "results/{run}/logs/seeds/{split}.{scatteritem}.log",
    benchmark:
        "results/{run}/benchmarks/seeds/{split}.{scatteritem}.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="8h",
    params:
        sections=sections("seeds"),
        code=code("seeds"),
        folder=subpath(input.manifest, parent=True),
    message:
        "Seeds of {wildcards.split}, part {wildcards.scatteritem}"
    shell:
        "python -m wsss seeds {input.cams:q} --manifest {params.folder:q}"
        " --split {wildcards.split} --out {output.shard:q} --png {output.png:q}"
        " --workers {threads} --sections {params.sections:q} 2> {log}"
