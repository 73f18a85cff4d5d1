rule predict:
    input:
        prediction_input,
    output:
        evaluation("{run}", "predictions.npz"),
    log:
        "results/logs/predict/{run}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench evaluate {wildcards.run} --stage predictions > {log} 2>&1"


rule metrics:
    input:
        metrics_input,
    output:
        evaluation("{run}", "metrics.json"),
    log:
        "results/logs/metrics/{run}.log",
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench evaluate {wildcards.run} --stage metrics > {log} 2>&1"
