#!/bin/sh
# The script of an interactive job. It holds the job's place while somebody works in it, and ends with that person's shell,
# or when nobody has been heard of for too long. `watch.sh` and `session.sh` run beside it, by exec, and speak with it
# by files of a folder and SIGUSR1:
#   environment  the variables of the job, for the shell
#   keeper       the process of this script, once all is ready
#   beat         changes with every word of the client
#   watch, gone  the process that hears the client; its connection has ended
#   session      the processes that become the shell, and wait for it
#   code         the exit code of the shell
set -u
umask 077
folder=$MUSTER_SHELL_FOLDER pause=
mkdir "$folder" || exit 1
trap 'rm -rf "$folder"; kill "$pause" 2>/dev/null' EXIT

is_alive() {
    kill -0 "$1" 2>/dev/null
}

# Hangs up on the shell, waits until it has ended, and ends with this code.
hang_up() {
    trap '' TERM INT USR1
    if read -r shell waiter <"$folder/session"; then
        # One that controls jobs has its own group, and tells them; all others are in the group of the terminal's leader.
        kill -s HUP "$shell"
        kill -s HUP -- "-$waiter"
        left=200
        while is_alive "$shell" && [ "$left" -gt 0 ]; do
            sleep 0.1 || sleep 1
            left=$((left - 1))
        done
    fi 2>/dev/null
    exit "$1"
}

woken=
trap 'woken=yes; kill "$pause" 2>/dev/null' USR1
trap 'hang_up 143' TERM
trap 'hang_up 130' INT

export -p >"$folder/environment"
echo "$$" >"$folder/keeper.new" && mv "$folder/keeper.new" "$folder/keeper" || exit 1

heard=$(date +%s) beat='' over=
while :; do
    # What wakes this from here on is not slept over.
    woken=
    now=$(date +%s) last=
    if [ -e "$folder/beat" ]; then
        read -r last <"$folder/beat"
    fi
    if [ "$last" != "$beat" ]; then
        beat=$last heard=$now
    fi
    patience=$MUSTER_SHELL_PATIENCE
    if [ -e "$folder/gone" ]; then
        patience=$MUSTER_SHELL_GRACE
    fi
    if [ -e "$folder/code" ]; then
        # The client has to hear of it before the pod ends, and all that lives in it.
        over=${over:-$now}
        if [ -e "$folder/gone" ] || [ $((now - over)) -ge "$MUSTER_SHELL_GRACE" ]; then
            read -r code <"$folder/code"
            exit "$code"
        fi
    elif [ -e "$folder/gone" ] && read -r shell waiter 2>/dev/null <"$folder/session" && ! is_alive "$waiter"; then
        exit 129
    fi
    if [ $((now - heard)) -ge "$patience" ]; then
        echo "muster: nobody is at the shell of job $MUSTER_JOB_ID any more"
        hang_up 129
    fi
    sleep 5 &
    pause=$!
    if [ -z "$woken" ]; then
        wait "$pause"
    fi
done
