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
        "results/suites/{suite}/metrics.csv",
        "results/suites/{suite}/costs.csv",
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
        table_files("{suite}"),
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
        figure_files("{suite}"),
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
        "params/{suite}.yaml",
        REPORTING,
    output:
        "reports/{suite}/index.html",
        paper_files("{suite}"),
    log:
        "results/logs/report/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench report --out reports/{wildcards.suite} -- {wildcards.suite} > {log} 2>&1"
