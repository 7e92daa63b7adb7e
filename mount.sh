#!/usr/bin/env bash
# See usage below, or ./mount.sh --help.
set -euo pipefail
source "$(dirname "$0")/tests/setup-env.sh"

usage() {
    cat <<'END'
Usage: ./mount.sh [OPTION]...

Installs what katafs needs (Debian packages, and Python packages into .venv here),
puts it where mount, systemd, man and shells look (see katafs install --help),
makes a store of demo katas if there is no store, mounts it, and says what to try.
Run again, it does only what is left to do. Through sudo, the demo is shown as the
files of whoever called it, for all users to read.

  --store DIR       the store [/var/lib/katafs/demo]
  --mountpoint DIR  where to mount it [/mnt/katafs]
  --allow-other     let users other than root look
  --umount          unmount, and nothing else
  --setup-only      install, and nothing else
  --help            this page
END
}

demo_store=/var/lib/katafs/demo
store=$demo_store
mountpoint=/mnt/katafs
action=mount
mount_options=()
while (($#)); do
    case $1 in
        --store=* | --mountpoint=*)
            set -- "${1%%=*}" "${1#*=}" "${@:2}"
            continue
            ;;
        --store | --mountpoint)
            [[ ${2-} ]] || die "$1 needs a directory"
            declare "${1#--}=$(realpath -ms -- "$2")"
            shift
            ;;
        --allow-other) mount_options+=("$1") ;;
        --umount) action=umount ;;
        --setup-only) action=setup ;;
        -h | --help)
            usage
            exit
            ;;
        *) die "there is no option $1; see ./mount.sh --help" ;;
    esac
    shift
done

# What is mounted on the mount point: its type, and what from; nothing if nothing is.
mounted() { findmnt -nr -o FSTYPE,SOURCE -M "$mountpoint" | tail -n 1 || true; }

# Whether the store is the demo, or a part of it: who made it may have been interrupted, or the disk was full.
is_demo() {
    local path id has_any=
    [[ $store != "$demo_store" && -e $store ]] || return 0
    for path in "$store"/.new-* "$store"/??/??/??; do
        [[ -e $path ]] || continue
        id=${path#"$store"/}
        [[ $id == .new-* || $id == C1/as/s[A-F] || -e $root/katafs/demo_data/${id//\//}.json ]] || return 1
        has_any=yes
    done
    [[ $has_any ]]
}

((EUID == 0)) || die "only root can install packages and mount; try: sudo $0"
katafs=$root/.venv/bin/katafs

if [[ $action == umount ]]; then
    if [[ $(mounted) == fuse.katafs* ]]; then
        if [[ -x $katafs ]]; then "$katafs" umount "$mountpoint"; else umount "$mountpoint"; fi
        echo "Unmounted: $mountpoint."
    else
        echo "Not mounted: $mountpoint."
    fi
    exit
fi

setup_env .venv requirements.lock
# mount -t fuse.katafs, fstab, the unit of systemd, the manual pages, completion
"$katafs" install --quiet
[[ $action == mount ]] || exit 0

[[ -e /dev/fuse ]] || modprobe fuse 2>/dev/null ||
    die 'there is no /dev/fuse; a container needs: --device /dev/fuse --cap-add SYS_ADMIN'

if [[ $(mounted) == fuse.katafs* ]] && ! timeout 10 stat "$mountpoint" >/dev/null 2>&1; then
    step "unmounting $mountpoint, which nobody serves any more" "$katafs" umount "$mountpoint"
fi
now=$(mounted)
case $now in
    fuse.katafs*) echo "Already mounted: ${now#* } on $mountpoint." ;;
    ?*) die "$mountpoint is taken: ${now#* } (${now%% *}) is mounted there; choose another with --mountpoint" ;;
    *)
        if is_demo; then
            mkdir -p "$(dirname "$store")"
            words='making demo katas in'
            [[ ! -e $store ]] || words='seeing that all demo katas are in'
            step "$words $store" "$katafs" demo --groups "$store-groups" "$store"
            mount_options+=(--groups "$store-groups")
            # for the person who typed it, in whose shell the lines below are to work
            ((${SUDO_UID:-0} == 0)) || mount_options+=(--allow-other --uid "$SUDO_UID" --gid "$SUDO_GID")
        fi
        mkdir -p "$mountpoint"
        "$katafs" mount "${mount_options[@]}" "$store" "$mountpoint"
        echo "Mounted: $store on $mountpoint."
        ;;
esac

kata=$(find "$mountpoint" -mindepth 3 -maxdepth 3 -path '*/??/??/??' -print -quit)
if [[ ! $kata ]]; then
    echo "There is no kata in it yet; see: $katafs create --help"
    exit
fi
command -v man >/dev/null || echo 'note: there is no man here (Debian calls it man-db); each command has a --help'
if ((${SUDO_UID:-0} != 0)) && ! findmnt -nr -o OPTIONS -M "$mountpoint" | grep -q allow_other; then
    echo "note: this mount is for root alone; to have it for yourself: sudo $0 --umount, then again with --allow-other"
fi
class=$mountpoint/.katafs/groups/C1ass0
of_class=
[[ ! -e $class ]] || of_class="
  head $class/events.csv   # a class; index.html there, in a browser, shows all its lights"
cat <<END
Try:
  cat $mountpoint/.katafs/README.md
  ls -l $kata
  cat $kata/diff/latest
  echo '{"summary": {"colour": "green"}}' > $kata/ran_tests   # records a test run as a new event
  cat $kata/event.json$of_class
  ${SUDO_UID:+sudo }$0 --umount --mountpoint $mountpoint
END
