/* All-reduce of Open MPI, timed on request: `all_reduce_mpi FOLDER`.
 *
 * Every rank reads lines `BYTES REPETITIONS` from its pipe FOLDER/RANK, so that it sleeps while others are measured.
 * Rank 0 answers with the median over the repetitions of the slowest rank's seconds, or `wrong`. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double measure(long count, int repetitions, int rank, int size) {
    const int warm_up = 3;
    float *send = malloc(count * sizeof *send), *receive = malloc(count * sizeof *receive);
    double *times = malloc(repetitions * sizeof *times);
    for (long i = 0; i < count; i++) {
        send[i] = (float)(rank + 1);
        receive[i] = 0.0F;
    }
    for (int i = -warm_up; i < repetitions; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double began = MPI_Wtime();
        MPI_Allreduce(send, receive, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        if (i >= 0) times[i] = MPI_Wtime() - began;
    }
    int right = receive[0] == (float)(size * (size + 1) / 2) && receive[count - 1] == receive[0];
    MPI_Allreduce(MPI_IN_PLACE, times, repetitions, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, &right, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    qsort(times, repetitions, sizeof *times, ascending);
    double median = right ? times[repetitions / 2] : -1.0;
    free(send);
    free(receive);
    free(times);
    return median;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    char path[4096];
    snprintf(path, sizeof path, "%s/%d", argc > 1 ? argv[1] : ".", rank);
    FILE *requests = fopen(path, "r");
    if (!requests) MPI_Abort(MPI_COMM_WORLD, 2);
    long bytes;
    int repetitions;
    while (fscanf(requests, "%ld %d", &bytes, &repetitions) == 2) {
        double median = measure(bytes / (long)sizeof(float), repetitions, rank, size);
        if (rank == 0) {
            if (median < 0.0) printf("wrong\n");
            else printf("%.9f\n", median);
            fflush(stdout);
        }
    }
    MPI_Finalize();
    return 0;
}
