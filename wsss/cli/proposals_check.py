"""Whether the mask proposals that a configuration names are there, before a run needs them."""

from __future__ import annotations

import logging

from wsss.config.model import Config
from wsss.config.paths import expand_path

_log = logging.getLogger(__name__)


def check_proposals(config: Config) -> None:
    """Count the images without a file of mask proposals (``masks.refine: sam``).

    What is missing is only logged: jobs may run elsewhere. Images that are not there either, such
    as the demo's before its first run, are not counted.
    """
    if config.masks.refine != "sam" or not config.cam_splits:
        return
    from wsss.data.datasets.registry import read_dataset
    from wsss.data.errors import DataError
    from wsss.masks.proposal_files import proposal_path

    folder = expand_path(config.masks.proposals.path)
    if not folder.is_dir():
        _log.warning(
            "warning for jobs that run here: masks.proposals.path: %s: no such folder", folder
        )
        return
    try:
        images = read_dataset(config.data, config.variant).candidates
    except DataError:  # `wsss data check` says what is missing of the data set
        return
    needed = [
        image.id
        for image in images
        if image.split in config.cam_splits and image.tags and not (image.problem or image.skipped)
    ]
    missing = [image for image in needed if not proposal_path(folder, image).is_file()]
    if missing:
        _log.warning(
            "warning for jobs that run here: masks.proposals.path: %s: %d of %d images have no "
            "<id>.json: %s",
            folder,
            len(missing),
            len(needed),
            ", ".join(missing[:5]) + ", …" * (len(missing) > 5),
        )
