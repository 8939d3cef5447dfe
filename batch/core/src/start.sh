# Starts the script of a batch job: sees which task of an array it is, opens the output files, tells MPI which hosts
# there are, passes signals on.
# Usage: sh -c THIS muster-batch SCRIPT [ARGUMENT...]
set -u
script=$1
shift

# What the pod carries under our own name alone.
for name in ${MUSTER_TWINS-}; do
    eval "export SLURM_$name=\"\$MUSTER_$name\""
done

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
        N*) filled=$filled$SLURMD_NODENAME rest=${rest#N} ;;
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

own=$(mktemp -d "${TMPDIR:-/tmp}/muster-batch.XXXXXX") || exit 1
trap 'rm -rf "$own"' EXIT
file=$own/script
printf '%s' "$script" >"$file" && chmod 700 "$file" || exit 1

# A volume of the pod is as old as the pod, and so are the seconds of its time limit.
began=$(stat -c %Y "${MUSTER_START_MARK-}" 2>/dev/null) || began=$(date +%s)
MUSTER_JOB_START_TIME=$began SLURM_JOB_START_TIME=$began
export MUSTER_JOB_START_TIME SLURM_JOB_START_TIME
if [ -n "${MUSTER_TIME_LIMIT-}" ]; then
    MUSTER_JOB_END_TIME=$((began + MUSTER_TIME_LIMIT))
    SLURM_JOB_END_TIME=$MUSTER_JOB_END_TIME
    export MUSTER_JOB_END_TIME SLURM_JOB_END_TIME
fi
# What `id` says, without a process for it.
while read -r field real rest; do
    case $field in
    Uid:) uid=$real ;;
    Gid:) gid=$real ;;
    esac
done </proc/self/status
export SLURM_TASK_PID=$$ SLURM_JOB_UID="${uid-$(id -u)}" SLURM_JOB_GID="${gid-$(id -g)}"

# Whose mpirun the script calls is not known, so each is told which hosts there are, how many processes each has, and
# how to reach them. None may take this for a Slurm that starts processes itself, and bind them as if the machine were
# its own.
hosts=localhost
if [ -n "${OMPI_MCA_orte_default_hostfile-}" ]; then
    hosts=$(sed 's/[ :].*//' "$OMPI_MCA_orte_default_hostfile") || exit 1
fi
left=$MUSTER_NODE_TASKS
for host in $hosts; do
    tasks=${left%% *} left=${left#* }
    echo "$host slots=$tasks" >>"$own/hosts" && echo "$host:$tasks" >>"$own/hydra-hosts" || exit 1
done
OMPI_MCA_orte_default_hostfile=$own/hosts PRTE_MCA_prte_default_hostfile=$own/hosts
HYDRA_HOST_FILE=$own/hydra-hosts I_MPI_HYDRA_HOST_FILE=$own/hydra-hosts
OMPI_MCA_plm=^slurm OMPI_MCA_ras=^slurm PRTE_MCA_plm=^slurm PRTE_MCA_ras=^slurm
HYDRA_RMK=user HYDRA_LAUNCHER=fork I_MPI_HYDRA_BOOTSTRAP=fork
if [ -n "${OMPI_MCA_plm_rsh_agent-}" ]; then
    HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$OMPI_MCA_plm_rsh_agent
    I_MPI_HYDRA_BOOTSTRAP=ssh I_MPI_HYDRA_BOOTSTRAP_EXEC=$OMPI_MCA_plm_rsh_agent
    export HYDRA_LAUNCHER_EXEC I_MPI_HYDRA_BOOTSTRAP_EXEC
fi
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy-none}
PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy-none}
export OMPI_MCA_orte_default_hostfile PRTE_MCA_prte_default_hostfile HYDRA_HOST_FILE I_MPI_HYDRA_HOST_FILE
export OMPI_MCA_plm OMPI_MCA_ras PRTE_MCA_plm PRTE_MCA_ras HYDRA_RMK HYDRA_LAUNCHER I_MPI_HYDRA_BOOTSTRAP
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM PRTE_ALLOW_RUN_AS_ROOT PRTE_ALLOW_RUN_AS_ROOT_CONFIRM
export OMPI_MCA_hwloc_base_binding_policy PRTE_MCA_hwloc_default_binding_policy

# What a shell starts beside itself is deaf to INT and QUIT otherwise.
if env --default-signal=INT,QUIT >/dev/null 2>&1; then
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
        trap - TERM INT EXIT
        rest=$((MUSTER_JOB_END_TIME - MUSTER_SIGNAL_BEFORE - $(date +%s)))
        if [ "$rest" -gt 0 ]; then
            sleep "$rest"
        fi
        kill -s "$MUSTER_SIGNAL" "$child"
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
exit "$code"
