# Tables of papers: measured and published numbers side by side, `snakemake table_voc12_main`.


for name in RUNS.invalid_tables:

    rule:
        name:
            f"table_{name}"
        input:
            lambda wildcards, name=name: stop(RUNS.invalid_tables[name]),
        output:
            [f"results/tables/{name}/{name}.{end}" for end in ("md", "csv", "html")],
        localrule: True


for name in RUNS.tables:
    path = TABLES[name]
    described = load_table(path)

    rule:
        name:
            f"table_{name}"
        input:
            table=str(path),
            files=lambda wildcards, name=name: [
                file for files in table_files(name).values() for file in files
            ],
        output:
            f"results/tables/{name}/{name}.md",
            f"results/tables/{name}/{name}.csv",
            table_bars(name, described),
            html=report(
                f"results/tables/{name}/{name}.html",
                caption="../report/paper_table.rst",
                category="Tables of papers",
                labels={"table": name, "what": "numbers"},
            ),
        log:
            f"results/logs/table_{name}.log",
        benchmark:
            f"results/logs/table_{name}.tsv"
        localrule: True
        conda:
            "../../envs/core.yaml"
        params:
            code=code("paper_table"),
            job=job_file("paper_table"),
            packages=packages("paper_table"),
            content=file_contents([path, *table_lists(described)]),
            folder=subpath(output.html, parent=True),
            records=lambda wildcards, name=name: [
                f"--records {row}={file}"
                for row, files in table_files(name).items()
                for file in files
            ],
        message:
            f"Writing the table {name}"
        shell:
            "WSSS_JOB={params.job:q}"
            " python -m wsss paper-table {input.table:q} --out {params.folder:q} {params.records} > {log} 2>&1"
