// Every rank gives its own number to the sum of all, twenty times over vectors of growing size, and checks what
// comes back. Exits with 1 where a sum is wrong.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size, length;
    char host[MPI_MAX_PROCESSOR_NAME];
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(host, &length);
    const double expected = (double)size * (size + 1) / 2;
    int wrong = 0;
    for (int round = 0; round < 20; round++) {
        const int count = 1 + round * round * 50;
        double *values = malloc(count * sizeof *values);
        if (values == NULL) {
            fprintf(stderr, "rank %d: no memory for %d numbers\n", rank, count);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
        for (int i = 0; i < count; i++) {
            values[i] = rank + 1;
        }
        MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        for (int i = 0; i < count; i++) {
            wrong += values[i] != expected;
        }
        free(values);
    }
    printf("rank %d of %d on %s: 20 sums, %d wrong numbers\n", rank, size, host, wrong);
    MPI_Finalize();
    return wrong != 0;
}
