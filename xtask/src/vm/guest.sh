#!/bin/bash
# Runs in the guest, as root, once after each of its starts. Each line that it prints is `ok WHAT`,
# `failed WHAT`, `note WHAT`, or `end` when there is nothing more to come.
set -u
here=/srv
state=/var/lib/firewall-test
mkdir -p "$state"

. "$here/reach.sh"

# Checks: a name, and a command that has to succeed.
check() {
    local name=$1
    shift
    if "$@" >"$state/output" 2>&1; then
        echo "ok $name"
    else
        echo "failed $name: $(tail -n 3 "$state/output" | tr '\n' ' ')"
        journalctl --unit=firewall.service --unit=firewall-early.service --no-pager --lines=15 --output=cat |
            sed 's/^/# /'
    fi
}
fails() { ! "$@"; }
# That none of these paths is there.
gone() {
    local path
    for path in "$@"; do
        [ ! -e "$path" ] && [ ! -L "$path" ] || { echo "$path is there"; return 1; }
    done
}
# Waits up to two minutes for a command to succeed: without KVM a second is soon over.
soon() {
    local until=$((SECONDS + 120))
    while [ "$SECONDS" -lt "$until" ]; do
        "$@" && return
        sleep 0.5
    done
    echo "not within 120 s: $*"
    return 1
}

serve() {
    for namespace in allowed denied; do
        systemd-run --quiet --unit="serve-$namespace" ip netns exec "$namespace" \
            systemd-socket-activate --accept --inetd --listen=80 /bin/echo hello
    done
    soon reaches "$ALLOWED"
}
reaches() { [ "$(timeout 5 bash -c "head -n 1 </dev/tcp/$1/80" 2>/dev/null)" = hello ]; }
denied() {
    local before
    before=$(segments denied)
    for address in "$DENIED" "$DENIED6"; do
        reaches "$address" && echo "$address answers" && return 1
    done
    # That nothing answers is not enough: nothing may arrive.
    [ "$(segments denied)" = "$before" ]
}
allowed() { reaches "$ALLOWED" && reaches "$ALLOWED6"; }
active() { systemctl is-active --quiet firewall.service; }
main_pid() { systemctl show --property=MainPID --value firewall.service; }
restarted() { active && [ "$(main_pid)" != "$1" ]; }
runs_as_its_user() {
    [ "$(stat --format=%U "/proc/$(main_pid)")" = firewall ] ||
        grep -q "^Uid:.*\b$(id --user firewall)\b" "/proc/$(main_pid)/status"
}
version_is() { [ "$(dpkg-query --show --showformat='${Version}' firewall)" = "$1" ]; }
package() { echo "$here/$1.deb"; }
package_version() { dpkg-deb --field "$(package "$1")" Version; }

# Connects all the time, for as long as a command takes: nothing may arrive at the denied addresses,
# and nothing that is allowed may fail.
meanwhile() {
    local before
    before=$(segments denied)
    rm -f "$state/stop" "$state/trouble"
    (
        while [ ! -e "$state/stop" ]; do
            for address in "$DENIED" "$DENIED6"; do
                reaches "$address" && echo "$address answers" >>"$state/trouble"
            done
            allowed || echo "what is allowed fails" >>"$state/trouble"
            echo >>"$state/rounds"
        done
    ) &
    local visitor=$!
    "$@"
    local status=$?
    touch "$state/stop"
    wait "$visitor"
    [ "$status" = 0 ] || return 1
    [ ! -e "$state/trouble" ] || { sort "$state/trouble" | uniq --count; return 1; }
    [ "$(segments denied)" = "$before" ] || { echo "segments arrived"; return 1; }
}

kill_daemon() {
    local pid
    pid=$(main_pid)
    systemctl kill --signal=KILL --kill-who=all firewall.service
    denied || return 1
    soon restarted "$pid"
}

