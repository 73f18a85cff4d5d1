rule train:
    input:
        training_input,
    output:
        # update: kept until they are replaced, as another process may have made them, or they are to be made again
        [update(f"results/runs/{{run}}/{name}") for name in RUN_FILES],
    log:
        "results/logs/train/{run}.log",
    priority: seed_major
    conda:
        "../../environment.yml"
    threads: run_threads
    resources:
        gpu=0,  # a profile says otherwise: profiles/gpu
    params:
        device=run_device,
        directory=lambda wildcards: STORE.run(wildcards.run),
        spec=lambda wildcards: STORE.planned(wildcards.run),
        work=lambda wildcards: STORE.work(wildcards.run),
        log=lambda wildcards: " ".join(f"--log {name}" for name in PLAN.loggers(wildcards.run)),
        again=again_option,
    shell:
        "python -m distillbench train --spec {params.spec} --out {params.directory}"
        " --work {params.work} --device {params.device} {params.log} {params.again} > {log} 2>&1"
