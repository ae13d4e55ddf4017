#!/bin/bash
# The life of the package in a copy of this machine that vanishes afterwards. Runs as root in namespaces of its own (mounts, processes,
# network). Usage: deb.sh FIRST.deb SECOND.deb
set -euo pipefail

first=$(realpath "$1") second=$(realpath "$2")
top=$(mktemp -d)
mount -t tmpfs none "$top"
mkdir "$top"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
root=$top/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/debs"
cp "$first" "$root/debs/first.deb"
cp "$second" "$root/debs/second.deb"
ip link set lo up

inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"; }
fail() { echo "FAILED: $*" >&2; cat "$root/log" >&2 2>/dev/null || true; exit 1; }
is() { [[ "$1" == "$2" ]] || fail "${3:-value}: \`$1\`, expected \`$2\`"; }
owner() { inside stat -c '%U:%G %a' "$1"; }

# What the unit says, without systemd: its user, its variables, its command.
start() {
    local unit=$root$(inside dpkg -L scopeward | grep 'scopeward\.service$')
    local user environment command
    user=$(sed -n 's/^User=//p' "$unit")
    environment=$(sed -n 's/^Environment=//p' "$unit")
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    # Words of the unit, which has no quotes.
    # Not by the function: the process to be told to stop would be a shell.
    chroot "$root" /usr/bin/env -i PATH=/usr/bin setpriv --reuid "$user" --regid "$user" --init-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
        /usr/bin/env $environment $command >"$root/log" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        if inside scopeward health --config /etc/scopeward/scopeward.yaml --timeout 1s >/dev/null 2>&1; then return; fi
        kill -0 $server 2>/dev/null || fail 'the server ended'
        sleep 0.1
    done
    fail 'the server does not serve'
}
stop() {
    kill -TERM $server
    local code=0
    wait $server || code=$?
    is $code 0 'exit code of the server'
}
expand() { inside scopeward expand --audience https://mcp.example.com --scope "$1"; }
records() { inside setpriv --reuid scopeward --regid scopeward --init-groups scopeward audit tail --state-dir /var/lib/scopeward --output json | grep -c '"kind"'; }

inside dpkg -i /debs/first.deb
is "$(owner /var/lib/scopeward)" 'scopeward:scopeward 700' 'the state directory'
is "$(owner /etc/scopeward/policies/example.yaml)" 'root:root 644' 'the policy'
is "$(inside dpkg-query -W -f '${Conffiles}' scopeward | awk '{print $1}' | sort | xargs)" \
    '/etc/scopeward/policies/example.yaml /etc/scopeward/scopeward.yaml' 'files of the administrator'
inside test -s /usr/share/bash-completion/completions/scopeward || fail 'no completions'
inside test -s /usr/share/man/man1/scopeward.1.gz || fail 'no manual page'
[[ -L $root/etc/systemd/system/multi-user.target.wants/scopeward.service ]] || fail 'the unit is not enabled'
start
expand openid | grep -q '^ALLOW openid offline_access' || fail 'no answer'
stop
before=$(records)

# What an administrator does between two versions.
sed -i 's/openid, offline_access,/openid, profile, offline_access,/' "$root/etc/scopeward/policies/example.yaml"
printf 'audiences:\n  https://own.example.com: {scopesSupported: [openid]}\n' >"$root/etc/scopeward/policies/own.yaml"
sed -i 's/^auditRetention: .*/auditRetention: 90d/' "$root/etc/scopeward/scopeward.yaml"
inside chmod 750 /var/lib/scopeward

inside dpkg -i /debs/second.deb </dev/null
is "$(inside dpkg-query -W -f '${Version}' scopeward)" "$(dpkg-deb -f "$second" Version)" 'the version'
is "$(owner /var/lib/scopeward)" 'scopeward:scopeward 750' 'the state directory'
grep -q '^auditRetention: 90d' "$root/etc/scopeward/scopeward.yaml" || fail 'a setting was lost'
start
expand 'openid profile' | grep -q '^ALLOW openid profile offline_access' || fail 'the edit was lost'
inside scopeward describe --audience https://own.example.com >/dev/null || fail 'the own policy was lost'
inside scopeward audit verify --server 127.0.0.1:50551 || fail 'the chain does not hold'
stop
((before >= 2 && $(records) > before)) || fail "records: $before, then $(records)"

inside dpkg -r scopeward
[[ ! -e $root/usr/bin/scopeward ]] || fail 'the binary stayed'
[[ -e $root/var/lib/scopeward/audit || -n $(ls "$root/var/lib/scopeward") ]] || fail 'the state went'
[[ -e $root/etc/scopeward/policies/own.yaml ]] || fail 'the policy went'
inside dpkg -P scopeward
for path in /etc/scopeward /var/lib/scopeward; do
    [[ ! -e $root$path ]] || fail "$path stayed after purge: $(find "$root$path")"
done
echo 'installed, started, upgraded, removed, purged'
