"""The scripts that bring a head its ledger's disk, with a cloud that is played."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.hosts import ROOT

ATTACH = ROOT / "deploy" / "aws" / "ledger_volume.sh"
MOUNT = ROOT / "deploy" / "mount_ledger.sh"
# what the scripts call and this machine must not do; each call is written down
PLAYED = {
    "sudo": 'exec "$@"',
    "cloud-init": "case $2 in instance_id) echo i-head ;; region) echo us-west-2 ;; esac",
    "aws": 'case "$2 $3" in describe-*) cat volumes ;; *-available) exit "$(cat waited)" ;; esac',
    "lsblk": 'echo "$PWD/disk vol1"',
    "mountpoint": "[ -e mounted ]",
    "mkfs.ext4": ":",
    "mount": "touch mounted",
    "chown": ":",
}


@dataclass(frozen=True)
class Head:
    """An instance in a folder: its disk is a file, and so is what the cloud answers."""

    folder: Path

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "HOME": str(self.folder)}
        words = [str(word) for word in command]
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def attach(self) -> subprocess.CompletedProcess[str]:
        return self.run(ATTACH, "rsi-ray", self.folder / "ledger")

    def called(self, *names: str) -> list[str]:
        calls = self.folder / "calls"
        told = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in told if line.startswith(names)]


@pytest.fixture
def head(tmp_path: Path) -> Head:
    (tmp_path / "bin").mkdir()
    for name, does in PLAYED.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{does}\n')
        program.chmod(0o755)
    (tmp_path / "volumes").write_text("vol-1\tNone\n")
    (tmp_path / "waited").write_text("0")
    (tmp_path / "disk").write_bytes(bytes(2**21))
    return Head(tmp_path)


def test_a_volume_that_nobody_holds_is_attached_formatted_once_and_mounted(head: Head):
    assert head.attach().returncode == 0
    assert head.called("aws ec2 attach-volume") == [
        "aws ec2 attach-volume --volume-id vol-1 --instance-id i-head --device /dev/sdf"
    ]
    assert head.called("mkfs.ext4", "mount ") == [
        f"mkfs.ext4 -q {head.folder}/disk",
        f"mount -o nosuid,nodev,noexec {head.folder}/disk {head.folder}/ledger",
    ]


def test_a_disk_that_anything_is_on_is_mounted_and_not_formatted(head: Head):
    (head.folder / "disk").write_bytes(bytes(2**20 - 1) + b"\x01")
    assert head.attach().returncode == 0
    assert head.called("mkfs") == []
    assert len(head.called("mount ")) == 1


def test_a_disk_that_can_not_be_read_is_not_formatted(head: Head):
    (head.folder / "disk").unlink()
    head.run(MOUNT, head.folder / "disk", head.folder / "ledger")
    assert head.called("mkfs") == []


def test_where_the_ledger_is_mounted_already_nothing_is_done(head: Head):
    (head.folder / "mounted").touch()
    assert head.attach().returncode == 0
    assert head.called("aws", "mount ", "mkfs") == []


def test_a_volume_that_is_attached_here_already_is_mounted(head: Head):
    (head.folder / "volumes").write_text("vol-1\ti-head\n")
    assert head.attach().returncode == 0
    assert head.called("aws ec2 attach-volume") == []
    assert len(head.called("mount ")) == 1


def test_a_head_waits_for_the_one_before_to_end(head: Head):
    (head.folder / "volumes").write_text("vol-1\ti-old\n")
    assert head.attach().returncode == 0
    verbs = [line.split()[2] for line in head.called("aws")]
    assert verbs == ["describe-volumes", "wait", "attach-volume", "wait"]


def test_a_volume_that_another_head_keeps_is_not_taken_from_it(head: Head):
    (head.folder / "volumes").write_text("vol-1\ti-old\n")
    (head.folder / "waited").write_text("255")
    done = head.attach()
    assert done.returncode == 1
    assert "i-old keeps vol-1: end it, and try again" in done.stderr
    assert head.called("aws ec2 attach-volume", "aws ec2 detach-volume", "mount ") == []


@pytest.mark.parametrize("volumes", ["", "vol-1\tNone\nvol-2\tNone\n"], ids=["none", "two"])
def test_no_ledger_is_made_or_chosen_where_not_exactly_one_is_found(head: Head, volumes: str):
    (head.folder / "volumes").write_text(volumes)
    done = head.attach()
    assert done.returncode == 1
    assert "expected one volume with the tag rsi-ray-ledger=rsi-ray" in done.stderr
    assert [line.split()[2] for line in head.called("aws")] == ["describe-volumes"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (Debian: shellcheck)")
def test_shellcheck_finds_nothing_in_the_scripts():
    done = subprocess.run(["shellcheck", ATTACH, MOUNT], capture_output=True, text=True, check=False)
    assert done.stdout == ""
