"""What a ledger may lie on."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety import Ledger, LedgerError, file_system
from safety.file_system import network_of

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/local ext4 rw 0 0
//server/share /mnt/with\\040blank cifs rw 0 0
tmpfs /mnt/both tmpfs rw 0 0
server:/both /mnt/both nfs rw 0 0
short
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/ledger.db", ""),
        ("/home/ann/rsi_results/ledger.db", "nfs4"),
        ("/home/local/ledger.db", ""),
        ("/homework/ledger.db", ""),
        ("/mnt/with blank/ledger.db", "cifs"),
        ("/mnt/both/ledger.db", "nfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path: str, kind: str):
    assert network_of(Path(path), MOUNTS) == kind


def test_a_link_lies_where_it_leads(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "far")
    assert network_of(tmp_path / "link" / "x", f"server:/ {tmp_path}/far nfs4 rw 0 0") == "nfs4"


def test_a_ledger_on_a_networks_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mounts").write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "mounts")
    with pytest.raises(
        LedgerError,
        match="cannot be opened: lies on nfs4, where locks don't hold; expected a disk of the host",
    ):
        Ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert not (tmp_path / "ledger.db").exists()
    (tmp_path / "mounts").write_text(f"server:/x {tmp_path}/share nfs4 rw 0 0\n")
    (tmp_path / "linked.db").symlink_to(tmp_path / "share" / "ledger.db")
    with pytest.raises(LedgerError, match="lies on nfs4"):
        Ledger(f"sqlite:///{tmp_path}/linked.db")
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "none")
    Ledger(f"sqlite:///{tmp_path}/ledger.db").close()
