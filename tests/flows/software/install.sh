#!/usr/bin/env bash
# What tests need and no Python package brings: environment modules, slirp4netns, apptainer, and SLURM with
# accounting.
# Debian 12 has no apptainer: it is taken from sid, with sid's libc beside the system's own. That may
# fail on another system or another day; the tests then say that they skip, and why.
set -euo pipefail

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

if [ ! -e /usr/share/modules/init/bash ]; then
    apt-get update -qq
    install environment-modules
fi

if ! command -v slirp4netns >/dev/null; then
    apt-get update -qq
    install slirp4netns || echo "slirp4netns could not be installed: its tests will be skipped." >&2
fi

# mariadb-install-db of the server's package calls my_print_defaults of the client's.
if ! command -v slurmctld >/dev/null || ! command -v mariadbd >/dev/null || ! command -v my_print_defaults >/dev/null; then
    apt-get update -qq
    install slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core mariadb-client-core || \
        echo "SLURM could not be installed: its tests will be skipped." >&2
fi

apptainer_from_sid() (
    set -e
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    install squashfs-tools uidmap bash-static busybox-static patchelf
    mkdir -p "$place"/{lists/partial,cache/archives/partial}
    cd "$place"
    source=$(awk '/^URIs/ && /debian$/ {print $2; exit}' /etc/apt/sources.list.d/*.sources)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $source sid main" > sid.list
    get="apt-get -qq -o Dir::Etc::sourcelist=$place/sid.list -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists=$place/lists -o Dir::Cache=$place/cache"
    $get update
    $get download apptainer libc6 libseccomp2
    mkdir -p /opt/sid
    for package in libc6_*.deb libseccomp2_*.deb; do dpkg -x "$package" /opt/sid; done
    dpkg -x apptainer_*.deb /
    libraries=/opt/sid/usr/lib/x86_64-linux-gnu
    for program in /usr/bin/apptainer /usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
        patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath \
            --set-rpath "$libraries:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu" "$program"
    done
    # Without it, root's capabilities are asked for, which a container without them can't give.
    sed -i 's/^root default capabilities.*/root default capabilities = no/' /etc/apptainer/apptainer.conf
)

if ! apptainer --version >/dev/null 2>&1; then
    apptainer_from_sid || echo "apptainer could not be installed: its tests will be skipped." >&2
fi
