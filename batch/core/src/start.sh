# Starts the script of a batch job: sees which task of an array it is, opens the output files, passes signals on.
# Usage: sh -c THIS muster-batch SCRIPT [ARGUMENT...]
set -u
script=$1
shift

if [ -n "${MUSTER_ARRAY_RANGES-}" ]; then
    left=$JOB_COMPLETION_INDEX
    for range in $MUSTER_ARRAY_RANGES; do
        first=${range%%:*} step=${range##*:} count=${range#*:}
        count=${count%:*}
        if [ "$left" -lt "$count" ]; then
            task=$((first + left * step))
            break
        fi
        left=$((left - count))
    done
    MUSTER_JOB_ID=$((MUSTER_ARRAY_JOB_ID + JOB_COMPLETION_INDEX))
    MUSTER_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_ID=$task
    SLURM_JOB_ID=$MUSTER_JOB_ID SLURM_JOBID=$MUSTER_JOB_ID
    export MUSTER_JOB_ID MUSTER_ARRAY_TASK_ID SLURM_ARRAY_TASK_ID SLURM_JOB_ID SLURM_JOBID
fi

fill() {
    rest=$1 filled=
    while :; do
        case $rest in
        *%*) ;;
        *) filled=$filled$rest && return ;;
        esac
        filled=$filled${rest%%%*}
        rest=${rest#*%}
        case $rest in
        a*) filled=$filled${MUSTER_ARRAY_TASK_ID-0} rest=${rest#a} ;;
        j*) filled=$filled$MUSTER_JOB_ID rest=${rest#j} ;;
        N*) filled=$filled$MUSTER_JOB_NODELIST rest=${rest#N} ;;
        %*) filled=$filled% rest=${rest#%} ;;
        *) filled=$filled% ;;
        esac
    done
}

if [ -n "${MUSTER_OUTPUT-}" ]; then
    fill "$MUSTER_OUTPUT"
    echo "muster: the output of job $MUSTER_JOB_ID goes to $filled"
    output=$filled
    exec >"$output" || exit 1
    if [ -z "${MUSTER_ERROR-}" ]; then
        exec 2>&1
    fi
fi
if [ -n "${MUSTER_ERROR-}" ]; then
    fill "$MUSTER_ERROR"
    if [ "$filled" = "${output-}" ]; then
        exec 2>&1
    else
        exec 2>"$filled" || exit 1
    fi
fi

file=$(mktemp "${TMPDIR:-/tmp}/muster-batch.XXXXXX") || exit 1
printf '%s' "$script" >"$file" && chmod 700 "$file" || exit 1
export SLURM_TASK_PID=$$
# What a shell starts beside itself is deaf to INT and QUIT otherwise.
if env --default-signal=INT,QUIT true 2>/dev/null; then
    env --default-signal=INT,QUIT "$file" "$@" &
else
    "$file" "$@" &
fi
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
trap 'kill -INT "$child" 2>/dev/null' INT
watch=
if [ -n "${MUSTER_SIGNAL-}" ]; then
    (
        trap - TERM INT
        sleep "$MUSTER_SIGNAL_AFTER" && kill -s "$MUSTER_SIGNAL" "$child"
    ) >/dev/null 2>&1 &
    watch=$!
fi
wait "$child"
code=$?
# A signal ends the wait, not the script.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done
if [ -n "$watch" ]; then
    kill "$watch" 2>/dev/null
fi
rm -f "$file"
exit "$code"
