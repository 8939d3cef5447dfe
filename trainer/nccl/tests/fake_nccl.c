/* A library with the interface of NCCL on the memory of this process, for tests without a GPU. Ranks are threads that
 * pass the same id; a stream is a thread with a list of tasks. It is stricter than NCCL where that finds mistakes: calls
 * are given to the stream only when their state is asked for, a communicator that is used after its end is counted, and
 * memory of communicators is never used again, so that such a use is certain to be seen. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION 22907
#endif

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, IN_PROGRESS = 7 };
enum { INT8 = 0, UINT8 = 1, INT32 = 2, INT64 = 4, FLOAT16 = 6, FLOAT32 = 7, FLOAT64 = 8, BFLOAT16 = 9 };
enum { SUM = 0, PROD = 1, MAX = 2, MIN = 3, AVG = 4 };
enum { MAX_RANKS = 8, MAX_SLOTS = 64, MAX_MAIL = 256, MAX_GROUP = 64, POLLS = 3 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct unique_id { char bytes[128]; };

struct config {
    size_t size;
    unsigned magic, version;
    int blocking, cga, min_ctas, max_ctas;
    const char *net_name;
    int split_share;
};

/* Streams. */
struct task { void (*run)(void *); void *argument; struct task *next; };
struct stream { pthread_t thread; struct task *first, *last; long given, done; int closing; };

static void *stream_main(void *argument) {
    struct stream *stream = argument;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!stream->first && !stream->closing) pthread_cond_wait(&changed, &lock);
        struct task *task = stream->first;
        if (!task) break;
        stream->first = task->next;
        if (!stream->first) stream->last = 0;
        task->run(task->argument); /* with the lock; waits give it up */
        free(task);
        stream->done++;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static void give(struct stream *stream, void (*run)(void *), void *argument) {
    struct task *task = calloc(1, sizeof *task);
    task->run = run;
    task->argument = argument;
    if (stream->last) stream->last->next = task; else stream->first = task;
    stream->last = task;
    stream->given++;
    pthread_cond_broadcast(&changed);
}

void *fake_stream_create(void) {
    struct stream *stream = calloc(1, sizeof *stream);
    if (pthread_create(&stream->thread, 0, stream_main, stream)) { free(stream); return 0; }
    return stream;
}

void fake_stream_destroy(struct stream *stream) {
    pthread_mutex_lock(&lock);
    stream->closing = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    pthread_join(stream->thread, 0);
    free(stream);
}

long fake_stream_mark(struct stream *stream) {
    pthread_mutex_lock(&lock);
    long mark = stream->given;
    pthread_mutex_unlock(&lock);
    return mark;
}

int fake_stream_reached(struct stream *stream, long mark) {
    pthread_mutex_lock(&lock);
    int reached = stream->done >= mark;
    pthread_mutex_unlock(&lock);
    return reached;
}

struct waiting { struct stream *stream; long mark; };

static void run_waiting(void *argument) {
    struct waiting *waiting = argument;
    while (waiting->stream->done < waiting->mark) pthread_cond_wait(&changed, &lock);
    free(waiting);
}

void fake_stream_wait(struct stream *stream, struct stream *other, long mark) {
    struct waiting *waiting = malloc(sizeof *waiting);
    *waiting = (struct waiting){other, mark};
    pthread_mutex_lock(&lock);
    give(stream, run_waiting, waiting);
    pthread_mutex_unlock(&lock);
}

/* A task that ends when a gate of the tests is opened. */
static void run_gate(void *gate) {
    while (!*(volatile int *)gate) pthread_cond_wait(&changed, &lock);
}

void fake_stream_gate(struct stream *stream, int *gate) {
    pthread_mutex_lock(&lock);
    give(stream, run_gate, gate);
    pthread_mutex_unlock(&lock);
}

