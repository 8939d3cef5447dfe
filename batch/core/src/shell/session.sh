# Runs the shell of an interactive job, or a command, with the variables of the job, and leaves its exit code to the
# keeper.
# Usage: sh -c THIS muster-shell TERM [COMMAND...]
folder=$MUSTER_SHELL_FOLDER
term=$1
shift
. "$folder/environment" || exit 1
if [ -n "$term" ]; then
    export TERM="$term"
fi
if [ $# -eq 0 ]; then
    for shell in "${SHELL-}" bash sh; do
        if [ -n "$shell" ] && command -v "$shell" >/dev/null; then
            set -- "$shell"
            break
        fi
    done
fi
# They are for the shell; this process only waits.
trap : HUP INT QUIT TERM
WAITER=$$ sh -c '
    export SLURM_TASK_PID=$$
    echo "$$ $WAITER" >"$MUSTER_SHELL_FOLDER/session.new"
    mv "$MUSTER_SHELL_FOLDER/session.new" "$MUSTER_SHELL_FOLDER/session"
    unset WAITER
    exec "$@"
' muster-shell "$@"
code=$?
echo "$code" >"$folder/code.new" && mv "$folder/code.new" "$folder/code"
read -r keeper <"$folder/keeper" && kill -s USR1 "$keeper"
exit "$code"
