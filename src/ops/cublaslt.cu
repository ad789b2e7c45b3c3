/* cuBLASLt by dlopen, on a thread; see cublaslt.cuh.
 *
 * Our rows are the library's columns: out[T, N] = in[T, K] W[N, K]^T is, in its column-major terms, the product of
 * W^T (stored [K, N], transposed) and in (stored [K, T]) into [N, T].
 * The library's declarations that we use stand here, so that building needs no header of it; they are the same in its
 * major versions 12 and 13.
 * Kernels are chosen once per shape and kept in a table, so a shape gives the same bits whenever it comes. Split sums
 * are allowed only in float32 through the workspace, which are added up in a fixed order. */
#include "ops/cublaslt.cuh"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The library's interface --------------------------------------------------------------------------------- */

enum {
    LT_FLOAT = 0,          /* CUDA_R_32F */
    LT_BF16 = 14,          /* CUDA_R_16BF */
    LT_COMPUTE_FLOAT = 68, /* CUBLAS_COMPUTE_32F */
    LT_TRANSPOSED = 1,     /* CUBLAS_OP_T */
    LT_OPERATION_A = 3,    /* CUBLASLT_MATMUL_DESC_TRANSA, _EPILOGUE, _BIAS_POINTER */
    LT_EPILOGUE = 7,
    LT_BIAS_POINTER = 8,
    LT_EPILOGUE_BIAS = 4,  /* CUBLASLT_EPILOGUE_BIAS */
    LT_MOST_WORKSPACE = 1, /* CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, _REDUCTION_SCHEME_MASK */
    LT_REDUCTIONS = 3,
    LT_ALIGNMENT_A = 5, /* CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, then B, C, D */
    LT_ALIGNMENT_B = 6,
    LT_ALIGNMENT_C = 7,
    LT_ALIGNMENT_D = 8,
    LT_REDUCE_IN_FLOAT = 2 /* CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE */
};

typedef struct {
    uint64_t data[8];
} lt_algorithm;

typedef struct {
    lt_algorithm algorithm;
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
} lt_choice;

/* All return a status, 0: success. Handles, layouts and the like are opaque pointers. */
typedef struct {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*operation_create)(void **operation, int compute, int scale_type);
    int (*operation_destroy)(void *operation);
    int (*operation_set)(void *operation, int attribute, const void *value, size_t bytes);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t stride);
    int (*layout_destroy)(void *layout);
    int (*preference_create)(void **preference);
    int (*preference_destroy)(void *preference);
    int (*preference_set)(void *preference, int attribute, const void *value, size_t bytes);
    int (*choose)(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                  int wanted, lt_choice *choices, int *found);
    int (*multiply)(void *handle, void *operation, const void *alpha, const void *a, void *a_layout,
                    const void *b, void *b_layout, const void *beta, const void *c, void *c_layout, void *d,
                    void *d_layout, const lt_algorithm *algorithm, void *workspace, size_t workspace_bytes,
                    cudaStream_t stream);
} lt_api;

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    {"cublasLtCreate", offsetof(lt_api, create)},
    {"cublasLtDestroy", offsetof(lt_api, destroy)},
    {"cublasLtMatmulDescCreate", offsetof(lt_api, operation_create)},
    {"cublasLtMatmulDescDestroy", offsetof(lt_api, operation_destroy)},
    {"cublasLtMatmulDescSetAttribute", offsetof(lt_api, operation_set)},
    {"cublasLtMatrixLayoutCreate", offsetof(lt_api, layout_create)},
    {"cublasLtMatrixLayoutDestroy", offsetof(lt_api, layout_destroy)},
    {"cublasLtMatmulPreferenceCreate", offsetof(lt_api, preference_create)},
    {"cublasLtMatmulPreferenceDestroy", offsetof(lt_api, preference_destroy)},
    {"cublasLtMatmulPreferenceSetAttribute", offsetof(lt_api, preference_set)},
    {"cublasLtMatmulAlgoGetHeuristic", offsetof(lt_api, choose)},
    {"cublasLtMatmul", offsetof(lt_api, multiply)},
};

/* ---- State --------------------------------------------------------------------------------------------------- */

enum { ENTRIES = 256, PROBES = 8 };

/* What the choice of a kernel depends on. No padding: compared as bytes. */
typedef struct {
    int32_t T, N, K, out_stride;
    int32_t out_alignment, w_alignment, bias_alignment; /* bytes, at most 256; bias_alignment 0: no bias */
} shape_key;

typedef struct {
    shape_key key; /* T 0: empty */
    bool possible; /* the library has a kernel */
    void *w, *in, *out;
    lt_algorithm algorithm;
} shape_entry;

struct cublaslt {
    lt_api api;
    void *handle, *plain, *biased, *preference;
    shape_entry entries[ENTRIES];
    pthread_t thread;
    bool joined;
    int device;
    int ready;   /* set by the thread with release, read with acquire */
    int closing; /* the thread need not go on */
    char folders[1024];
};

