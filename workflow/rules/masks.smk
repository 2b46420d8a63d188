# Pseudo masks: background rule, dense CRF, ignore band; HDF5 and palette PNG.


rule masks:
    input:
        manifest=MANIFEST,
        scores="results/{run}/scores_grid/{split}/{scatteritem}.h5",
    output:
        shard="results/{run}/masks/{split}/{scatteritem}.h5",
        png=directory("results/{run}/masks/{split}/png/{scatteritem}"),
    log:
        "results/{run}/logs/masks/{split}.{scatteritem}.log",
    benchmark:
        "results/{run}/benchmarks/masks/{split}.{scatteritem}.tsv"
    conda:
        "../../envs/crf.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="8h",
    params:
        sections=sections("masks"),
        code=code("masks"),
        folder=subpath(input.manifest, parent=True),
    message:
        "Pseudo masks of {wildcards.split}, part {wildcards.scatteritem}"
    shell:
        "python -m wsss masks {input.scores:q} --manifest {params.folder:q} --out {output.shard:q}"
        " --png {output.png:q} --workers {threads} --sections {params.sections:q} 2> {log}"
