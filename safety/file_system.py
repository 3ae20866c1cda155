"""What kind of file system a path lies on: a ledger needs one whose locks hold."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
# where locks may be lost, or the log that readers share in memory is not shared: sqlite.org/wal.html
NETWORK = frozenset(
    (
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "beegfs",
        "ceph",
        "glusterfs",
        "gpfs",
        "lustre",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.mount-s3",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
    )
)


def network_of(path: Path, mounts: str) -> str:
    """The kind of a network's file system that a path lies on; "" where it lies on none.

    Args:
        path: absolute; it need not be there yet.
        mounts: the kernel's table, as in /proc/self/mounts.
    """
    place, found = path.resolve(), (Path("/"), "")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        mounted = Path(_plain(fields[1]))
        # of two on one place the later one is seen
        if place.is_relative_to(mounted) and len(mounted.parts) >= len(found[0].parts):
            found = (mounted, fields[2])
    return found[1] if found[1] in NETWORK else ""


def network_under(path: Path) -> str:
    """The same, by this machine's table; "" where it has none."""
    try:
        path = path.resolve()  # before the table is read: to look there may mount it
        return network_of(path, MOUNTS.read_text())
    except OSError:
        return ""


def _plain(field: str) -> str:
    """A field whose blanks are spelled out in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
