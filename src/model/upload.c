/* Weights to the device through a ring of page-locked buffers; see upload.h.
 *
 * The block is cut into chunks of equal size, whatever parts lie in them; chunk i goes through buffer i % slots and is
 * copied in order. Readers take the chunks by number and run ahead of the copies by at most the ring; the caller's
 * thread keeps half of the ring's copies under way and frees the oldest. The lock guards the counters, not the bytes:
 * buffer i % slots belongs to chunk i's reader until `ready`, then to the copy until `copied` passes i. */
#include "model/upload.h"
#include "base/thread_pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES =
        2 << 20, /* large enough for full speed of the bus, small enough to stay in the cores' cache */
    MAX_READERS = BACKEND_FENCES / 2
};

typedef struct {
    backend *backend;
    uint8_t *block;
    size_t total;
    const upload_part *parts;
    size_t count;
    const tensor_store *store;

    uint8_t *ring;
    size_t chunk_bytes, chunks, slots;
    pthread_mutex_t lock;
    pthread_cond_t change;
    size_t taken;               /* chunks that readers have asked for */
    size_t copied;              /* chunks 0 .. copied - 1 are on the device */
    bool ready[BACKEND_FENCES]; /* the slot's chunk is read and not yet copied */
    nvllm_error failure;        /* the first one; code NVLLM_OK: none */
} upload;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static uint8_t *slot_of(const upload *u, size_t chunk)
{
    return u->ring + chunk % u->slots * u->chunk_bytes;
}

static size_t chunk_end(const upload *u, size_t chunk)
{
    return smaller((chunk + 1) * u->chunk_bytes, u->total);
}

/* ---- Readers ------------------------------------------------------------------------------------------------- */

/* The first part that ends after `offset`. */
static size_t first_part(const upload *u, size_t offset)
{
    size_t low = 0, high = u->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (u->parts[mid].offset + u->parts[mid].bytes > offset)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* Bytes `from` to `to` of the part as it lies in the block, the first of them to `slot`. */
static nvllm_status read_part(const upload *u, const upload_part *p, uint8_t *slot, size_t from, size_t to,
                              nvllm_error *err)
{
    const uint8_t *source = p->from;
    if (p->row_bytes == p->row_apart) return tensor_store_read(slot, u->store, source + from, to - from, err);
    for (size_t row = from / p->row_apart; row * p->row_apart < to; row++) {
        size_t begin = row * p->row_apart, end = smaller(begin + p->row_bytes, to);
        size_t first = begin > from ? begin : from;
        memset(slot + (first - from), 0, smaller(begin + p->row_apart, to) - first);
        if (first >= end) continue; /* behind the row's end */
        nvllm_status st = tensor_store_read(slot + (first - from), u->store,
                                            source + row * p->row_bytes + (first - begin), end - first, err);
        if (st) return st;
    }
    return NVLLM_OK;
}

static nvllm_status read_chunk(const upload *u, size_t chunk, nvllm_error *err)
{
    size_t begin = chunk * u->chunk_bytes, end = chunk_end(u, chunk);
    for (size_t i = first_part(u, begin); i < u->count && u->parts[i].offset < end; i++) {
        const upload_part *p = &u->parts[i];
        size_t from = p->offset > begin ? p->offset : begin, to = smaller(p->offset + p->bytes, end);
        nvllm_status st =
            read_part(u, p, slot_of(u, chunk) + (from - begin), from - p->offset, to - p->offset, err);
        if (st) {
            error_prefix(err, "weight %s of layer %d", p->name, p->layer);
            return st;
        }
    }
    return NVLLM_OK;
}

static void fail(upload *u, const nvllm_error *err)
{
    pthread_mutex_lock(&u->lock);
    if (!u->failure.code) u->failure = *err;
    pthread_cond_broadcast(&u->change);
    pthread_mutex_unlock(&u->lock);
}

/* Takes the next chunk and waits for its buffer; false: nothing is left to do. */
static bool take_chunk(upload *u, size_t *chunk)
{
    pthread_mutex_lock(&u->lock);
    *chunk = u->taken++;
    while (*chunk < u->chunks && *chunk >= u->copied + u->slots && !u->failure.code)
        pthread_cond_wait(&u->change, &u->lock);
    bool go = *chunk < u->chunks && !u->failure.code;
    pthread_mutex_unlock(&u->lock);
    return go;
}

static void *reader(void *arg)
{
    upload *u = arg;
    size_t chunk;
    nvllm_error err = {0};
    while (take_chunk(u, &chunk)) {
        if (read_chunk(u, chunk, &err)) {
            fail(u, &err);
            break;
        }
        pthread_mutex_lock(&u->lock);
        u->ready[chunk % u->slots] = true;
        pthread_cond_broadcast(&u->change);
        pthread_mutex_unlock(&u->lock);
    }
    return NULL;
}

/* ---- The caller's thread ------------------------------------------------------------------------------------- */

/* false: a reader failed. */
static bool wait_ready(upload *u, size_t chunk)
{
    pthread_mutex_lock(&u->lock);
    while (!u->ready[chunk % u->slots] && !u->failure.code) pthread_cond_wait(&u->change, &u->lock);
    bool ready = !u->failure.code;
    u->ready[chunk % u->slots] = false;
    pthread_mutex_unlock(&u->lock);
    return ready;
}

static nvllm_status wait_copied(upload *u, size_t chunk, nvllm_error *err)
{
    nvllm_status st = u->backend->type->fence_wait(u->backend, (int)(chunk % u->slots), err);
    if (st) return st;
    pthread_mutex_lock(&u->lock);
    u->copied = chunk + 1;
    pthread_cond_broadcast(&u->change);
    pthread_mutex_unlock(&u->lock);
    return NVLLM_OK;
}

static void copy_chunks(upload *u)
{
    const backend_type *type = u->backend->type;
    size_t under_way = u->slots / 2, last = 0; /* last: chunks whose copy was asked for */
    nvllm_error err = {0};
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; !st && i < u->chunks && wait_ready(u, i); i++) {
        size_t begin = i * u->chunk_bytes;
        st = type->copy_in(u->backend, u->block + begin, slot_of(u, i), chunk_end(u, i) - begin, &err);
        if (!st) st = type->fence(u->backend, (int)(i % u->slots), &err);
        if (!st) last = i + 1;
        if (!st && i >= under_way) st = wait_copied(u, i - under_way, &err);
    }
    if (st) fail(u, &err);
    if (last > 0 && type->fence_wait(u->backend, (int)((last - 1) % u->slots), &err)) fail(u, &err);
}

