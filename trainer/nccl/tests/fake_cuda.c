/* Those functions of the NVIDIA driver that are used, on the streams of fake_nccl.c, after which this is compiled. What
 * needs a context fails on a thread that has none. */
enum { CUDA_SUCCESS = 0, INVALID_CONTEXT = 201, NOT_READY = 600, DEVICES = 2 };

struct event { struct stream *stream; long mark; };

static char contexts[DEVICES];
static _Thread_local void *current;

int cuInit(unsigned flags) { return flags ? 1 : CUDA_SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 12080; return CUDA_SUCCESS; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return CUDA_SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < DEVICES ? CUDA_SUCCESS : 101; }

int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    strncpy(name, "a GPU in the memory of the host", length - 1);
    name[length - 1] = 0;
    return CUDA_SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)attribute, (void)device;
    *value = 1;
    return CUDA_SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &contexts[device]; return CUDA_SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return CUDA_SUCCESS; }
int cuCtxSetCurrent(void *context) { current = context; return CUDA_SUCCESS; }
int cuCtxGetCurrent(void **context) { *context = current; return CUDA_SUCCESS; }
int cuCtxSynchronize(void) { return current ? CUDA_SUCCESS : INVALID_CONTEXT; }
int cuGetErrorName(int error, const char **name) { (void)error; *name = "an error"; return CUDA_SUCCESS; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "an error"; return CUDA_SUCCESS; }

int cuStreamCreate(struct stream **stream, unsigned flags) {
    (void)flags;
    *stream = current ? fake_stream_create() : 0;
    return *stream ? CUDA_SUCCESS : INVALID_CONTEXT;
}

int cuStreamDestroy_v2(struct stream *stream) { fake_stream_destroy(stream); return CUDA_SUCCESS; }

int cuStreamSynchronize(struct stream *stream) {
    if (!current) return INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    long mark = stream->given;
    while (stream->done < mark) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

int cuEventCreate(struct event **event, unsigned flags) {
    (void)flags;
    *event = calloc(1, sizeof **event);
    return current ? CUDA_SUCCESS : INVALID_CONTEXT;
}

int cuEventDestroy_v2(struct event *event) { free(event); return CUDA_SUCCESS; }

int cuEventRecord(struct event *event, struct stream *stream) {
    if (!current) return INVALID_CONTEXT;
    *event = (struct event){stream, fake_stream_mark(stream)};
    return CUDA_SUCCESS;
}

int cuEventQuery(struct event *event) {
    if (!current) return INVALID_CONTEXT;
    return !event->stream || fake_stream_reached(event->stream, event->mark) ? CUDA_SUCCESS : NOT_READY;
}

int cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags) {
    (void)flags;
    if (!current) return INVALID_CONTEXT;
    if (event->stream && event->stream != stream) fake_stream_wait(stream, event->stream, event->mark);
    return CUDA_SUCCESS;
}

int cuMemAllocAsync(uint64_t *address, size_t bytes, struct stream *stream) {
    (void)stream;
    *address = (uint64_t)malloc(bytes);
    return current ? CUDA_SUCCESS : INVALID_CONTEXT;
}

static void run_free(void *memory) { free(memory); }

int cuMemFreeAsync(uint64_t address, struct stream *stream) {
    pthread_mutex_lock(&lock);
    give(stream, run_free, (void *)address);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

struct filling { void *memory; int value; size_t bytes; };

static void run_filling(void *argument) {
    struct filling *filling = argument;
    memset(filling->memory, filling->value, filling->bytes);
    free(filling);
}

int cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, struct stream *stream) {
    struct filling *filling = malloc(sizeof *filling);
    *filling = (struct filling){(void *)address, value, bytes};
    pthread_mutex_lock(&lock);
    give(stream, run_filling, filling);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, struct stream *stream) {
    int code = cuStreamSynchronize(stream);
    memcpy((void *)to, from, bytes);
    return code;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, struct stream *stream) {
    int code = cuStreamSynchronize(stream);
    memcpy(to, (void *)from, bytes);
    return code;
}