first_start() {
    files >"$state/before"
    check "the package installs" dpkg --install "$(package first)"
    cp "$state/output" "$state/installed"
    check "it says how to block something" grep -q "firewall policy enable" "$state/installed"
    check "the service is up" soon active
    check "both units are enabled" systemctl is-enabled --quiet firewall.service firewall-early.service
    check "the daemon is of its own user" runs_as_its_user
    check "the group is there" getent group firewall
    check "nothing is blocked yet" reaches "$DENIED"
    check "a policy is enabled" firewall policy enable cn-jurisdiction
    cp "$here/by-path.toml" /etc/firewall/policies.d/
    check "it is loaded" systemctl reload firewall.service
    check "what it denies is denied" denied
    check "the rest is allowed" allowed
    check "the path of an executable is trusted" reaches "$BY_PATH"
    check "the verdict is in the log" soon in_log
    check "the log is whole and signed" firewall log verify
    printf '[log]\njournal = "on"\njson = "/var/log/firewall/events.jsonl"\n' >>/etc/firewall/firewall.toml
    check "the service starts with more sinks" systemctl restart firewall.service
    check "denied with them" denied
    check "the journal shows every field" soon in_journal
    check "and the file has it" soon grep -q '"verdict":"deny".*cn-jurisdiction' /var/log/firewall/events.jsonl
    echo "nonsense" >/etc/firewall/policies.d/wrong.toml
    check "a wrong policy is refused" fails systemctl reload firewall.service
    check "and what was in force holds" denied
    rm /etc/firewall/policies.d/wrong.toml
    check "killed, it is denied all the while, and the service comes back" meanwhile kill_daemon
    check "denied after that" denied
    check "allowed after that" allowed
    echo second_start >"$state/stage"
    systemctl reboot 2>/dev/null
}

second_start() {
    check "after a restart of the machine, denied with the first packet" early 0 denied
    check "and the rest was allowed" early 1 allowed
    check "the early unit was done before the network" before_network
    check "the service is up again" soon active
    check "denied" denied
    check "allowed" allowed
    local pid
    pid=$(main_pid)
    check "upgraded, it is denied all the while" meanwhile dpkg --install "$(package second)"
    check "it is the new version" version_is "$(package_version second)"
    check "the service was restarted" soon restarted "$pid"
    check "denied by it" denied
    check "allowed by it" allowed
    check "the log of before is there, whole and signed" log_since "$(cat "$state/denied")"
    check "the package is removed" dpkg --remove firewall
    check "what was denied is allowed" reaches "$DENIED"
    check "nothing of it runs" nothing_runs
    local enabled=/var/lib/systemd/deb-systemd-helper-enabled
    check "configuration, log, key and what was enabled are left, and no other file" left_are \
        /etc/firewall /var/lib/firewall /var/lib/firewall-key /var/log/firewall \
        {/etc/systemd/system,$enabled}/multi-user.target.wants/firewall{,-early}.service \
        $enabled/firewall{,-early}.service.dsh-also /var/lib/dpkg/info/firewall.{list,postrm}
    check "installed again, it denies" installed_again
    check "with the same log" log_since "$(cat "$state/denied")"
    check "the package is purged" dpkg --purge firewall
    check "what was denied is allowed again" reaches "$DENIED"
    check "nothing runs any more" nothing_runs
    check "no file is left" left_are
    check "its user is left" getent passwd firewall
}

# What the first connections of this start found: at least, or no more than, so many segments.
early() {
    local arrived
    arrived=$(sed -n "s/^$2 //p" /run/first-packets)
    echo "arrived: ${arrived:-nothing known}"
    if [ "$1" = 0 ]; then [ "$arrived" = 0 ]; else [ "${arrived:-0}" -ge "$1" ]; fi
}
before_network() {
    local boot network
    boot=$(systemctl show --property=ExecMainExitTimestampMonotonic --value firewall-early.service)
    network=$(systemctl show --property=ActiveEnterTimestampMonotonic --value network-pre.target)
    echo "early unit done at $boot us, network-pre.target at $network us"
    [ "$boot" -gt 0 ] && [ "$boot" -lt "$network" ]
}
in_log() {
    firewall log --json --policy cn-jurisdiction --verdict deny | grep --max-count=1 . >"$state/denied"
}
# The log is whole, and has this line of before.
log_since() {
    firewall log verify && firewall log --json | grep --quiet --line-regexp --fixed-strings "$1"
}

