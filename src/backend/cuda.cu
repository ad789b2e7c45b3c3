/* The CUDA backend: one stream, device memory, recorded steps as CUDA graphs. cudart is linked statically, so the
 * program runs without a driver and finds out here that there is none. */
extern "C" {
#include "backend/cuda.h"
}
#include "backend/cuda_chain.cuh"
#include "backend/cuda_fault.cuh"
#include "backend/cuda_limits.cuh"
#include "ops/cublaslt.cuh"
#include "ops/cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    backend base;
    cuda_context cuda;
    linear_many products;
    int device;
    size_t scratch_bytes;
    cudaEvent_t fences[BACKEND_FENCES];                 /* NULL until first used */
    cudaGraphExec_t recorded[BACKEND_MAX_RECORDED + 1]; /* by key, 1..BACKEND_MAX_RECORDED */
    uint64_t replayed[BACKEND_MAX_RECORDED + 1];        /* when, last: by `replays` */
    uint64_t replays;
    int32_t lists; /* in recorded */
    cudaEvent_t *marks;
    int32_t n_marks;
    char name[300], id[48];
} cuda_backend;

static cuda_backend *self(backend *b)
{
    return (cuda_backend *)b;
}

extern "C" const struct cuda_context *cuda_context_of(const backend *b)
{
    return &((const cuda_backend *)b)->cuda;
}

extern "C" linear_many *cuda_products_of(backend *b)
{
    return &self(b)->products;
}

/* `what`: was being done, as in "copying to it". */
static nvllm_status check(const cuda_backend *c, cudaError_t rc, const char *what, nvllm_error *err)
{
    return cuda_fault(rc, what, c->name, err);
}

/* clang-format off */
static void run_embed(backend *b, const op_args *a) { op_embed_cuda(&a->embed, &self(b)->cuda); }
static void run_rope_table(backend *b, const op_args *a) { op_rope_table_cuda(&a->rope_table, &self(b)->cuda); }
static void run_rmsnorm(backend *b, const op_args *a) { op_rmsnorm_cuda(&a->rmsnorm, &self(b)->cuda); }
static void run_linear(backend *b, const op_args *a) { op_linear_cuda(&a->linear, &self(b)->cuda); }
static void run_rope(backend *b, const op_args *a) { op_rope_cuda(&a->rope, &self(b)->cuda); }
static void run_kv_write(backend *b, const op_args *a) { op_kv_write_cuda(&a->kv_write, &self(b)->cuda); }
static void run_attention(backend *b, const op_args *a) { op_attention_cuda(&a->attention, &self(b)->cuda); }
static void run_silu_mul(backend *b, const op_args *a) { op_silu_mul_cuda(&a->silu_mul, &self(b)->cuda); }
static void run_gather(backend *b, const op_args *a) { op_gather_cuda(&a->gather, &self(b)->cuda); }
static void run_draw(backend *b, const op_args *a) { op_draw_cuda(&a->draw, &self(b)->cuda); }
static void run_norm_linear(backend *b, const op_args *a) { op_norm_linear_cuda(&a->norm_linear, &self(b)->cuda); }
static void run_rope_attention(backend *b, const op_args *a) { op_rope_attention_cuda(&a->rope_attention, &self(b)->cuda); }
/* clang-format on */

/* ---- Opening ------------------------------------------------------------------------------------------------- */

static void cuda_close(backend *b)
{
    cuda_backend *c = self(b);
    for (int key = 0; key <= BACKEND_MAX_RECORDED; key++)
        if (c->recorded[key]) cudaGraphExecDestroy(c->recorded[key]);
    for (int32_t i = 0; i < c->n_marks; i++) cudaEventDestroy(c->marks[i]);
    for (int i = 0; i < BACKEND_FENCES; i++)
        if (c->fences[i]) cudaEventDestroy(c->fences[i]);
    free(c->marks);
    if (c->cuda.cublaslt) cublaslt_close(c->cuda.cublaslt);
    cudaFree(c->cuda.scratch);
    cudaFree(c->cuda.counters);
    if (c->cuda.stream) cudaStreamDestroy(c->cuda.stream);
    free(c);
}