static nvllm_status run(upload *u, int readers, nvllm_error *err)
{
    pthread_t thread[MAX_READERS];
    int started = 0, rc = 0;
    while (started < readers && !(rc = pthread_create(&thread[started], NULL, reader, u))) started++;
    if (started == 0)
        error_set(&u->failure, NVLLM_ERR_MEMORY, "cannot start a thread to read the weights: %s",
                  strerror(rc));
    else
        copy_chunks(u);
    for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
    return u->failure.code ? error_set(err, u->failure.code, "%s", u->failure.message) : NVLLM_OK;
}

nvllm_status upload_parts(backend *b, void *block, size_t total, const upload_part *parts, size_t count,
                          const tensor_store *store, int threads, nvllm_error *err)
{
    if (total == 0) return NVLLM_OK;
    upload u = {.backend = b, .block = block, .total = total, .parts = parts, .count = count, .store = store};
    u.chunk_bytes = smaller(total, CHUNK_BYTES);
    u.chunks = (total - 1) / u.chunk_bytes + 1;
    size_t readers = (size_t)(threads > 0 ? threads : thread_count_default());
    readers = smaller(smaller(readers, MAX_READERS), u.chunks);
    u.slots = smaller(2 * readers, u.chunks);
    u.ring = b->type->host_alloc(b, u.slots * u.chunk_bytes);
    if (!u.ring) return error_memory(err, u.slots * u.chunk_bytes, "page-locked buffers for the weights");
    pthread_mutex_init(&u.lock, NULL);
    pthread_cond_init(&u.change, NULL);
    nvllm_status st = run(&u, (int)readers, err);
    pthread_cond_destroy(&u.change);
    pthread_mutex_destroy(&u.lock);
    b->type->host_free(b, u.ring);
    return st;
}
