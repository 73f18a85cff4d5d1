rule table:
    """A teacher's logits for all views of all training images, for the students that need no more of it."""
    input:
        table_input,
    output:
        # update: kept until it is replaced, as another process may have made it
        update("results/tables/{run}/{checkpoint}.logits"),
    log:
        "results/logs/table/{run}/{checkpoint}.log",
    priority: urgency
    conda:
        "../../environment.yml"
    threads: run_threads
    resources:
        gpu=0,
    params:
        device=run_device,
    shell:
        "python -m distillbench table {wildcards.run} --checkpoint {wildcards.checkpoint}"
        " --device {params.device} > {log} 2>&1"
