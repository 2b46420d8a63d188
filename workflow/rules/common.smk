# The configuration, typed, the runs, and what the rules of all stages ask of them.
import atexit
import functools
import os
import re
import sys
import time
from pathlib import Path

from snakemake.io import strip_wildcard_constraints
from snakemake.logging import logger

# In a source tree the package next to the workflow runs, here and in every job, whether or not one
# is installed.
PROJECT = Path(str(workflow.current_basedir)).parents[1]
if (PROJECT / "wsss").is_dir():
    sys.path.insert(0, str(PROJECT))

from wsss.pipeline.utf8 import ensure_utf8

ensure_utf8()

from wsss.pipeline.durations import PlannedJob, expected_seconds
from wsss.pipeline.engine import (
    cores_problem,
    job_container,
    prepare_jobs,
    workflow_folder,
)
from wsss.pipeline.engine_lock import remove_dead_locks
from wsss.pipeline.failures import (
    PAGES_NAMED,
    Refusals,
    explain_failure,
    say_last,
)
from wsss.pipeline.plan import PLAN_VARIABLE, Plan
from wsss.pipeline.screen import show_run
from wsss.pipeline.slurm import queued_jobs_message
from wsss.pipeline.runs import Runs
from wsss.pipeline.stages import (
    runs_chosen_code,
    stage_code,
    stage_packages,
    stage_state,
)
from wsss.pipeline.watched import file_contents
from wsss.config.base import AUTO
from wsss.errors import WsssError
from wsss.compute.device import local_gpus, local_problem, require_cuda
from wsss.compute.planned_gpus import PLANNED_GPUS, planned_gpus


def stop(reason):
    """End the engine with one message; a WorkflowError would add frames of this file to it."""
    sys.exit(f"error: {reason}")


if workflow.modifier.path_modifier.replace_prefix("results/") != "results/":
    stop(
        "module wsss: prefix and replace_prefix are not supported, since jobs name files below "
        "results/ themselves; leave them out, and choose the folder by --directory"
    )


def failed_jobs():
    """Rule and log of each job that failed for good."""
    failed = workflow.scheduler.failed
    jobs = [job for one in failed for job in (one.jobs if one.is_group() else [one])]
    return [(job.rule.name, str(log)) for job in jobs for log in job.log]


def possible_targets():
    """Rules that can be named, and files that rules make; of a product's parts the first ones."""
    names = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
    files = {
        strip_wildcard_constraints(str(file))
        for rule in workflow.rules
        for file in rule.output
    }
    for run in RUNS:
        part = f"1-of-{RUNS[run].config.shards}"
        run_files = {
            file.replace("{run}", run).replace("{part}", part) for file in sorted(files)
        }
        names += [
            file.replace("{split}", split)
            for split in ("train", "val")
            for file in run_files
        ]
    return list(dict.fromkeys(names))


def result_pages():
    """Where the result pages of a finished run are, a line each; of many the first ones."""
    quiet = {str(kind) for kind in workflow.output_settings.quiet or ()}
    if PAGES_NAMED in os.environ or quiet & {"all", "progress"}:
        return ""
    pages = sorted(
        job.output.page for job in workflow.dag.jobs if job.rule.name == "page"
    )
    lines = [f"result page: {Path(page).absolute().as_uri()}" for page in pages[:5]]
    return "\n".join(lines + [f"and {len(pages) - 5} more"] * (len(pages) > 5))


def planned_seconds():
    """How long each job of this run may take, by its number."""
    jobs = workflow.dag.needrun_jobs()
    return expected_seconds(
        [
            PlannedJob(
                job.jobid,
                job.rule.name,
                None if job.rule.name.endswith("_nothing") else job.benchmark,
            )
            for job in jobs
        ]
    )


def show_progress():
    """Show the running jobs on the screen, unless the command line asks for the engine's lines."""
    if (
        len(workflow.modifier_stack) > 1
    ):  # a module: the screen is that of another workflow
        return
    output = workflow.output_settings
    quiet = {str(kind) for kind in output.quiet or ()}
    engine_shows = (
        output.dryrun or output.verbose or output.debug_dag or output.printshellcmds
    )
    if workflow.is_main_process and not engine_shows:
        show_run(
            logger,
            planned_seconds,
            names_runs=len(RUNS.final) > 1,
            shows_progress=not quiet & {"all", "progress"},
            shows_finished="rules" not in quiet,
        )
    if workflow.is_main_process and output.dryrun and not quiet & {"all", "reason"}:
        atexit.register(explain_reruns, Path.cwd())


