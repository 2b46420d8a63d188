"""How anything is written, read and trusted: shards, checkpoints, atomic replace, provenance."""

import os

# HDF5 locks the files that it opens, and fails where a shared file system has no locks (NFS without
# lockd, Lustre mounted without flock). We need none: a shard is written under a temporary name and
# only finished ones are read. HDF5 looks at this each time it opens a file.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
