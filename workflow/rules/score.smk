# Scores, tables and pictures: the only stage that opens pixel labels.
# On a cluster they run next to the engine; `--groups score=scores` submits them after all.


rule score:
    input:
        manifest=manifest,
        drawn=drawn_truth,
        shards=scored_shards,
    output:
        records="results/{run}/scores/{file}.{split}.json",
        counts="results/{run}/scores/{file}.{split}.images.h5",
    log:
        "results/{run}/logs/score/{file}.{split}.log",
    benchmark:
        "results/{run}/benchmarks/score/{file}.{split}.tsv"
    wildcard_constraints:
        file="|".join(PRODUCT_OF_FILE),
    localrule: True
    conda:
        "../../envs/core.yaml"
    threads: workers_of_score
    resources:
        mem_mb=4000,
        runtime="2h",
    params:
        sections=scored_sections,
        code=code("score_blob"),
        job=job_file(scored_stage),
        packages=packages("score_blob"),
        truth=truth,
        folder=subpath(input.manifest, parent=True),
        product=scored,
    message:
        "Scoring {params.product} of {wildcards.split}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss score {params.product} {input.shards:q} --manifest {params.folder:q}"
        " --split {wildcards.split} --out {output.records:q} --workers {threads} 2> {log}"


# Made when asked for by name, of a run with refine.train.snapshots_every:
#   snakemake --cores all results/<name>/pictures/label_quality.png --configfile …
rule refine_labels:
    input:
        manifest=manifest,
        drawn=lambda wildcards: list(
            map(str, truth_files(of_run(wildcards).data, "train"))
        ),
        cams=shards("cams", "train"),
        seeds=branch(
            lambda wildcards: of_run(wildcards).refine.needs_seeds,
            then=shards("seeds", "train"),
        ),
        checkpoint=product_file("refine", "checkpoint.safetensors"),
        weights=ancient(encoder_files),
    output:
        table="results/{run}/tables/label_quality.csv",
        picture=report(
            "results/{run}/pictures/label_quality.png",
            caption="../report/label_quality.rst",
            category="Training",
            labels={"what": "labels over the steps", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/refine_labels.log",
    benchmark:
        "results/{run}/benchmarks/refine_labels.tsv"
    wildcard_constraints:
        run=TRAINED,
    conda:
        "../../envs/core.yaml"
    threads: CONFIG.compute.workers
    resources:
        mem_mb=12000,
        runtime="4h",
        device=CONFIG.compute.device,
        precision=precision,
        gpu=GPU,
    params:
        sections=sections("refine_labels"),
        code=code("refine_labels"),
        job=job_file("refine_labels"),
        packages=packages("refine_labels"),
        files=watched_files(encoder_files),
        truth=lambda wildcards: truth_state(of_run(wildcards).data, "train"),
        folder=subpath(input.manifest, parent=True),
        seeds=lambda wildcards, input: [f"--seeds {path}" for path in input.seeds],
    message:
        "Scoring the labels of the refiner's training steps"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss score-labels {input.cams:q} {params.seeds} --manifest {params.folder:q}"
        " --checkpoint {input.checkpoint:q} --out {output.table:q} --picture {output.picture:q}"
        " --device {resources.device} --precision {resources.precision} --workers {threads} 2> {log}"


rule table:
    input:
        records=scored_of,
        counts=counts_of,
    output:
        markdown="results/{run}/tables/table.md",
        csv="results/{run}/tables/table.csv",
        html=report(
            "results/{run}/tables/table.html",
            caption="../report/table.rst",
            category="Scores",
            labels={"what": "table", "run": "{run}"},
        ),
        classes_markdown="results/{run}/tables/classes.md",
        classes_csv="results/{run}/tables/classes.csv",
        classes_html=report(
            "results/{run}/tables/classes.html",
            caption="../report/classes.rst",
            category="Scores",
            labels={"what": "classes", "run": "{run}"},
        ),
        pairs_markdown="results/{run}/tables/pairs.md",
        pairs_csv="results/{run}/tables/pairs.csv",
        pairs_html=report(
            "results/{run}/tables/pairs.html",
            caption="../report/pairs.rst",
            category="Scores",
            labels={"what": "classes that occur together", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/table.log",
    benchmark:
        "results/{run}/benchmarks/table.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        code=code("table"),
        job=job_file("table"),
        packages=packages("table"),
        folder=subpath(output.markdown, parent=True),
    message:
        "Writing the tables"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss table {input.records:q} --out {params.folder:q} 2> {log}"


rule sweep_table:
    input:
        scored_of_all,
    output:
        markdown="results/{run}/tables/sweep.md",
        csv="results/{run}/tables/sweep.csv",
        html=report(
            "results/{run}/tables/sweep.html",
            caption="../report/sweep.rst",
            category="Scores",
            labels={"what": "runs side by side", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/sweep_table.log",
    benchmark:
        "results/{run}/benchmarks/sweep_table.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        code=code("comparison"),
        packages=packages("comparison"),
        rows=rows_of_all,
        job=job_file("comparison", rows_of_all),
        folder=subpath(output.markdown, parent=True),
    message:
        "Writing the table of all runs"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss compare --name {wildcards.run:q} --out {params.folder:q} 2> {log}"


rule efficiency:
    input:
        product_file("refine", "efficiency.json"),
    output:
        markdown="results/{run}/tables/efficiency.md",
        csv="results/{run}/tables/efficiency.csv",
        html=report(
            "results/{run}/tables/efficiency.html",
            caption="../report/efficiency.rst",
            category="Training",
            labels={"what": "efficiency", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/efficiency.log",
    benchmark:
        "results/{run}/benchmarks/efficiency.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        code=code("efficiency"),
        job=job_file("efficiency"),
        packages=packages("efficiency"),
        folder=subpath(output.markdown, parent=True),
    message:
        "Writing the cost of the training"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss efficiency {input:q} --out {params.folder:q} 2> {log}"


rule class_chart:
    input:
        scored_of,
    output:
        report(
            "results/{run}/pictures/class_iou.png",
            caption="../report/class_iou.rst",
            category="Scores",
            labels={"what": "IoU per class", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/class_chart.log",
    benchmark:
        "results/{run}/benchmarks/class_chart.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        code=code("charts"),
        job=job_file("charts"),
        packages=packages("charts"),
    message:
        "Drawing the IoU of each class"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss class-chart {input:q} --out {output:q} 2> {log}"


rule loss_curve:
    input:
        branch(
            lambda wildcards: wildcards.product == "refiner",
            then=product_file("refine", "loss.csv"),
            otherwise=product_file("segmenter", "loss.csv"),
        ),
    output:
        report(
            "results/{run}/pictures/{product}_loss.png",
            caption="../report/loss.rst",
            category="Training",
            labels={"what": "{product} loss", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/loss_curve.{product}.log",
    benchmark:
        "results/{run}/benchmarks/loss_curve.{product}.tsv"
    wildcard_constraints:
        product="refiner|segmenter",
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        code=code("charts"),
        job=job_file("charts"),
        packages=packages("charts"),
        title=loss_title,
    message:
        "Drawing the loss curve"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss loss-curve {input:q} --out {output:q} {params.title:q} 2> {log}"


rule noise_chart:
    input:
        scored_of_all,
    output:
        report(
            "results/{run}/pictures/tag_noise.png",
            caption="../report/tag_noise.rst",
            category="Scores",
            labels={"what": "mIoU over wrong tags", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/noise_chart.log",
    benchmark:
        "results/{run}/benchmarks/noise_chart.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        code=code("charts"),
        job=job_file("charts"),
        packages=packages("charts"),
    message:
        "Drawing the mIoU over wrong tags"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss noise-chart {input:q} --out {output:q} 2> {log}"


rule page:
    input:
        manifest=manifest,
        drawn=drawn_truth_of_page,
        records=page_records,
        counts=counts_of_page,
        shards=lambda wildcards: sum(page_shards(wildcards).values(), []),
    output:
        page="results/{run}/index.html",
        pictures=directory("results/{run}/page"),
        embedded=report(
            "results/{run}/pictures/page.html",
            caption="../report/page.rst",
            category="Pictures",
            labels={"what": "result page", "split": "all", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/page.log",
    benchmark:
        "results/{run}/benchmarks/page.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    threads: LOCAL_WORKERS
    params:
        sections=sections("page"),
        code=code("page"),
        job=job_file("page", files=page_shards),
        packages=packages("page"),
        folder=subpath(input.manifest, parent=True),
        assets=page_assets(),
        out=subpath(output.page, parent=True),
    message:
        "Drawing the result page"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss page {input.records:q} --manifest {params.folder:q} --out {params.out:q}"
        " --embedded {output.embedded:q} --workers {threads} 2> {log}"


# Photos: masks and overlays as files, what to review, and a page of all of them.
# The folder may be the user's own, so its files are no outputs: Snakemake would delete them first.
rule gallery:
    input:
        manifest=manifest,
        shards=lambda wildcards: sum(gallery_shards(wildcards).values(), []),
    output:
        "results/{run}/gallery.json",
    log:
        "results/{run}/logs/gallery.log",
    benchmark:
        "results/{run}/benchmarks/gallery.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    threads: LOCAL_WORKERS
    params:
        sections=sections("gallery"),
        code=code("gallery"),
        job=job_file("gallery", files=gallery_shards),
        packages=packages("gallery"),
        assets=page_assets("wsss.photos"),
        folder=subpath(input.manifest, parent=True),
        out=lambda wildcards: str(RUNS.gallery_folder(wildcards.run)),
    message:
        "Drawing masks and gallery of the photos"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss gallery --manifest {params.folder:q}"
        " --out {params.out:q} --record {output:q} --workers {threads} 2> {log}"


rule contact_sheet:
    input:
        manifest=manifest,
        drawn=drawn_truth,
        cams=shown("cams"),
        seeds=shown("seeds"),
        masks=shown("masks"),
        refiner=shown("refiner_predictions"),
        predictions=shown("predictions"),
    output:
        report(
            "results/{run}/pictures/{split}.png",
            caption="../report/contact_sheet.rst",
            category="Pictures",
            labels={"what": "contact sheet", "split": "{split}", "run": "{run}"},
        ),
    log:
        "results/{run}/logs/contact_sheet.{split}.log",
    benchmark:
        "results/{run}/benchmarks/contact_sheet.{split}.tsv"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        sections=sections("pictures"),
        code=code("pictures"),
        job=job_file("pictures"),
        packages=packages("pictures"),
        truth=truth,
        folder=subpath(input.manifest, parent=True),
        cams=lambda wildcards, input: [f"--cams {path}" for path in input.cams],
        seeds=lambda wildcards, input: [f"--seeds {path}" for path in input.seeds],
        masks=lambda wildcards, input: [f"--masks {path}" for path in input.masks],
        refiner=lambda wildcards, input: [f"--refiner {path}" for path in input.refiner],
        predictions=lambda wildcards, input: [
            f"--predictions {path}" for path in input.predictions
        ],
    message:
        "Drawing the contact sheet of {wildcards.split}"
    shell:
        "WSSS_JOB={params.job:q}"
        " python -m wsss contact-sheet --manifest {params.folder:q} --split {wildcards.split}"
        " {params.cams} {params.seeds} {params.masks} {params.refiner} {params.predictions} --out {output:q} 2> {log}"