void fake_open(int *gate) {
    pthread_mutex_lock(&lock);
    *gate = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Groups. */
struct work;
struct comm;

struct slot { long sequence; int arrived, left, kind, type, operation, root; size_t count; void *data[MAX_RANKS]; };
struct mail { int from, to; size_t bytes; void *data; struct mail *next; };
struct splitting { long sequence; int arrived, left, colour[MAX_RANKS], key[MAX_RANKS]; };

struct world {
    uint64_t id;
    int ranks, arrived, misuses, live, never, hang_abort;
    struct slot slots[MAX_SLOTS];
    struct mail *mail;
    struct splitting splittings[MAX_SLOTS];
    struct comm *members[MAX_RANKS];
    struct world *next;
};

struct comm {
    struct world *world;
    int rank, polls, error, aborted, gone, finalizing;
    long calls, splits, outstanding;
    struct work *launching; /* given to the stream after some looks at the state */
    int split_colour;
    struct comm **split_place;
    char last_error[128];
};

enum kind { ALL_REDUCE, REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, SEND, RECEIVE };

struct work {
    enum kind kind;
    struct comm *comm;
    struct stream *stream;
    const void *send;
    void *receive;
    size_t count;
    int type, operation, root;
    long sequence;
    struct work *next;
};

static struct world *worlds;
static uint64_t last_id;

static struct world *world_of(uint64_t id) {
    for (struct world *world = worlds; world; world = world->next)
        if (world->id == id) return world;
    struct world *world = calloc(1, sizeof *world);
    for (int i = 0; i < MAX_SLOTS; i++) world->slots[i].sequence = world->splittings[i].sequence = -1;
    world->id = id;
    world->next = worlds;
    return worlds = world;
}

static uint64_t number_of(const struct unique_id *id) {
    uint64_t number;
    memcpy(&number, id->bytes, sizeof number);
    return number;
}

static size_t width(int type) {
    switch (type) {
    case INT8: case UINT8: return 1;
    case FLOAT16: case BFLOAT16: return 2;
    case INT32: case FLOAT32: return 4;
    case INT64: case FLOAT64: return 8;
    default: return 0;
    }
}

static float of_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define COMBINE(type, wide, load, store)                                                     \
    for (size_t i = 0; i < count; i++) {                                                     \
        wide all = load(((const type *)parts[0])[from + i]);                                 \
        for (int rank = 1; rank < ranks; rank++) {                                           \
            wide one = load(((const type *)parts[rank])[from + i]);                          \
            switch (operation) {                                                             \
            case SUM: case AVG: all += one; break;                                           \
            case PROD: all *= one; break;                                                    \
            case MAX: if (one > all) all = one; break;                                       \
            case MIN: if (one < all) all = one; break;                                       \
            }                                                                                \
        }                                                                                    \
        if (operation == AVG) all /= ranks;                                                  \
        ((type *)to)[i] = store(all);                                                        \
    }                                                                                        \
    break
#define SAME(value) (value)

static void combine(void **parts, int ranks, size_t from, size_t count, int type, int operation, void *to) {
    switch (type) {
    case INT8: COMBINE(int8_t, int, SAME, SAME);
    case UINT8: COMBINE(uint8_t, int, SAME, SAME);
    case INT32: COMBINE(int32_t, int64_t, SAME, SAME);
    case INT64: COMBINE(int64_t, int64_t, SAME, SAME);
    case FLOAT16: COMBINE(_Float16, float, SAME, SAME);
    case FLOAT32: COMBINE(float, float, SAME, SAME);
    case FLOAT64: COMBINE(double, double, SAME, SAME);
    case BFLOAT16: COMBINE(uint16_t, float, of_bf16, to_bf16);
    }
}

static void fail(struct comm *comm, int code, const char *why) {
    comm->error = code;
    strncpy(comm->last_error, why, sizeof comm->last_error - 1);
    pthread_cond_broadcast(&changed);
}

static void run_message(struct work *work) {
    struct comm *comm = work->comm;
    struct world *world = comm->world;
    size_t bytes = work->count * width(work->type);
    if (work->kind == SEND) {
        struct mail *mail = calloc(1, sizeof *mail), **end = &world->mail;
        *mail = (struct mail){comm->rank, work->root, bytes, malloc(bytes + 1), 0};
        memcpy(mail->data, work->send, bytes);
        while (*end) end = &(*end)->next;
        *end = mail;
        pthread_cond_broadcast(&changed);
        return;
    }
    while (!comm->aborted) {
        for (struct mail **at = &world->mail; *at; at = &(*at)->next) {
            struct mail *mail = *at;
            if (mail->from != work->root || mail->to != comm->rank) continue;
            *at = mail->next;
            if (mail->bytes == bytes) memcpy(work->receive, mail->data, bytes);
            else fail(comm, INVALID_USAGE, "a message of another length");
            free(mail->data);
            free(mail);
            return;
        }
        pthread_cond_wait(&changed, &lock);
    }
}

static void run_collective(struct work *work) {
    struct comm *comm = work->comm;
    struct world *world = comm->world;
    struct slot *slot = &world->slots[work->sequence % MAX_SLOTS];
    if (comm->aborted) return;
    while (slot->sequence != work->sequence && slot->sequence != -1) {
        if (comm->aborted) return;
        pthread_cond_wait(&changed, &lock);
    }
    if (slot->sequence == -1) {
        memset(slot, 0, sizeof *slot);
        slot->sequence = work->sequence;
        slot->kind = work->kind;
        slot->type = work->type;
        slot->operation = work->operation;
        slot->root = work->root;
        slot->count = work->count;
    } else if (slot->kind != (int)work->kind || slot->type != work->type || slot->operation != work->operation
               || slot->root != work->root || slot->count != work->count) {
        fail(comm, INVALID_USAGE, "the ranks make different calls");
        return;
    }
    int ranks = world->ranks;
    size_t one = width(work->type), bytes = work->count * one;
    size_t given = work->kind == REDUCE_SCATTER ? bytes * ranks : bytes;
    slot->data[comm->rank] = malloc(given + 1);
    memcpy(slot->data[comm->rank], work->send, given);
    slot->arrived++;
    pthread_cond_broadcast(&changed);
    while (slot->arrived < ranks) {
        if (comm->aborted || comm->error) return;
        pthread_cond_wait(&changed, &lock);
    }
    if (comm->aborted) return;
    switch (work->kind) {
    case ALL_REDUCE:
        combine(slot->data, ranks, 0, work->count, work->type, work->operation, work->receive);
        break;
    case REDUCE:
        if (comm->rank == work->root)
            combine(slot->data, ranks, 0, work->count, work->type, work->operation, work->receive);
        break;
    case REDUCE_SCATTER:
        combine(slot->data, ranks, work->count * comm->rank, work->count, work->type, work->operation, work->receive);
        break;
    case ALL_GATHER:
        for (int rank = 0; rank < ranks; rank++) memcpy((char *)work->receive + rank * bytes, slot->data[rank], bytes);
        break;
    case BROADCAST:
        memcpy(work->receive, slot->data[work->root], bytes);
        break;
    default:
        break;
    }
    if (++slot->left == ranks) {
        for (int rank = 0; rank < ranks; rank++) free(slot->data[rank]);
        slot->sequence = -1;
        pthread_cond_broadcast(&changed);
    }
}

/* Messages of a group are one task: first what is sent, then what is received. */
static void run_work(void *argument) {
    struct work *first = argument;
    struct comm *comm = first->comm;
    for (struct work *work = first; work; work = work->next)
        if (work->kind == SEND) run_message(work);
    for (struct work *work = first; work; work = work->next)
        if (work->kind == RECEIVE) run_message(work);
        else if (work->kind != SEND) run_collective(work);
    while (first) {
        struct work *next = first->next;
        free(first);
        first = next;
    }
    comm->outstanding--;
    pthread_cond_broadcast(&changed);
}

static int is_usable(struct comm *comm) {
    if (!comm->gone) return 1;
    comm->world->misuses++;
    return 0;
}

/* Whether all ranks are there and the state was asked for often enough. */
static int is_joined(struct comm *comm) {
    return comm->polls >= POLLS && comm->world->arrived == comm->world->ranks && !comm->world->never;
}

static _Thread_local int depth;
static _Thread_local struct work *grouped, *grouped_last;

static int enqueue(struct work description) {
    struct comm *comm = description.comm;
    int code = IN_PROGRESS;
    pthread_mutex_lock(&lock);
    if (!is_usable(comm) || !is_joined(comm) || comm->launching || comm->split_place || !width(description.type)) {
        comm->world->misuses++; /* the caller did not wait for the communicator */
        code = INVALID_ARGUMENT;
    } else {
        struct work *work = malloc(sizeof *work);
        *work = description;
        if (work->kind < SEND) work->sequence = comm->calls++;
        if (depth) {
            if (grouped_last) grouped_last->next = work; else grouped = work;
            grouped_last = work;
            code = SUCCESS;
        } else {
            comm->launching = work;
            comm->polls = 0;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int ncclGetVersion(int *version) { *version = FAKE_VERSION; return SUCCESS; }

int ncclGetUniqueId(struct unique_id *id) {
    pthread_mutex_lock(&lock);
    memset(id, 0, sizeof *id);
    uint64_t number = ++last_id;
    memcpy(id->bytes, &number, sizeof number);
    memset(id->bytes + 64, 0xa5, 64); /* all of it must come through */
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

const char *ncclGetErrorString(int code) {
    switch (code) {
    case SUCCESS: return "no error";
    case SYSTEM_ERROR: return "unhandled system error";
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_USAGE: return "invalid usage";
    case IN_PROGRESS: return "in progress";
    default: return "unknown result code";
    }
}

const char *ncclGetLastError(struct comm *comm) { return comm ? comm->last_error : ""; }

int ncclCommInitRankConfig(struct comm **place, int ranks, struct unique_id id, int rank, struct config *config) {
    for (int i = 64; i < 128; i++)
        if (id.bytes[i] != (char)0xa5) return INVALID_ARGUMENT;
    if (config->size < 48 || config->magic != 0xcafebeef || config->version < 21400 || config->blocking != 0
        || ranks > MAX_RANKS || rank < 0 || rank >= ranks)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    struct comm *comm = calloc(1, sizeof *comm);
    comm->world = world_of(number_of(&id));
    comm->world->ranks = ranks;
    comm->world->arrived++;
    comm->world->live++;
    comm->rank = rank;
    comm->world->members[rank] = comm;
    *place = comm;
    pthread_mutex_unlock(&lock);
    return IN_PROGRESS;
}

/* The split is done in the looks at the state of the communicator that is split, and only then the place written. */
static void go_on_splitting(struct comm *comm) {
    struct world *world = comm->world;
    struct splitting *splitting = &world->splittings[comm->splits % MAX_SLOTS];
    if (comm->polls < POLLS || splitting->arrived < world->ranks) return;
    if (comm->split_colour >= 0) {
        uint64_t id = (uint64_t)1 << 63 | world->id << 32 | (uint64_t)comm->splits << 8 | (uint64_t)comm->split_colour;
        struct comm *child = calloc(1, sizeof *child);
        child->world = world_of(id);
        child->world->ranks = 0;
        for (int rank = 0; rank < world->ranks; rank++) {
            if (splitting->colour[rank] != comm->split_colour) continue;
            child->world->ranks++;
            int key = splitting->key[rank], own = splitting->key[comm->rank];
            if (key < own || (key == own && rank < comm->rank)) child->rank++;
        }
        child->world->arrived++;
        child->world->live++;
        *comm->split_place = child;
    }
    comm->split_place = 0;
    comm->splits++;
    if (++splitting->left == world->ranks) splitting->sequence = -1;
}

int ncclCommGetAsyncError(struct comm *comm, int *code) {
    pthread_mutex_lock(&lock);
    int answer = SUCCESS;
    if (!is_usable(comm)) {
        answer = INVALID_ARGUMENT;
    } else if (comm->error) {
        *code = comm->error;
    } else {
        comm->polls++;
        *code = is_joined(comm) ? SUCCESS : IN_PROGRESS;
        if (*code == SUCCESS && comm->launching) {
            struct work *work = comm->launching;
            comm->launching = 0;
            comm->outstanding++;
            give(work->stream, run_work, work);
        }
        if (comm->split_place) {
            go_on_splitting(comm);
            if (comm->split_place) *code = IN_PROGRESS;
        }
        if (comm->finalizing && comm->outstanding) *code = IN_PROGRESS;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

int ncclCommFinalize(struct comm *comm) {
    pthread_mutex_lock(&lock);
    int code = is_usable(comm) && !comm->launching ? IN_PROGRESS : INVALID_ARGUMENT;
    comm->finalizing = 1;
    comm->polls = 0;
    pthread_mutex_unlock(&lock);
    return code;
}

int ncclCommDestroy(struct comm *comm) {
    pthread_mutex_lock(&lock);
    int code = SUCCESS;
    if (!is_usable(comm) || !comm->finalizing || comm->outstanding || comm->polls < POLLS) {
        comm->world->misuses++;
        code = INVALID_ARGUMENT;
    }
    comm->gone = 1;
    comm->world->live--;
    pthread_mutex_unlock(&lock);
    return code;
}

int ncclCommAbort(struct comm *comm) {
    pthread_mutex_lock(&lock);
    int code = is_usable(comm) ? SUCCESS : INVALID_ARGUMENT;
    if (code == SUCCESS) {
        comm->gone = 1;
        while (comm->world->hang_abort) pthread_cond_wait(&changed, &lock);
        comm->aborted = 1;
        comm->world->live--;
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

int ncclCommCount(struct comm *comm, int *count) { *count = comm->world->ranks; return SUCCESS; }
int ncclCommUserRank(struct comm *comm, int *rank) { *rank = comm->rank; return SUCCESS; }

#ifndef FAKE_WITHOUT_SPLIT
int ncclCommSplit(struct comm *comm, int colour, int key, struct comm **place, struct config *config) {
    if (config->magic != 0xcafebeef || config->blocking != 0) return INVALID_ARGUMENT;
    pthread_mutex_lock(&lock);
    int code = is_usable(comm) && is_joined(comm) && !comm->launching ? IN_PROGRESS : INVALID_ARGUMENT;
    if (code == IN_PROGRESS) {
        struct splitting *splitting = &comm->world->splittings[comm->splits % MAX_SLOTS];
        if (splitting->sequence != comm->splits) {
            memset(splitting, 0, sizeof *splitting);
            splitting->sequence = comm->splits;
        }
        splitting->colour[comm->rank] = colour;
        splitting->key[comm->rank] = key;
        splitting->arrived++;
        comm->split_colour = colour;
        comm->split_place = place;
        comm->polls = 0;
        *place = 0;
    }
    pthread_mutex_unlock(&lock);
    return code;
}
#endif

int ncclGroupStart(void) { depth++; return SUCCESS; }

int ncclGroupEnd(void) {
    if (!depth) return INVALID_USAGE;
    if (--depth || !grouped) return SUCCESS;
    pthread_mutex_lock(&lock);
    struct comm *comm = grouped->comm;
    comm->launching = grouped;
    comm->polls = 0;
    grouped = grouped_last = 0;
    pthread_mutex_unlock(&lock);
    return IN_PROGRESS;
}

#define WORK(...) enqueue((struct work){.comm = comm, .stream = stream, .count = count, .type = type, __VA_ARGS__})

int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation, struct comm *comm,
                  struct stream *stream) {
    return WORK(.kind = ALL_REDUCE, .send = send, .receive = receive, .operation = operation);
}

int ncclReduce(const void *send, void *receive, size_t count, int type, int operation, int root, struct comm *comm,
               struct stream *stream) {
    return WORK(.kind = REDUCE, .send = send, .receive = receive, .operation = operation, .root = root);
}

int ncclReduceScatter(const void *send, void *receive, size_t count, int type, int operation, struct comm *comm,
                      struct stream *stream) {
    return WORK(.kind = REDUCE_SCATTER, .send = send, .receive = receive, .operation = operation);
}

int ncclAllGather(const void *send, void *receive, size_t count, int type, struct comm *comm, struct stream *stream) {
    return WORK(.kind = ALL_GATHER, .send = send, .receive = receive);
}

int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, struct comm *comm,
                  struct stream *stream) {
    return WORK(.kind = BROADCAST, .send = send, .receive = receive, .root = root);
}

int ncclSend(const void *send, size_t count, int type, int peer, struct comm *comm, struct stream *stream) {
    return WORK(.kind = SEND, .send = send, .root = peer);
}

int ncclRecv(void *receive, size_t count, int type, int peer, struct comm *comm, struct stream *stream) {
    return WORK(.kind = RECEIVE, .receive = receive, .root = peer);
}

/* What tests change and ask for; worlds by the id that the ranks pass. */
static pthread_mutex_t *held(void) { pthread_mutex_lock(&lock); return &lock; }

void fake_never_join(const struct unique_id *id) {
    pthread_mutex_t *mutex = held();
    world_of(number_of(id))->never = 1;
    pthread_mutex_unlock(mutex);
}

void fake_hang_abort(const struct unique_id *id, int hang) {
    pthread_mutex_t *mutex = held();
    world_of(number_of(id))->hang_abort = hang;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(mutex);
}

/* Calls that came to the collective of this number, of which the stream of a rank has begun one. */
int fake_arrived(const struct unique_id *id, long sequence) {
    pthread_mutex_t *mutex = held();
    struct slot *slot = &world_of(number_of(id))->slots[sequence % MAX_SLOTS];
    int arrived = slot->sequence == sequence ? slot->arrived : 0;
    pthread_mutex_unlock(mutex);
    return arrived;
}

/* As when a connection breaks while a communicator is idle or waits. */
void fake_inject(const struct unique_id *id, int rank, int code) {
    pthread_mutex_t *mutex = held();
    fail(world_of(number_of(id))->members[rank], code, "connection closed by remote peer node-b<46711>");
    pthread_mutex_unlock(mutex);
}

/* Ranks that have joined, uses after the end or before the beginning, and communicators that nobody has ended. */
int fake_joined(const struct unique_id *id) {
    pthread_mutex_t *mutex = held();
    int joined = world_of(number_of(id))->arrived;
    pthread_mutex_unlock(mutex);
    return joined;
}

int fake_misuses(const struct unique_id *id) {
    pthread_mutex_t *mutex = held();
    int misuses = world_of(number_of(id))->misuses;
    pthread_mutex_unlock(mutex);
    return misuses;
}

int fake_live(const struct unique_id *id) {
    pthread_mutex_t *mutex = held();
    int live = world_of(number_of(id))->live;
    pthread_mutex_unlock(mutex);
    return live;
}
