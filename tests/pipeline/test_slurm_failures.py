"""What a run says at its end about jobs that Slurm ended."""

from __future__ import annotations

from pathlib import Path

from wsss.pipeline.slurm_failures import explain_failures, explain_log

_LOG = """
[Sun Nov 22 00:17:12 2026]
Error in rule refine_predict:
    message: SLURM-job '6' failed, SLURM status is: 'TIMEOUT'. Detailed failure reason unavailable
    jobid: 14
Trying to restart job 14.
[Sun Nov 22 00:17:12 2026]
Error in rule refine_predict:
    message: SLURM-job '7' failed, SLURM status is: 'TIMEOUT'. Reason: Step 0: TimeLimit.
[Sun Nov 22 00:18:12 2026]
Error in rule score_cams:
    message: None
    jobid: 4
[Sun Nov 22 00:18:12 2026]
Error in rule retrain:
    message: SLURM-job '9' failed, SLURM status is: 'OUT_OF_MEMORY'. Reason: Unknown.
[Sun Nov 22 00:18:12 2026]
Error in group labels:
    message: SLURM-job '10' failed, SLURM status is: 'CANCELLED'.
[Sun Nov 22 00:18:12 2026]
Error in rule cams:
    message: SLURM-job '11' failed, SLURM status is: 'FAILED'.
"""


def test_each_rule_gets_its_remedy(tmp_path: Path) -> None:
    said = explain_failures(_LOG).splitlines()
    assert len(said) == 3  # FAILED speaks in the rule's own log
    assert said[0].startswith("refine_predict: 2 jobs (TIMEOUT) - came to the end of its time; ")
    assert "--set-resources refine_predict:runtime=MINUTES" in said[0]
    assert "retrain: a job (OUT_OF_MEMORY)" in said[1]
    assert "labels: a job (CANCELLED)" in said[2]
    log = tmp_path / "a.log"
    log.write_text(_LOG)
    assert explain_log(str(log)).splitlines() == said


def test_nothing_is_said_of_other_failures(tmp_path: Path) -> None:
    assert explain_failures("Error in rule x:\n    message: None\n") == ""
    assert explain_log(None) == ""
    assert explain_log(str(tmp_path / "none")) == ""
