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
    log:
        "results/logs/collect/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench collect {wildcards.suite} --out {output} > {log} 2>&1"


rule tables:
    input:
        "results/suites/{suite}/metrics.csv",
        "results/suites/{suite}/index.csv",
        "src/distillbench/reporting/tables.py",
        "src/distillbench/reporting/statistics.py",
    output:
        "reports/{suite}/tables/main.csv",
        "reports/{suite}/tables/main.json",
        "reports/{suite}/tables/main.md",
        "reports/{suite}/tables/main.tex",
    log:
        "results/logs/tables/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench tables {wildcards.suite}"
        " --out reports/{wildcards.suite}/tables > {log} 2>&1"


rule figures:
    input:
        "results/suites/{suite}/metrics.csv",
        "results/suites/{suite}/index.csv",
        "src/distillbench/reporting/tables.py",
        "src/distillbench/reporting/statistics.py",
        "src/distillbench/reporting/figures.py",
    output:
        "reports/{suite}/figures/accuracy.pdf",
        "reports/{suite}/figures/accuracy.png",
    log:
        "results/logs/figures/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench figures {wildcards.suite}"
        " --out reports/{wildcards.suite}/figures > {log} 2>&1"


rule report:
    input:
        rules.tables.output,
        rules.figures.output,
        "results/suites/{suite}/metrics.csv",
        "results/suites/{suite}/index.csv",
        "params/{suite}.yaml",
        expand(
            "src/distillbench/reporting/{file}",
            file=(
                "page.py",
                "page.html",
                "paper.py",
                "evidence.py",
                "tables.py",
                "statistics.py",
                "figures.py",
            ),
        ),
    output:
        "reports/{suite}/index.html",
        directory("reports/{suite}/paper"),
    log:
        "results/logs/report/{suite}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench report {wildcards.suite} --out reports/{wildcards.suite} > {log} 2>&1"