/* As nvidia-smi -L writes it. */
static void name_device(cuda_backend *c, const cudaDeviceProp *card)
{
    char *at = c->id + snprintf(c->id, sizeof c->id, "GPU");
    for (int i = 0; i < 16; i++) {
        bool dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
        at += snprintf(at, (size_t)(c->id + sizeof c->id - at), "%s%02x", dash ? "-" : "",
                       (unsigned char)card->uuid.bytes[i]);
    }
    snprintf(c->name, sizeof c->name, "%s", card->name);
    c->base.isa = c->name;
    c->base.id = c->id;
}

/* The device and its context, which takes a few tenths of a second when it is the process's first. */
static nvllm_status use_device(cuda_backend *c, cudaDeviceProp *card, int device, nvllm_error *err)
{
    int count = 0;
    nvllm_status st = check(c, cudaGetDeviceCount(&count), "looking for a GPU", err);
    if (!st && device >= count)
        st = error_set(err, NVLLM_ERR_USAGE, "there is no GPU %d; this machine has %d, counted from 0",
                       device, count);
    if (!st) st = check(c, cudaGetDeviceProperties(card, device), "reading its properties", err);
    if (!st && card->major < 8) st = cuda_fault_card(card, err);
    if (st) return st;
    c->device = device;
    name_device(c, card);
    st = check(c, cudaSetDevice(device), "opening it", err);
    return st ? st
              : check(c, cudaStreamCreateWithFlags(&c->cuda.stream, cudaStreamNonBlocking), "making a stream",
                      err);
}

/* Compute capability, major, that the kernels can count on: a card also runs code for an older one, translated from its
 * PTX, and that code has neither programmatic launches' waits nor clusters in it. */
static int major_of(const cudaDeviceProp *card, const cudaFuncAttributes *kernel)
{
    int code = kernel->ptxVersion / 10; /* 0: not known */
    return code > 0 && code < card->major ? code : card->major;
}

static nvllm_status open_device(cuda_backend *c, int device, nvllm_error *err)
{
    const size_t bytes = CUDA_COUNTERS * sizeof *c->cuda.counters;
    cudaFuncAttributes kernel;
    cudaDeviceProp card;
    nvllm_status st = use_device(c, &card, device, err);
    if (!st) st = check(c, cuda_kernel_attributes(&kernel), "loading kernels", err);
    if (!st) st = check(c, cudaMalloc((void **)&c->cuda.counters, bytes), "taking memory", err);
    if (!st)
        st = check(c, cudaMemsetAsync(c->cuda.counters, 0, bytes, c->cuda.stream), "clearing memory", err);
    if (st) return st;
    c->cuda.multiprocessors = card.multiProcessorCount;
    c->cuda.major = major_of(&card, &kernel);
    c->cuda.shared_bytes = (int)card.sharedMemPerBlockOptin;
    c->cuda.programmatic = c->cuda.major >= 9;
    c->cuda.products = &c->products;
    c->cuda.cublaslt = cublaslt_open(device, NULL); /* NULL, or not ready yet: our own products */
    return NVLLM_OK;
}

/* Makes the device's context, which stays for the process. */
static void cuda_prepare(const backend_options *options)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && options->device < count) cudaSetDevice(options->device);
    cudaGetLastError(); /* open reports it */
}

static void cuda_enter(backend *b)
{
    cudaSetDevice(self(b)->device);
}

static nvllm_status cuda_open(backend **out, const backend_options *options, nvllm_error *err)
{
    cuda_backend *c = (cuda_backend *)calloc(1, sizeof *c);
    if (!c) return error_memory(err, sizeof *c, "the CUDA backend");
    c->base.type = &backend_cuda;
    c->base.threads = 1;
    nvllm_status st = open_device(c, options->device, err);
    if (st) {
        cuda_close(&c->base);
        return st;
    }
    *out = &c->base;
    return NVLLM_OK;
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void *cuda_alloc(backend *b, size_t bytes)
{
    void *p = NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess) {
        cudaGetLastError(); /* the caller reports it */
        return NULL;
    }
    cudaMemsetAsync(p, 0, bytes, self(b)->cuda.stream);
    return p;
}

