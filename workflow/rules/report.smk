# Outputs are update(): Snakemake deletes others before the job, also behind a link; the commands know what is theirs.
localrules:
    collect,
    tables,
    figures,
    report,


rule collect:
    input:
        all_metrics(),
        f"results/suites/{SUITE}/index.csv",
        "src/distillbench/reporting/collect.py",
    output:
        update("results/suites/{suite}/metrics.csv"),
        update("results/suites/{suite}/costs.csv"),
    log:
        "results/logs/collect/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench collect --out results/suites/{wildcards.suite} -- {wildcards.suite} > {log} 2>&1"


rule tables:
    input:
        collected("{suite}"),
        REPORTING,
    output:
        update(table_files("{suite}")),
    log:
        "results/logs/tables/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench tables --out reports/{wildcards.suite}/tables"
        " -- {wildcards.suite} > {log} 2>&1"


rule figures:
    input:
        collected("{suite}"),
        REPORTING,
    output:
        update(figure_files("{suite}")),
    log:
        "results/logs/figures/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench figures --out reports/{wildcards.suite}/figures"
        " -- {wildcards.suite} > {log} 2>&1"


rule report:
    input:
        rules.tables.output,
        rules.figures.output,
        collected("{suite}"),
        PLAN.files,
        REPORTING,
    output:
        update("reports/{suite}/index.html"),
        update(paper_files("{suite}")),
    log:
        "results/logs/report/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench report --out reports/{wildcards.suite} -- {wildcards.suite} > {log} 2>&1"