def explain_reruns(folder):
    """Print, after a dry run in a folder, which settings and modules changed; the engine itself
    shows digests."""
    rules = {}
    # A dry run ends with every job finished.
    jobs = (
        workflow.dag.needrun_jobs(exclude_finished=False)
        if workflow.dag is not None
        else ()
    )
    for job in sorted(jobs, key=lambda job: job.jobid):
        if hasattr(job.params, "job"):
            command = workflow.persistence.shellcmd(job.output[0]) or ""
            config = RUNS[getattr(job.wildcards, "run", CONFIG.name)].config
            for change in PLAN.changes(job.params.job, folder, command, config):
                names = rules.setdefault(change, set())
                names.add(job.rule.name.removesuffix("_nothing"))
    if rules:
        print("\nChanged since these jobs ran last:")
    for change, names in rules.items():
        print(f"  {change} ({', '.join(sorted(names))})")


# On a cluster the number counts for nothing but local jobs, which `--local-cores` limits.
if workflow.is_main_process and not workflow.resource_settings.nodes:
    if problem := cores_problem(workflow.resource_settings.cores):
        stop(problem)
STARTED = time.time()
prepare_jobs()
if workflow.is_main_process and not workflow.output_settings.dryrun:
    if remove_dead_locks(Path.cwd()):
        print("An engine was killed here; its lock is removed.", file=sys.stderr)
CONTAINER = job_container()
# Tables of papers by name, each a rule.
TABLES = {
    path.stem: path for path in sorted((workflow_folder() / "tables").glob("*.yaml"))
}
RULES = [
    Path(workflow.main_snakefile),
    workflow_folder() / "Snakefile",
    *(workflow_folder() / "rules").glob("*.smk"),
]
# Parts (`shards: auto`) suit the nodes of a cluster, which the engine's own does not tell; jobs of a
# cluster inherit the variable.
if workflow.is_main_process and workflow.resource_settings.nodes:
    requests = workflow.resource_settings.overwrite_resources.get("cams", {})
    os.environ.setdefault(PLANNED_GPUS, str(int("gpu" in requests)))
try:
    # Jobs of a cluster evaluate this file again; they follow the engine that submitted them.
    PLAN = Plan(dict(config), RULES, is_job=not workflow.is_main_process)
    # The runs, by the wildcard `run`.
    RUNS = Runs(
        PLAN.config,
        where="config.yaml (with what is laid over it)",
        tables=TABLES.values(),
    )
except WsssError as error:
    stop(error)
workflow.register_envvars(PLAN_VARIABLE)
if PLANNED_GPUS in os.environ:
    workflow.register_envvars(PLANNED_GPUS)
CONFIG = RUNS[RUNS.name].config
# With defaults, for report/overview.rst; a caption sees this dictionary alone.
config["effective"] = CONFIG.model_dump(mode="json")
# Jobs run here with this interpreter, unless a cluster or an environment of their own is asked for.
HERE = not (
    workflow.resource_settings.nodes or workflow.deployment_settings.deployment_method
)
try:
    if HERE:
        require_cuda(CONFIG.compute.device)
except ValueError as error:
    stop(error)
if HERE and workflow.is_main_process:
    if problem := local_problem(CONFIG.compute.device):
        logger.warning(problem)
# GPUs of this machine, on which its jobs take turns. On a cluster (`--jobs`) the profile says which
# rules need a GPU, and the cluster assigns them.
GPUS = 0 if workflow.resource_settings.nodes else local_gpus(CONFIG.compute.device)
GPU = min(1, GPUS)
if GPUS and "gpu" not in workflow.resource_settings.resources:
    workflow.register_resource("gpu", GPUS)
# Whether networks predict on GPUs: then one job predicts, and hands over what a second one, on CPUs,
# runs the CRFs on. Without GPUs the second job predicts as well, and the first one does nothing: the
# engine records the same inputs, so that another machine is no reason for a rerun.
APART = planned_gpus(CONFIG.compute.device) > 0
# Workers of jobs next to the engine; on a cluster these may use its few local cores.
LOCAL_WORKERS = CONFIG.compute.workers
# Workers of each process of a training, whose threads are those of its arithmetic. On a cluster the
# job counts its own CPUs (0) unless the configuration says a number.
WORKERS_OF_TRAINING = CONFIG.compute.workers
if workflow.resource_settings.nodes:
    local_cores = workflow.resource_settings.local_cores
    LOCAL_WORKERS = min(LOCAL_WORKERS, local_cores or os.cpu_count() or 1)
    if PLAN.config.get("compute", {}).get("workers", AUTO) == AUTO:
        WORKERS_OF_TRAINING = 0
