rule run:
    """One job makes a run whole, and declares only what it writes last: whatever ends it, what it trained stays."""
    input:
        run_input,
    output:
        update(evaluations("{run}", PARTS.metrics)),
    log:
        "results/logs/run/{run}.log",
    priority: urgency
    conda:
        "../../environment.yml"
    threads: run_threads
    resources:
        gpu=0,  # a profile says otherwise: profiles/gpu
    params:
        device=run_device,
        log=log_option,
        table=table_option,
        workers=workers_option,
    shell:
        "python -m distillbench complete {wildcards.run} --device {params.device}"
        " {params.log} {params.table} {params.workers} > {log} 2>&1"


rule train:
    """For runs that are trained though their metrics are here: -R train, or a teacher that came without its weights."""
    input:
        training_input,
    output:
        # update: kept until they are replaced, as another process may have made them, or they are to be made again
        [update(f"results/runs/{{run}}/{name}") for name in RUN_FILES],
    log:
        "results/logs/run/{run}.log",
    priority: urgency
    conda:
        "../../environment.yml"
    threads: run_threads
    resources:
        gpu=0,
    params:
        device=run_device,
        directory=lambda wildcards: STORE.run(wildcards.run),
        spec=lambda wildcards: STORE.planned(wildcards.run),
        work=lambda wildcards: STORE.work(wildcards.run),
        log=log_option,
        table=table_option,
        workers=workers_option,
        again=again_option,
    shell:
        "python -m distillbench train --spec {params.spec} --out {params.directory}"
        " --work {params.work} --device {params.device}"
        " {params.log} {params.table} {params.workers} {params.again} > {log} 2>&1"
