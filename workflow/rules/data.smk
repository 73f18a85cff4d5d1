rule data:
    output:
        "results/data/{dataset}.npz",
    log:
        "results/logs/data/{dataset}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench data {wildcards.dataset} --out {output} > {log} 2>&1"