MANY = [run for run in RUNS.final if run != CONFIG.name]
show_progress()


def product_file(product, file):
    """A file of a product."""
    return lambda wildcards: f"{RUNS.folder(product, wildcards.run)}/{file}"


def manifest(wildcards):
    """The manifest whose tags a run uses."""
    return f"{RUNS.manifest_folder(wildcards.run)}/manifest.csv"


def test_manifest(wildcards):
    """The images of VOC's test server, which have no tags."""
    return f"results/{RUNS.producer('manifest', wildcards.run)}/test/manifest.csv"


def manifest_of(wildcards):
    """The manifest that has a split."""
    return (
        test_manifest(wildcards) if wildcards.split == "test" else manifest(wildcards)
    )


def shard(product):
    """The shard of a product that belongs to a job."""
    return (
        lambda wildcards: f"{RUNS.folder(product, wildcards.run)}/{wildcards.split}/{wildcards.part}.h5"
    )


def shards(product, split=None):
    """All shards of a product: of the named split, or of the job's split."""

    return lambda wildcards: RUNS.shards(
        product, wildcards.run, split or wildcards.split
    )


def is_supervised(wildcards):
    """Whether the job's run learns from pixel labels: the upper bound."""
    return of_run(wildcards).supervision == "masks"


def learned_from(weak):
    """The shards that a training of the job's run learns from: of a product, or the truth."""
    return branch(
        is_supervised,
        then=shards("truth_masks", "train"),
        otherwise=shards(weak, "train"),
    )


def corrected_masks(wildcards):
    """The corrected masks that stand in for pseudo masks, where the job's run has some."""
    folder = RUNS.folder("corrected_masks", wildcards.run)
    return [f"{folder}/train.h5"] if of_run(wildcards).retrain.corrected else []


def sections(stage):
    """State of the configuration values that a stage reads; a change reruns it."""
    return lambda wildcards: stage_state(stage, of_run(wildcards))


def code(stage):
    """Digest of what the code of a stage does: a change reruns it."""
    if not runs_chosen_code(stage):
        return stage_code(stage, CONFIG)

    def digest(wildcards):
        try:
            return stage_code(stage, of_run(wildcards))
        except ValueError as error:
            stop(error)

    return digest


def job_file(stage, rows=None, files=None):
    """The file of what a stage is given: its values and its code, as this engine sees them, and
    files that may be too many for a command line."""

    # Snakemake does not compare what depends on `output`; `sections` and `code` say when to rerun.
    def path(wildcards, output):
        name = stage(wildcards) if callable(stage) else stage
        run = wildcards.get("run", CONFIG.name)
        return PLAN.file(
            name,
            run,
            RUNS[run].config,
            rows and rows(wildcards),
            files and files(wildcards),
            write=computes(),
        )

    return path


def packages(stage):
    """Versions of the packages that a stage uses: another one reruns it.

    Environments of conda and containers have packages of their own, and Snakemake watches what
    these are made from.
    """
    if workflow.deployment_settings.deployment_method:
        return "of the job's environment"
    if not runs_chosen_code(stage):
        return stage_packages(stage, CONFIG)
    return lambda wildcards: stage_packages(stage, of_run(wildcards))


def watched_files(files):
    """Contents of input files that no job writes. Snakemake misses one that is replaced by an
    older one."""
    # Snakemake does not compare parameters of functions that take `input`.
    return lambda wildcards: file_contents(files(wildcards), RUNS, remember=computes())


def computes():
    """Whether jobs are to run: it is no dry run, report or the like, which must change no file.
    Before the graph of the jobs is built, nobody knows."""
    return workflow.executor_plugin is not None and not workflow.dryrun


def force(mark):
    """Have the engine make a file again. To be called while it builds the graph of the jobs."""
    workflow.dag.forcefiles.add(str(mark))


@functools.cache
def force_unless(is_true, mark, stands_for):
    """The same of a file that stands for others, where some of these are missing or exchanged."""
    if workflow.is_main_process and mark.is_file() and not is_true(stands_for):
        logger.warning(
            f"{mark}: files that it stands for are missing or were exchanged; a full run makes all "
            "again."
        )
        force(mark)


def precision(wildcards):
    """The precision of the job's run."""
    return of_run(wildcards).compute.precision


def of_run(wildcards):
    """The configuration of the job's run."""
    return RUNS[wildcards.run].config
