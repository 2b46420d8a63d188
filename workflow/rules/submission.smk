# Predictions of VOC's test images, packed for its evaluation server; made when asked for by name:
#   snakemake --cores all results/<name>/submission/comp6_multi_crf.tgz --configfile …


rule test_images:
    input:
        test_list,
    output:
        manifest="results/{run}/test/manifest.csv",
        classes="results/{run}/test/classes.json",
    log:
        "results/{run}/logs/test_images.log",
    benchmark:
        "results/{run}/benchmarks/test_images.tsv"
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=4000,
        runtime="1h",
    params:
        sections=sections("ingest"),
        code=code("ingest"),
        job=job_file("ingest"),
        packages=packages("ingest"),
        state=watched_test_data,
        folder=subpath(output.manifest, parent=True),
    message:
        "Decoding VOC's test images"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss ingest --test-list {input:q} --out {params.folder:q}"
        " --workers {threads} --state {params.state:q} 2> {log}"


rule voc_submission:
    input:
        manifest=test_manifest,
        ids=test_list,
        shards=branch(
            lambda wildcards: of_run(wildcards).retrain.enabled,
            then=shards("predictions", "test"),
            otherwise=shards("refiner_predictions", "test"),
        ),
    output:
        "results/{run}/submission/{competition}_{protocol}.tgz",
    log:
        "results/{run}/logs/submission/{competition}_{protocol}.log",
    benchmark:
        "results/{run}/benchmarks/submission/{competition}_{protocol}.tsv"
    wildcard_constraints:
        competition="comp5|comp6",
        protocol="single|multi|single_crf|multi_crf",
    localrule: True
    conda:
        "../../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime="1h",
    params:
        code=code("submission"),
        job=job_file("submission"),
        packages=packages("submission"),
        files=watched_files(lambda wildcards: [test_list(wildcards)]),
        folder=subpath(input.manifest, parent=True),
    message:
        "Packing VOC's test images ({wildcards.protocol}) for the evaluation server"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss export voc-submission {input.shards:q} --manifest {params.folder:q}"
        " --list {input.ids:q} --protocol {wildcards.protocol}"
        " --competition {wildcards.competition} --out {output:q} > {log} 2>&1"
