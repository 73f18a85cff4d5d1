from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/run.smk"
include: "workflow/rules/table.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        all_metrics(),
        reports(),


onstart:
    write_down_tables()
    keep_warm()


onerror:
    write_partial_reports()
