# Pseudo masks: background rule, dense CRF, ignore band; HDF5 and palette PNG.


rule masks:
    input:
        manifest=manifest,
        scores=branch(
            lambda wildcards: of_run(wildcards).refine.is_trained,
            then=shard("scores_grid"),
            otherwise=shard("cams"),
        ),
    output:
        shard="results/{run}/masks/{split}/{part}.h5",
        png=directory("results/{run}/masks/{split}/png/{part}"),
        listing="results/{run}/masks/{split}/png/{part}.json",
    log:
        "results/{run}/logs/masks/{split}.{part}.log",
    benchmark:
        "results/{run}/benchmarks/masks/{split}.{part}.tsv"
    conda:
        "../../envs/crf.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="8h",
    params:
        sections=sections("masks"),
        code=code("masks"),
        job=job_file("masks"),
        packages=packages("masks"),
        proposals=watched_proposals,
        folder=subpath(input.manifest, parent=True),
    message:
        "Pseudo masks of {wildcards.split}, part {wildcards.part}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss masks {input.scores:q} --manifest {params.folder:q} --out {output.shard:q}"
        " --png {output.png:q} --workers {threads} 2> {log}"