/* ---- Choosing a kernel ---------------------------------------------------------------------------------------- */

static int32_t alignment_of(const void *p)
{
    uintptr_t low = (uintptr_t)p & -(uintptr_t)p; /* 0 for NULL */
    return low > 256 ? 256 : (int32_t)low;
}

static shape_key key_of(const cublaslt_product *p)
{
    return (shape_key){
        p->T, p->N, p->K, p->out_stride, alignment_of(p->out), alignment_of(p->w), alignment_of(p->bias)};
}

static void clear_entry(const lt_api *api, shape_entry *e)
{
    if (e->w) api->layout_destroy(e->w);
    if (e->in) api->layout_destroy(e->in);
    if (e->out) api->layout_destroy(e->out);
    *e = (shape_entry){};
}

/* The operation, with this product's bias. */
static void *operation_of(cublaslt *l, const cublaslt_product *p)
{
    if (!p->bias) return l->plain;
    l->api.operation_set(l->biased, LT_BIAS_POINTER, &p->bias, sizeof p->bias);
    return l->biased;
}

static bool prefer(cublaslt *l, int attribute, int32_t value)
{
    uint32_t v = (uint32_t)value;
    return l->api.preference_set(l->preference, attribute, &v, sizeof v) == 0;
}

static bool choose(cublaslt *l, shape_entry *e, void *operation)
{
    const shape_key *k = &e->key;
    const lt_api *api = &l->api;
    lt_choice choice = {};
    int found = 0;
    if (api->layout_create(&e->w, LT_BF16, (uint64_t)k->K, (uint64_t)k->N, k->K) ||
        api->layout_create(&e->in, LT_BF16, (uint64_t)k->K, (uint64_t)k->T, k->K) ||
        api->layout_create(&e->out, LT_FLOAT, (uint64_t)k->N, (uint64_t)k->T, k->out_stride))
        return false;
    if (!prefer(l, LT_ALIGNMENT_A, k->w_alignment) || !prefer(l, LT_ALIGNMENT_B, 16) ||
        !prefer(l, LT_ALIGNMENT_C, k->out_alignment) || !prefer(l, LT_ALIGNMENT_D, k->out_alignment))
        return false;
    if (api->choose(l->handle, operation, e->w, e->in, e->out, e->out, l->preference, 1, &choice, &found) ||
        found < 1 || choice.status != 0 || choice.workspace > CUBLASLT_WORKSPACE)
        return false;
    e->algorithm = choice.algorithm;
    return true;
}

/* The shape's entry; where its places in the table are all taken, the first of them is given up. */
static shape_entry *entry_of(cublaslt *l, const shape_key *key, void *operation)
{
    uint32_t hash = 2166136261u; /* FNV-1a over words */
    const uint32_t *words = (const uint32_t *)key;
    for (size_t i = 0; i < sizeof *key / sizeof *words; i++) hash = (hash ^ words[i]) * 16777619u;
    hash ^= hash >> 15;
    shape_entry *free_entry = NULL;
    for (uint32_t i = 0; i < PROBES; i++) {
        shape_entry *e = &l->entries[(hash + i) % ENTRIES];
        if (memcmp(&e->key, key, sizeof *key) == 0) return e;
        if (e->key.T == 0 && !free_entry) free_entry = e;
    }
    if (!free_entry) free_entry = &l->entries[hash % ENTRIES];
    clear_entry(&l->api, free_entry);
    free_entry->key = *key;
    free_entry->possible = choose(l, free_entry, operation);
    return free_entry;
}

bool cublaslt_multiply(cublaslt *l, const cublaslt_product *p, cudaStream_t stream)
{
    const float one = 1, beta = p->accumulate ? 1 : 0;
    shape_key key = key_of(p);
    if (p->T < 1 || p->N < 1 || p->K < 1 || p->out_stride < p->N) return false;
    /* A kernel's first use loads its code, which a recording stream forbids unless told otherwise. */
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    void *operation = operation_of(l, p);
    shape_entry *e = entry_of(l, &key, operation);
    bool done = e->possible &&
                l->api.multiply(l->handle, operation, &one, p->w, e->w, p->in, e->in, &beta, p->out, e->out,
                                p->out, e->out, &e->algorithm, p->workspace, CUBLASLT_WORKSPACE, stream) == 0;
    cudaThreadExchangeStreamCaptureMode(&mode);
    return done;
}

/* ---- Loading, on the thread ------------------------------------------------------------------------------------ */