static void cuda_free(backend *b, void *memory, size_t bytes)
{
    (void)b;
    (void)bytes;
    cudaFree(memory);
}

static size_t scratch_of(const backend_shape *s)
{
    size_t most = op_attention_cuda_scratch(s->C);
    size_t products = op_linear_cuda_scratch(s->max_tokens, s->widest_input, s->F);
    size_t draws = op_draw_cuda_scratch(s->max_rows, s->V);
    if (products > most) most = products;
    return draws > most ? draws : most;
}

static size_t cuda_scratch_bytes(backend *b, const backend_shape *s)
{
    (void)b;
    return scratch_of(s);
}

static nvllm_status cuda_reserve_scratch(backend *b, const backend_shape *s, nvllm_error *err)
{
    cuda_backend *c = self(b);
    size_t bytes = scratch_of(s);
    if (bytes <= c->scratch_bytes) return NVLLM_OK;
    cudaFree(c->cuda.scratch);
    c->cuda.scratch = cuda_alloc(b, bytes);
    c->scratch_bytes = c->cuda.scratch ? bytes : 0;
    return c->cuda.scratch ? NVLLM_OK : backend_out_of_memory(b, bytes, "the kernels' scratch", err);
}

static void cuda_memory(backend *b, size_t *left, size_t *total)
{
    (void)b;
    *left = *total = 0;
    if (cudaMemGetInfo(left, total) != cudaSuccess) cudaGetLastError();
}

/* Pageable memory: the driver has staged it when the call returns. */
static nvllm_status cuda_copy_in(backend *b, void *to, const void *from, size_t bytes, nvllm_error *err)
{
    return check(self(b), cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, self(b)->cuda.stream),
                 "copying to it", err);
}

static nvllm_status cuda_copy_out(backend *b, void *to, const void *from, size_t bytes, nvllm_error *err)
{
    cudaStream_t stream = self(b)->cuda.stream;
    nvllm_status st = check(self(b), cudaGetLastError(), "starting a kernel", err);
    if (!st)
        st = check(self(b), cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream),
                   "copying from it", err);
    return st ? st : check(self(b), cudaStreamSynchronize(stream), "running a step", err);
}

static void *cuda_host_alloc(backend *b, size_t bytes)
{
    void *p = NULL;
    (void)b;
    if (cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocMapped | cudaHostAllocPortable) != cudaSuccess) {
        cudaGetLastError(); /* the caller reports it */
        return NULL;
    }
    memset(p, 0, bytes);
    return p;
}

static void cuda_host_free(backend *b, void *memory)
{
    (void)b;
    cudaFreeHost(memory);
}

/* Copies are made in order, so those behind the last one asked for are those asked for so far. */
static nvllm_status cuda_fence(backend *b, int i, nvllm_error *err)
{
    cuda_backend *c = self(b);
    const unsigned sleeping = cudaEventDisableTiming | cudaEventBlockingSync;
    nvllm_status st = NVLLM_OK;
    if (!c->fences[i])
        st = check(c, cudaEventCreateWithFlags(&c->fences[i], sleeping), "making an event", err);
    return st ? st : check(c, cudaEventRecord(c->fences[i], c->cuda.stream), "copying to it", err);
}

static nvllm_status cuda_fence_wait(backend *b, int i, nvllm_error *err)
{
    return check(self(b), cudaEventSynchronize(self(b)->fences[i]), "copying to it", err);
}

