#!/usr/bin/env bash
# Mount the disk that keeps the ledger: mount_ledger.sh DEVICE FOLDER. May be run again.
set -euo pipefail
device=$1 folder=$2

if mountpoint -q "$folder"; then
    exit 0
fi
# A new disk reads as zeros; where anything else is found, or nothing can be read, nothing is written.
if sudo cmp --silent --bytes=1048576 "$device" /dev/zero; then
    sudo mkfs.ext4 -q "$device"
fi
sudo mkdir -p "$folder"
sudo mount -o nosuid,nodev,noexec "$device" "$folder"
sudo chown "$(id -u):$(id -g)" "$folder"
chmod 700 "$folder"
