#!/usr/bin/env bash
# Attach the EBS volume that is tagged rsi-ray-ledger=NAME to this instance and mount it:
# ledger_volume.sh NAME FOLDER. May be run again; a head that takes another one's place finds its ledger so.
set -euo pipefail
name=$1 folder=$2

fail() {
    echo "ledger_volume.sh: $*" >&2
    exit 1
}

if mountpoint -q "$folder"; then
    exit 0
fi
instance=$(cloud-init query instance_id)
AWS_DEFAULT_REGION=$(cloud-init query region)
export AWS_DEFAULT_REGION

# It is never made here: with an empty ledger, what was spent could be spent again.
found=$(aws ec2 describe-volumes --filters "Name=tag:rsi-ray-ledger,Values=$name" \
    --query 'Volumes[].[VolumeId, Attachments[0].InstanceId]' --output text)
if [ "$(wc -w <<<"$found")" -ne 2 ]; then
    fail "expected one volume with the tag rsi-ray-ledger=$name, found: ${found:-none} (cluster.yaml says how to make it)"
fi
read -r volume holder <<<"$found"

# A volume is one instance's: two heads never write one ledger.
if [ "$holder" != "$instance" ]; then
    if [ "$holder" != None ]; then
        echo "$volume is still attached to $holder: waiting until that one has ended"
        aws ec2 wait volume-available --volume-ids "$volume" || fail "$holder keeps $volume: end it, and try again"
    fi
    aws ec2 attach-volume --volume-id "$volume" --instance-id "$instance" --device /dev/sdf >/dev/null
    aws ec2 wait volume-in-use --volume-ids "$volume"
fi
# An EBS volume shows its name as its disk's serial number.
for _ in {1..120}; do
    device=$(lsblk --noheadings --nodeps --paths --output NAME,SERIAL | awk -v serial="${volume/-/}" '$2 == serial { print $1 }')
    if [ -n "$device" ]; then
        break
    fi
    sleep 1
done
if [ -z "$device" ]; then
    fail "the disk of $volume does not appear"
fi
exec "$(dirname "$0")/../mount_ledger.sh" "$device" "$folder"
