# shellcheck shell=bash
# Read by mount.sh and tests/run: sets up what katafs needs on a Debian machine. Does nothing where all is there.

# what is installed is for all users, whatever the umask of whoever does it
umask 022
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# step WORDS COMMAND…: one line with the WORDS and the seconds it took; what COMMAND prints is shown if it fails.
step() {
    local words=$1 start=${EPOCHREALTIME/[.,]/} log
    shift
    log=$(mktemp 2>/dev/null) ||
        die "no temporary file can be made in ${TMPDIR:-/tmp}; set TMPDIR to a directory that can be written to"
    printf '%s … ' "$words"
    if "$@" >"$log" 2>&1 </dev/null; then
        local tenths=$(((${EPOCHREALTIME/[.,]/} - start) / 100000))
        printf '%d.%d s\n' $((tenths / 10)) $((tenths % 10))
        rm "$log"
    else
        printf 'failed\n'
        # an index or a mirror of somebody's own is nobody else's business, and its URL may have a password in it
        sed -E "s#[a-z+]+://[^[:space:]'\")]+#…#g; s#host='[^']*'#host='…'#g" "$log" >&2
        rm "$log"
        die "$words failed"
    fi
}

# setup_env DIR LOCK [PACKAGE THING]…: a virtual environment DIR in the checkout that holds exactly what LOCK names, and
# katafs itself, editable: Python is run from the checkout, so that only a change of the C source needs work here.
# PACKAGE is a Debian package to install if there is no THING, a command or a file.
setup_env() {
    local env=$root/$1 build=$root/tests/build.lock lock=$root/$2 library=$root/katafs/_fastopen.abi3.so
    local locks=("$build" "$lock")
    local sources=("$root"/pyproject.toml "$root"/katafs/__init__.py "$root"/katafs/*.[ch])
    # that the library could not be built from these sources, which is not to be tried again and again
    local lost=$env/no-library
    shift 2
    missing=()
    python=
    if ! is_stamped "$env" "${locks[@]}" && ! find_python; then
        missing+=(python3 python3-venv python3-dev)
    fi
    missing_packages fuse3 fusermount3 libfuse3-dev /usr/include/fuse3/fuse_lowlevel.h pkg-config pkg-config \
        gcc gcc libc6-dev /usr/include/stdio.h git git "$@"
    install_packages

    if ! is_stamped "$env" "${locks[@]}"; then
        [[ $python ]] || find_python || die 'there is no Python 3.11 or newer with its headers and the venv module'
        check_room
        step "making ${env##*/} with $python" "$python" -m venv --clear "$env"
        step 'installing build tools' pip_install "$env" --only-binary :all: --require-hashes -r "$build"
        step "installing ${lock#"$root"/}" pip_install "$env" --no-build-isolation --require-hashes -r "$lock"
        stamp "$env" "${locks[@]}"
    fi
    if ! is_stamped "$env" "${sources[@]}" || [[ ! -e $library && $(cat "$lost" 2>/dev/null) != "$(toolchain)" ]]; then
        check_room
        rm -f "$library" "$lost"
        step 'installing katafs' pip_install "$env" --no-build-isolation --no-deps -e "$root"
        stamp "$env" "${sources[@]}"
        [[ -e $library ]] || toolchain >"$lost"
    fi
    if [[ ! -e $library ]]; then
        echo 'note: katafs works, but in the slower mode, and without keep-alive and reload, since its C library is missing:'
        echo "      it does not compile: $(compile_error)"
    fi
}

# What the library is built with.
toolchain() { { gcc --version && pkg-config --modversion fuse3; } 2>&1; }
# The first thing that is wrong with it.
compile_error() {
    { gcc -fsyntax-only -std=gnu11 -DFUSE_USE_VERSION=35 -D_FILE_OFFSET_BITS=64 -I/usr/include/fuse3 \
        "$root/katafs/_fastopen.c" 2>&1 || true; } | sed -n '/error\|not found/{s/^.*error: //;p;q}'
}

# pip and compilers say it in many lines.
check_room() {
    local directory=${TMPDIR:-/tmp}
    [[ -d $directory && -w $directory ]] ||
        die "$directory is no directory for temporary files; set TMPDIR to one, or unset it"
    (($(df --output=avail -k -- "$directory" | tail -n 1) >= 65536)) ||
        die "fewer than 64 MiB are left in $directory; set TMPDIR to a directory with more room"
}

# stamp ENV FILE…: notes in ENV that these FILEs, as they are, have been installed there.
stamp() { digest "$@" >"$1/${2##*/}.stamp"; }
is_stamped() { [[ $(digest "$@") == "$(cat "$1/${2##*/}.stamp" 2>/dev/null)" ]]; }
digest() {
    local env=$1
    shift
    { echo "$env" && "$env/bin/python" -VV && cat "$@"; } 2>/dev/null | sha256sum
}

pip_install() {
    local env=$1
    shift
    # setuptools-scm, which builds another package, asks git about ours, too, and git refuses somebody else's checkout
    SETUPTOOLS_SCM_IGNORE_DUBIOUS_OWNER=1 \
        "$env/bin/python" -m pip install -q --retries 6 --timeout 60 "$@"
}

# Sets python to one that can make virtual environments and compile extensions.
find_python() {
    local candidate
    for candidate in python3.11 python3 /usr/bin/python3.11 /usr/bin/python3; do
        python=$("$candidate" -c '
import ensurepip, os, sys, sysconfig
print(sys.executable)
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 11) or not os.path.exists(header))' 2>/dev/null) && return
    done
    python=
    return 1
}

missing_packages() {
    while (($#)); do
        [[ -e $2 ]] || command -v "$2" >/dev/null || missing+=("$1")
        shift 2
    done
}

install_packages() {
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "this is no Debian; please install what it calls: ${missing[*]}"
    ((EUID == 0)) || die "these Debian packages are missing, and only root can install them: ${missing[*]}"
    step "installing ${missing[*]}" apt_install_or_update
}

apt_install_or_update() { apt_get install "${missing[@]}" || { apt_get update && apt_get install "${missing[@]}"; }; }
apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends \
        -o Acquire::Retries=5 -o DPkg::Lock::Timeout=300 "$@"
}
