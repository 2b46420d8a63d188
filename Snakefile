# From images with image-level tags to pseudo masks, a segmenter and a scored table.
#   snakemake --cores all                                                   the embedded demo
#   snakemake --cores all --configfile workflow/presets/voc-subset.yaml     a preset laid over config.yaml
# One rule file a stage, in the order in which data walks through them.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config.yaml"


report: "workflow/report/overview.rst"


include: "workflow/rules/common.smk"


# Where jobs run with `--sdm apptainer`: WSSS_CONTAINER; envs/container/apptainer.def makes an image.
if CONTAINER:

    container: CONTAINER


wildcard_constraints:
    run="|".join(map(re.escape, RUNS)),
    split="train|val|test",
    part=r"\d+-of-\d+",


include: "workflow/rules/truth.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/cams.smk"
include: "workflow/rules/seeds.smk"
include: "workflow/rules/refine.smk"
include: "workflow/rules/masks.smk"
include: "workflow/rules/retrain.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/submission.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        final_products(),


onstart:
    if workflow.resource_settings.nodes and (
        reason := queued_jobs_message(Path.cwd())
    ):
        stop(reason)


onerror:
    # Snakemake writes more after this hook; the reasons come last on the screen.
    text = explain_failure(failed_jobs(), log, since=STARTED)
    atexit.register(print, f"\n{text}", file=sys.stderr)