/* The flag is written by a kernel; a device that failed never writes it, so the stream is asked now and then. */
static nvllm_status cuda_wait(backend *b, const volatile int32_t *flag, int32_t value, nvllm_error *err)
{
    enum { POLLS = 4096 };
    for (;;) {
        for (int i = 0; i < POLLS; i++)
            if (__atomic_load_n(flag, __ATOMIC_ACQUIRE) == value) return NVLLM_OK;
        cudaError_t rc = cudaStreamQuery(self(b)->cuda.stream);
        if (rc == cudaErrorNotReady) continue;
        nvllm_status st = check(self(b), rc, "running a step", err);
        if (!st) st = check(self(b), cudaGetLastError(), "starting a kernel", err);
        if (st) return st;
        if (__atomic_load_n(flag, __ATOMIC_ACQUIRE) == value) return NVLLM_OK;
        return error_set(err, NVLLM_ERR_DEVICE, "cuda: a step ended without its result");
    }
}

/* ---- Recorded steps ------------------------------------------------------------------------------------------ */

static bool cuda_replay(backend *b, int32_t key)
{
    cuda_backend *c = self(b);
    if (key < 1 || key > BACKEND_MAX_RECORDED || !c->recorded[key]) return false;
    c->replayed[key] = ++c->replays;
    cudaGraphLaunch(c->recorded[key], c->cuda.stream); /* an error stays, and copy_out reports it */
    return true;
}

static void cuda_record(backend *b)
{
    cudaStreamBeginCapture(self(b)->cuda.stream, cudaStreamCaptureModeThreadLocal);
}

static int32_t count_kernels(cudaGraph_t graph)
{
    size_t n = 0;
    int32_t kernels = 0;
    if (cudaGraphGetNodes(graph, NULL, &n) != cudaSuccess || n == 0) return 0;
    cudaGraphNode_t *nodes = (cudaGraphNode_t *)malloc(n * sizeof *nodes);
    if (nodes && cudaGraphGetNodes(graph, nodes, &n) == cudaSuccess)
        for (size_t i = 0; i < n; i++) {
            enum cudaGraphNodeType type;
            if (cudaGraphNodeGetType(nodes[i], &type) == cudaSuccess)
                kernels += type == cudaGraphNodeTypeKernel;
        }
    free(nodes);
    return kernels;
}

/* It may still run; the driver keeps it until it has ended. */
static void forget_list(cuda_backend *c, int32_t key)
{
    if (!c->recorded[key]) return;
    cudaGraphExecDestroy(c->recorded[key]);
    c->recorded[key] = NULL;
    c->lists--;
}

/* Makes room for a list under this key: if there are too many, the one that was not replayed for longest goes. */
static void make_room(cuda_backend *c, int32_t key)
{
    int32_t oldest = 0;
    forget_list(c, key);
    if (c->lists < BACKEND_KEPT_LISTS) return;
    for (int32_t k = 1; k <= BACKEND_MAX_RECORDED; k++)
        if (c->recorded[k] && (!oldest || c->replayed[k] < c->replayed[oldest])) oldest = k;
    forget_list(c, oldest);
}

static nvllm_status cuda_record_end(backend *b, int32_t key, nvllm_error *err)
{
    cuda_backend *c = self(b);
    cudaGraph_t graph = NULL;
    nvllm_status st = check(c, cudaStreamEndCapture(c->cuda.stream, &graph), "recording a step", err);
    if (!st) {
        make_room(c, key);
        st = check(c, cudaGraphInstantiate(&c->recorded[key], graph, 0), "preparing a recorded step", err);
    }
    if (!st) {
        c->lists++;
        c->replayed[key] = c->replays;
        c->base.recorded_kernels = count_kernels(graph);
    }
    if (graph) cudaGraphDestroy(graph);
    return st;
}

/* ---- Limits and time ----------------------------------------------------------------------------------------------- */

/* Over 2 GiB of memory, or what there is of it, down to an eighth. */
static backend_limits cuda_measure(backend *b)
{
    const cuda_context *cuda = &self(b)->cuda;
    size_t bytes = (size_t)2 << 30, least = bytes / 8;
    char *block = NULL;
    while (!block && bytes >= least) {
        block = (char *)cuda_alloc(b, bytes);
        if (!block) bytes /= 2;
    }
    if (!block) return (backend_limits){0, 0};
    backend_limits limits = cuda_measure_limits(cuda, block, bytes);
    cudaFree(block);
    return limits;
}

