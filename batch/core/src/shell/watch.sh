# Tells the keeper of an interactive job that the client is there: repeats what it says, line by line, and says when it
# has gone. Its first line is `ready` and how many seconds the job has left, if its time is limited.
# Usage: sh -c THIS
set -u
folder=$MUSTER_SHELL_FOLDER
trap '' HUP PIPE
until [ -e "$folder/keeper" ]; do
    sleep 0.05 2>/dev/null || sleep 1
done
read -r keeper <"$folder/keeper" || exit 1
left=$(
    . "$folder/environment"
    [ -z "${MUSTER_JOB_END_TIME-}" ] || echo $((MUSTER_JOB_END_TIME - $(date +%s)))
)
# Of two clients' connections the last counts: the end of one that broke may be heard of late.
echo "$$" >"$folder/watch" && rm -f "$folder/gone"
echo "ready $left"
{
    while read -r line; do
        echo "$line" >"$folder/beat.$$" && mv "$folder/beat.$$" "$folder/beat" || exit 1
        echo "$line"
    done
    read -r latest <"$folder/watch" && [ "$latest" = "$$" ] && : >"$folder/gone"
    kill -s USR1 "$keeper"
} 2>/dev/null