/* In the given folders, then where the system's loader looks, then in the toolkit's usual places. */
static void *open_library(const char *folders)
{
    static const char *const usual[] = {"", "/usr/local/cuda/lib64/", "/usr/lib/x86_64-linux-gnu/",
                                        "/usr/lib/aarch64-linux-gnu/"};
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    char path[1400];
    void *library = NULL;
    while (*folders && !library) {
        int length = (int)strcspn(folders, ":");
        for (size_t n = 0; n < sizeof names / sizeof *names && !library && length > 0; n++) {
            snprintf(path, sizeof path, "%.*s/%s", length, folders, names[n]);
            library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
        folders += length + (folders[length] == ':');
    }
    for (size_t f = 0; f < sizeof usual / sizeof *usual; f++)
        for (size_t n = 0; n < sizeof names / sizeof *names && !library; n++) {
            snprintf(path, sizeof path, "%s%s", usual[f], names[n]);
            library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
    return library;
}

static bool find_symbols(lt_api *api, void *library)
{
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (!address) return false;
        memcpy((char *)api + symbols[i].offset, &address, sizeof address);
    }
    return true;
}

static bool make_handles(cublaslt *l)
{
    const lt_api *api = &l->api;
    const int32_t transposed = LT_TRANSPOSED, with_bias = LT_EPILOGUE_BIAS;
    const uint64_t workspace = CUBLASLT_WORKSPACE;
    if (api->create(&l->handle) || api->operation_create(&l->plain, LT_COMPUTE_FLOAT, LT_FLOAT) ||
        api->operation_create(&l->biased, LT_COMPUTE_FLOAT, LT_FLOAT) ||
        api->preference_create(&l->preference))
        return false;
    return api->operation_set(l->plain, LT_OPERATION_A, &transposed, sizeof transposed) == 0 &&
           api->operation_set(l->biased, LT_OPERATION_A, &transposed, sizeof transposed) == 0 &&
           api->operation_set(l->biased, LT_EPILOGUE, &with_bias, sizeof with_bias) == 0 &&
           api->preference_set(l->preference, LT_MOST_WORKSPACE, &workspace, sizeof workspace) == 0 &&
           prefer(l, LT_REDUCTIONS, LT_REDUCE_IN_FLOAT);
}

/* One product, so that the library has set itself up on the device; it shows that everything works, too. */
static bool warm(cublaslt *l)
{
    enum { T = 512, N = 1024, K = 1024 };
    const size_t in = (size_t)T * K * 2, w = (size_t)N * K * 2, out = (size_t)T * N * 4;
    char *memory = NULL;
    cudaStream_t stream = NULL;
    bool good = cudaMalloc((void **)&memory, in + w + out + CUBLASLT_WORKSPACE) == cudaSuccess &&
                cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
                cudaMemsetAsync(memory, 0, in + w, stream) == cudaSuccess;
    if (good) {
        cublaslt_product p = {};
        p.in = (const __nv_bfloat16 *)memory;
        p.w = (const __nv_bfloat16 *)(memory + in);
        p.out = (float *)(memory + in + w);
        p.workspace = memory + in + w + out;
        p.out_stride = N;
        p.T = T, p.N = N, p.K = K;
        good = cublaslt_multiply(l, &p, stream) && cudaStreamSynchronize(stream) == cudaSuccess;
    }
    if (stream) cudaStreamDestroy(stream);
    cudaFree(memory);
    cudaGetLastError(); /* a failure here only means that the library is not used */
    return good;
}

static bool goes_on(const cublaslt *l)
{
    return !__atomic_load_n(&l->closing, __ATOMIC_RELAXED);
}

/* Each step may take some tenths of a second, which a program that ends meanwhile does not wait for. */
static void *load(void *arg)
{
    cublaslt *l = (cublaslt *)arg;
    void *library = open_library(l->folders); /* never closed: recorded steps hold kernels of it */
    bool good = library && goes_on(l) && find_symbols(&l->api, library) &&
                cudaSetDevice(l->device) == cudaSuccess && make_handles(l) && goes_on(l) && warm(l);
    if (good) __atomic_store_n(&l->ready, 1, __ATOMIC_RELEASE);
    return NULL;
}

cublaslt *cublaslt_open(int device, const char *folders)
{
    cublaslt *l = (cublaslt *)calloc(1, sizeof *l);
    if (!l) return NULL;
    l->device = device;
    if (folders) snprintf(l->folders, sizeof l->folders, "%s", folders);
    if (pthread_create(&l->thread, NULL, load, l) == 0) return l;
    free(l);
    return NULL;
}

bool cublaslt_ready(const cublaslt *l)
{
    return __atomic_load_n(&l->ready, __ATOMIC_ACQUIRE) != 0;
}

void cublaslt_wait(cublaslt *l)
{
    if (!l->joined) pthread_join(l->thread, NULL);
    l->joined = true;
}

void cublaslt_close(cublaslt *l)
{
    if (!l) return;
    __atomic_store_n(&l->closing, 1, __ATOMIC_RELAXED);
    cublaslt_wait(l);
    for (int i = 0; i < ENTRIES; i++) clear_entry(&l->api, &l->entries[i]);
    if (l->preference) l->api.preference_destroy(l->preference);
    if (l->biased) l->api.operation_destroy(l->biased);
    if (l->plain) l->api.operation_destroy(l->plain);
    if (l->handle) l->api.destroy(l->handle);
    free(l);
}
