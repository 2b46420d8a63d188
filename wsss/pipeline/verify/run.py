"""Check a run, or all runs below a folder."""

from __future__ import annotations

from wsss.config.errors import ConfigError
from wsss.pipeline.run_folder import run_name
from wsss.pipeline.runs import Runs
from wsss.pipeline.verify.chain import Chain
from wsss.pipeline.verify.expected import Expected
from wsss.pipeline.verify.findings import Findings
from wsss.pipeline.verify.results import Results, check_run


def verify(runs: Runs, name: str, *, quick: bool = False) -> Findings:
    """Hold what lies in the folder of a run against what would be made now.

    Each artifact that the run consists of, in its folder or in that of the run that makes it for
    several, is compared with the configuration, the code, the package versions and the content of
    what it was made from. Paths are relative to the working folder, as for the workflow.

    Args:
        name: ``results/<run>`` or ``<run>``; a name above several runs stands for all of them.
        quick: read no item of a shard, no PNG of a mask, no photograph and no truth.

    Raises:
        ConfigError: the configuration has no such run.
    """
    run = run_name(name)
    names = [other for other in runs.final if other == run or other.startswith(f"{run}/")]
    if not names:
        raise ConfigError(
            f"{name}: is no run of this configuration, whose runs are {', '.join(runs.final)}; "
            "pass the configuration that it was made with: --config"
        )
    findings = Findings()
    chain = Chain(runs, Expected(runs), findings, quick)
    for each in names:
        check_run(chain, each)
    if run == runs.name:
        Results(chain).overviews()
    return findings