# The last denied connection has in the journal each fact that it has in the log, by a name that ends in
# its key, and those that it must have. What is an array there is looked at by its name alone.
in_journal() {
    local event time entry fields field pair key value
    event=$(firewall log --json --policy cn-jurisdiction --verdict deny | grep '"hook":"connect"' | tail --lines=1)
    time=$(sed 's/.*"time":"\([^"]*\)".*/\1/' <<<"$event")
    entry=$(journalctl SYSLOG_IDENTIFIER=firewall FIREWALL_TIME="$time" --output=json --lines=1)
    fields=$'\n'$(grep --only-matching '"[A-Z_]*":"[^"]*"' <<<"$entry" | sed 's/"\([A-Z_]*\)":"\(.*\)"/\1=\2\n/')$'\n'
    for field in MESSAGE PRIORITY SYSLOG_IDENTIFIER FIREWALL_{SCHEMA,SEQ,TIME,VERDICT,MODE,REASON,ACTION,POLICY,RULE} \
        FIREWALL_{EVIDENCE,HOOK,APP,EXE,PACKAGE,PACKAGE_VERSION,PID,PARENTS,UID,USER,GID,CGROUP,UNIT,PROTO} \
        FIREWALL_{DST_IP,DST_PORT,COUNTRY,ASN,AS_NAME,COUNT,BYTES_OUT,BYTES_IN}; do
        grep -q "\"$field\":[\"[]" <<<"$entry" || { echo "no $field: $entry"; return 1; }
    done
    while read -r pair; do
        key=${pair%%:*}
        key=${key//\"/}
        value=${pair#*:}
        value=${value#\"}
        value=${value%\"}
        # What is called `name` in the log goes by what it is the name of.
        [ "$key" = name ] && key='[A-Z_]+'
        [[ $fields =~ $'\n'FIREWALL_([A-Z]+_)*${key^^}"=$value"$'\n' ]] ||
            { echo "$pair of the log is not in: $entry"; return 1; }
    done < <(grep --only-matching '"[a-z_]*":\("[^"]*"\|[0-9]\+\)' <<<"$event")
}

installed_again() { dpkg --install "$(package second)" && soon active && denied && allowed; }
nothing_runs() {
    gone /sys/fs/bpf/firewall /run/firewall || return 1
    ! pgrep_firewall || { echo "a process is left"; return 1; }
    # What was enabled is known by name still: `not-found`.
    ! systemctl list-units --all --plain --no-legend 'firewall*' | grep -v ' not-found '
}
# All files of this machine but those that it changes by itself, and this test's.
files() {
    find / -xdev \( -path "$state" -o -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/log/journal \
        -o -path '/var/lib/systemd/[^d]*' -o -path /var/backups -o -path /srv \) -prune -o -print | sort
}
# These folders, what is in them, and nothing else was not there before the package was.
left_are() {
    local folder new
    new=$(comm -13 "$state/before" <(files))
    for folder in "$@"; do
        grep -qx "$folder" <<<"$new" || { echo "no $folder"; return 1; }
        new=$(grep -v "^$folder\(/\|$\)" <<<"$new")
    done
    [ -z "$new" ] || { echo "left:" $new; return 1; }
}
pgrep_firewall() { grep -qx firewall /proc/[0-9]*/comm; }

timeout 300 systemctl is-system-running --wait >/dev/null
check "the servers answer" serve
echo "note kernel $(uname --kernel-release)"
echo "note systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')"
stage=$(cat "$state/stage" 2>/dev/null || echo first_start)
"$stage"
if [ "$stage" = second_start ]; then
    echo end
    systemctl poweroff 2>/dev/null
fi