static bool grow_marks(cuda_backend *c, int32_t i)
{
    int32_t count = c->n_marks ? c->n_marks : 512;
    while (count <= i) count *= 2;
    cudaEvent_t *marks = (cudaEvent_t *)realloc(c->marks, (size_t)count * sizeof *marks);
    if (!marks) return false;
    c->marks = marks;
    for (; c->n_marks < count; c->n_marks++)
        if (cudaEventCreate(&marks[c->n_marks]) != cudaSuccess) break;
    return i < c->n_marks;
}

static bool cuda_mark(backend *b, int32_t i)
{
    cuda_backend *c = self(b);
    if (i >= c->n_marks && !grow_marks(c, i)) return false;
    return cudaEventRecord(c->marks[i], c->cuda.stream) == cudaSuccess;
}

static double cuda_between(backend *b, int32_t i, int32_t j)
{
    cuda_backend *c = self(b);
    float ms = 0;
    cudaEventSynchronize(c->marks[j]);
    cudaEventElapsedTime(&ms, c->marks[i], c->marks[j]);
    return (double)ms * 1e3;
}

/* norm_linear multiplies parts of one format, whatever their sizes. */
static bool cuda_can_fuse(op_kind kind, const weight *const *parts, int32_t n_parts)
{
    if (kind == OP_ROPE_ATTENTION) return true;
    for (int32_t p = 0; p < n_parts; p++)
        if (parts[p]->format != parts[0]->format) return false;
    return true;
}

/* Without kernel_begins(): no kernel begins during a pause. */
static __global__ void wait_for(uint64_t ns)
{
    kernel_waits();
    uint64_t begin = global_timer();
    do {
        __nanosleep(500);
    } while (global_timer() - begin < ns);
}

static void cuda_pause(backend *b, double us)
{
    launch(&self(b)->cuda, wait_for, 1, 1, 0, (uint64_t)(us * 1e3));
}

static backend_type make_type(void)
{
    backend_type t = {};
    t.name = "cuda";
    t.open = cuda_open;
    t.close = cuda_close;
    t.alloc = cuda_alloc;
    t.free = cuda_free;
    t.scratch_bytes = cuda_scratch_bytes;
    t.reserve_scratch = cuda_reserve_scratch;
    t.memory = cuda_memory;
    t.prepare = cuda_prepare;
    t.enter = cuda_enter;
    t.fence = cuda_fence;
    t.fence_wait = cuda_fence_wait;
    t.copy_in = cuda_copy_in;
    t.copy_out = cuda_copy_out;
    t.host_alloc = cuda_host_alloc;
    t.host_free = cuda_host_free;
    t.wait = cuda_wait;
    t.replay = cuda_replay;
    t.record = cuda_record;
    t.record_end = cuda_record_end;
    t.can_fuse = cuda_can_fuse;
    t.op[OP_EMBED] = run_embed;
    t.op[OP_ROPE_TABLE] = run_rope_table;
    t.op[OP_RMSNORM] = run_rmsnorm;
    t.op[OP_LINEAR] = run_linear;
    t.op[OP_ROPE] = run_rope;
    t.op[OP_KV_WRITE] = run_kv_write;
    t.op[OP_ATTENTION] = run_attention;
    t.op[OP_SILU_MUL] = run_silu_mul;
    t.op[OP_GATHER] = run_gather;
    t.op[OP_DRAW] = run_draw;
    t.op[OP_NORM_LINEAR] = run_norm_linear;
    t.op[OP_ROPE_ATTENTION] = run_rope_attention;
    t.chain_open = cuda_chain_open;
    t.chain_run = cuda_chain_run;
    t.chain_close = cuda_chain_close;
    t.measure = cuda_measure;
    t.mark = cuda_mark;
    t.between = cuda_between;
    t.pause = cuda_pause;
    return t;
}

extern "C" const backend_type backend_cuda = make_type();
