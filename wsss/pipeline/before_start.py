"""What is refused before any job of a run, and needs more than the configuration's own sections."""

from __future__ import annotations

from wsss.config.cross_checks import check_encoder_sizes, check_photo_folder
from wsss.config.errors import ConfigError
from wsss.config.model import Config
from wsss.config.score import report_class_problem
from wsss.data.datasets.classes import configured_classes
from wsss.data.errors import DataError


def check_before_start(config: Config, where: str) -> None:
    """Refuse what a stage would refuse later, after hours perhaps.

    Args:
        where: its source, for messages.

    Raises:
        ConfigError: see `check_photo_folder`, `check_encoder_sizes` and `check_class_names`.
    """
    check_photo_folder(config, where)
    check_encoder_sizes(config, where)
    check_class_names(config, where)


def check_class_names(config: Config, where: str) -> None:
    """Check classes, prompts and backgrounds, and the classes of an extra column of the scores.

    Without ``data.classes`` the classes of photos are the tags of a table, which is not read here.

    Args:
        where: its source, for messages.

    Raises:
        ConfigError: two classes are spelled alike, or a name is no class or cannot be one.
    """
    try:
        classes = configured_classes(config.data, config.variant)
    except DataError as error:
        raise ConfigError(f"{where}: not a valid configuration\n  {error}") from None
    if classes is None:
        return
    for name in config.score.report_classes:
        if problem := report_class_problem(name, ["background", *classes.names]):
            raise ConfigError(f"{where}: not a valid configuration\n  {problem}")
