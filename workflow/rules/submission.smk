# Predictions of VOC's test images, packed for its evaluation server; made when asked for by name:
#   snakemake --cores all results/<name>/submission/comp6_multi_crf.tgz --configfile …

if CONFIG.data.kind == "voc":
    TEST_LIST = str(
        expand_path(CONFIG.data.root) / "ImageSets" / "Segmentation" / "test.txt"
    )

    rule test_images:
        input:
            TEST_LIST,
        output:
            manifest=TEST_MANIFEST,
            quarantine=f"results/{CONFIG.name}/test/quarantine.csv",
            classes=f"results/{CONFIG.name}/test/classes.json",
        log:
            f"results/{CONFIG.name}/logs/test_images.log",
        benchmark:
            f"results/{CONFIG.name}/benchmarks/test_images.tsv"
        conda:
            "../../envs/core.yaml"
        threads: CONFIG.compute.workers
        resources:
            mem_mb=4000,
            runtime="1h",
        params:
            sections=lambda wildcards: stage_sections("ingest", CONFIG),
            code=code("ingest"),
            folder=subpath(output.manifest, parent=True),
        message:
            "Decoding VOC's test images"
        shell:
            "python -m wsss ingest --test-list {input:q} --out {params.folder:q}"
            " --workers {threads} --sections {params.sections:q} 2> {log}"

    rule voc_submission:
        input:
            manifest=TEST_MANIFEST,
            ids=TEST_LIST,
            shards=branch(
                lambda wildcards: of_run(wildcards).retrain.enabled,
                then=gather.part("results/{{run}}/predictions/test/{scatteritem}.h5"),
                otherwise=gather.part(
                    "results/{{run}}/refiner_predictions/test/{scatteritem}.h5"
                ),
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
        conda:
            "../../envs/core.yaml"
        resources:
            mem_mb=2000,
            runtime="1h",
        params:
            code=code("submission"),
            folder=subpath(input.manifest, parent=True),
        message:
            "Packing VOC's test images ({wildcards.protocol}) for the evaluation server"
        shell:
            "python -m wsss export voc-submission {input.shards:q} --manifest {params.folder:q}"
            " --list {input.ids:q} --protocol {wildcards.protocol}"
            " --competition {wildcards.competition} --out {output:q} > {log} 2>&1"
