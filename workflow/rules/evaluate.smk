rule predict:
    input:
        prediction_input,
    output:
        update(evaluation("{run}", "predictions.npz")),
    log:
        "results/logs/predict/{run}.log",
    priority: 1000  # above every training: a finished run is in the tables at once
    conda:
        "../../environment.yml"
    resources:
        gpu=0,  # a profile says otherwise: profiles/gpu
    params:
        device=run_device,
    shell:
        "python -m distillbench evaluate {wildcards.run} --stage predictions --device {params.device} > {log} 2>&1"


rule metrics:
    input:
        metrics_input,
    output:
        update(evaluation("{run}", "metrics.json")),
    log:
        "results/logs/metrics/{run}.log",
    priority: 1000  # above every training: a finished run is in the tables at once
    conda:
        "../../environment.yml"
    shell:
        "python -m distillbench evaluate {wildcards.run} --stage metrics > {log} 2>&1"
