/* CUDA's runtime over the machine: streams are lists of what is to be done, which is done when the host waits or asks,
 * in the thread that does so. So a kernel reads mapped and pinned memory as late as it may.
 *
 * The variable NVLLM_EMULATOR sets the card, as "major=8,memory=64,fail=100": compute capability (9) and that of the
 * kernels' code (the card's), multiprocessors (4), MiB of memory (1024), KiB of shared memory of a block (those of 9.0 or
 * 8.0), and the number of the first launch that fails as one with a bad address does (none). */
#include "machine.h"
#include "races.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include <time.h>

using emulator::fail;
using emulator::kernel_launch;
using emulator::running_grid;

enum {
    AHEAD = 8,      /* clusters of a grid that begin before the grids ahead have ended */
    FOLLOWERS = 2,  /* grids that begin behind the first one */
    ALIGNMENT = 256 /* of memory */
};

/* One thing to do: a launch, or something at once. */
struct emulated_node {
    std::shared_ptr<const kernel_launch> launch;
    std::function<void()> action;
};

struct entry {
    emulated_node node;
    std::unique_ptr<running_grid> grid; /* once it has begun */
};

struct emulated_graph {
    std::vector<emulated_node> nodes;
};

struct emulated_stream {
    std::deque<entry> queue;
    emulated_graph *capture;    /* NULL: nothing is being recorded */
    std::thread::id recorder;   /* the thread that records, */
    cudaStreamCaptureMode mode; /* and whose calls that may wait are refused meanwhile */
    uint32_t first_of_chain;    /* grids since then may have overlapped */
    bool chained;               /* what was done last was a grid */
};

struct emulated_event {
    cudaStream_t stream;
    int pending; /* records that have not been reached */
    double ms;
};

struct card_settings {
    int major = 9, code = 0, multiprocessors = 4;
    long memory = 1024, shared = 0, fail = 0;
};

static std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> locked;

static std::map<char *, size_t> memory_of_card, memory_pinned; /* what the program has, and how many bytes */
static size_t memory_taken;
static std::set<emulated_stream *> streams;
static std::map<const void *, int> most_shared; /* dynamic, of kernels that have said it */
static long launches;
static cudaError_t broken; /* the card, for good */
static thread_local cudaError_t last_error;
static thread_local cudaStreamCaptureMode tolerance =
    cudaStreamCaptureModeGlobal; /* of this thread's calls */

static cudaError_t leave(cudaError_t rc)
{
    if (rc == cudaSuccess) rc = broken;
    if (rc != cudaSuccess && rc != cudaErrorNotReady) last_error = rc;
    return rc;
}

/* A call that may wait for the card. */
static void may_wait(const char *call)
{
    for (const emulated_stream *s : streams) {
        if (!s->capture || s->mode == cudaStreamCaptureModeRelaxed ||
            tolerance == cudaStreamCaptureModeRelaxed)
            continue;
        bool counts = s->mode == cudaStreamCaptureModeGlobal || s->recorder == std::this_thread::get_id();
        if (counts) fail("%s while a stream records", call);
    }
}

/* A call that waits for this stream, or asks how far it is. */
static void ask(const emulated_stream *s, const char *call)
{
    if (s->capture) fail("%s of a stream that records", call);
    may_wait(call);
}

static card_settings read_settings()
{
    card_settings s;
    const char *text = getenv("NVLLM_EMULATOR");
    while (text && *text) {
        char name[16] = "";
        long value = 0;
        int read = 0;
        if (sscanf(text, "%15[a-z]=%ld%n", name, &value, &read) != 2) fail("NVLLM_EMULATOR is \"%s\"", text);
        const std::string key = name;
        if (key == "major")
            s.major = (int)value;
        else if (key == "code")
            s.code = (int)value;
        else if (key == "shared")
            s.shared = value;
        else if (key == "multiprocessors")
            s.multiprocessors = (int)value;
        else if (key == "memory")
            s.memory = value;
        else if (key == "fail")
            s.fail = value;
        else
            fail("NVLLM_EMULATOR has no \"%s\"", name);
        text += read + (text[read] == ',');
    }
    if (!s.code) s.code = s.major;
    if (!s.shared) s.shared = s.major >= 9 ? 227 : 163;
    emulator::code_major = s.code;
    return s;
}

static const card_settings &settings()
{
    static const card_settings s = read_settings();
    return s;
}

/* ---- Doing what a stream holds ------------------------------------------------------------------------------- */

static void make_grid(emulated_stream &s, entry &e)
{
    static uint32_t grids;
    ++grids;
    if (!s.chained || !e.node.launch->programmatic) s.first_of_chain = grids;
    s.chained = true;
    e.grid.reset(new running_grid(*e.node.launch, grids, s.first_of_chain));
}

static void begin_followers(emulated_stream &s)
{
    for (size_t i = 1; i <= FOLLOWERS && i < s.queue.size(); i++) {
        entry &next = s.queue[i];
        if (!next.node.launch || !next.node.launch->programmatic || !s.queue[i - 1].grid->next_may_begin())
            return;
        if (next.grid) continue;
        make_grid(s, next);
        next.grid->begin(AHEAD);
    }
}

static void do_first(emulated_stream &s)
{
    entry &first = s.queue.front();
    if (first.node.launch && !broken) {
        if (settings().fail && ++launches >= settings().fail) broken = cudaErrorIllegalAddress;
        if (!first.grid) make_grid(s, first);
        first.grid->run_until_left(AHEAD);
        first.grid->begin(AHEAD);
        begin_followers(s);
        first.grid->run_until_left(0);
    } else if (first.node.action) {
        first.node.action();
        s.chained = false;
    }
    s.queue.pop_front();
}

static void do_all(emulated_stream &s)
{
    while (!s.queue.empty()) do_first(s);
}

static void add(cudaStream_t stream, const emulated_node &node)
{
    if (!stream) fail("the default stream is not emulated");
    if (stream->capture)
        stream->capture->nodes.push_back(node);
    else
        stream->queue.push_back(entry{node, nullptr});
}

/* ---- The card ------------------------------------------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return leave(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *card, int device)
{
    if (device != 0) return leave(cudaErrorInvalidDevice);
    *card = {};
    snprintf(card->name, sizeof card->name, "emulated GPU %d.0", settings().major);
    for (int i = 0; i < 16; i++) card->uuid.bytes[i] = (char)i;
    card->major = settings().major;
    card->multiProcessorCount = settings().multiprocessors;
    card->sharedMemPerBlockOptin = (size_t)settings().shared << 10;
    return leave(cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    return leave(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t rc = broken ? broken : last_error;
    last_error = cudaSuccess;
    return rc;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    default: return "cudaErrorUnknown";
    }
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "unknown error";
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

/* With what nobody should read in it; aligned to ALIGNMENT, and behind as many bytes to no more. */
static cudaError_t take(std::map<char *, size_t> &from, void **memory, size_t bytes)
{
    void *block;
    if (posix_memalign(&block, emulator::PAGE, ALIGNMENT + bytes)) return cudaErrorMemoryAllocation;
    *memory = (char *)block + ALIGNMENT;
    memset(*memory, 0xff, bytes);
    emulator::hide(block, ALIGNMENT);
    from[(char *)*memory] = bytes;
    return cudaSuccess;
}

static void give_back(std::map<char *, size_t> &to, void *memory, const char *call)
{
    if (!to.erase((char *)memory)) fail("%s of %p, which is none of its memory", call, memory);
    free((char *)memory - ALIGNMENT);
}

static bool lies_in(const std::map<char *, size_t> &all, const void *p, size_t bytes)
{
    auto after = all.upper_bound((char *)p);
    if (after == all.begin()) return false;
    --after;
    return (const char *)p + bytes <= after->first + after->second;
}

static size_t bytes_of_card()
{
    return (size_t)settings().memory << 20;
}

cudaError_t emulated_malloc(void **memory, size_t bytes)
{
    locked hold(lock);
    may_wait("cudaMalloc");
    if (bytes > bytes_of_card() - memory_taken) return leave(cudaErrorMemoryAllocation);
    cudaError_t rc = take(memory_of_card, memory, bytes);
    if (!rc) {
        memory_taken += bytes;
        emulator::watch(*memory, bytes);
    }
    return leave(rc);
}

cudaError_t cudaFree(void *memory)
{
    locked hold(lock);
    if (!memory) return cudaSuccess;
    may_wait("cudaFree");
    for (emulated_stream *s : streams) do_all(*s);
    auto at = memory_of_card.find((char *)memory);
    if (at != memory_of_card.end()) {
        memory_taken -= at->second;
        emulator::forget(memory, at->second);
    }
    give_back(memory_of_card, memory, "cudaFree");
    return leave(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    locked hold(lock);
    may_wait("cudaHostAlloc");
    return leave(take(memory_pinned, memory, bytes));
}

cudaError_t cudaFreeHost(void *memory)
{
    locked hold(lock);
    if (!memory) return cudaSuccess;
    may_wait("cudaFreeHost");
    for (emulated_stream *s : streams) do_all(*s);
    give_back(memory_pinned, memory, "cudaFreeHost");
    return leave(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    locked hold(lock);
    *total = bytes_of_card();
    *left = *total - memory_taken;
    return leave(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void *memory, int byte, size_t bytes, cudaStream_t stream)
{
    locked hold(lock);
    if (!lies_in(memory_of_card, memory, bytes))
        fail("cudaMemset of %zu bytes at %p, outside of the card's memory", bytes, memory);
    add(stream, {nullptr, [=] { memset(memory, byte, bytes); }});
    return leave(cudaSuccess);
}

/* Pageable memory has been read or written when the call returns, pinned memory when the copy's turn comes. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    locked hold(lock);
    bool in = kind == cudaMemcpyHostToDevice;
    const void *on_card = in ? to : from, *on_host = in ? from : to;
    bool pinned = lies_in(memory_pinned, on_host, bytes);
    if (!lies_in(memory_of_card, on_card, bytes))
        fail("a copy of %zu bytes at %p, outside of the card's memory", bytes, on_card);
    if (stream->capture && !pinned) fail("a copy of pageable memory is recorded");
    if (in && !pinned) {
        std::shared_ptr<std::string> staged(new std::string((const char *)from, bytes));
        add(stream, {nullptr, [=] { memcpy(to, staged->data(), bytes); }});
        return leave(cudaSuccess);
    }
    add(stream, {nullptr, [=] { memcpy(to, from, bytes); }});
    if (!pinned) do_all(*stream);
    return leave(cudaSuccess);
}

/* ---- Streams, events, graphs --------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    locked hold(lock);
    *stream = new emulated_stream();
    streams.insert(*stream);
    return leave(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    locked hold(lock);
    ask(stream, "cudaStreamDestroy");
    do_all(*stream);
    streams.erase(stream);
    delete stream;
    return leave(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    locked hold(lock);
    ask(stream, "cudaStreamSynchronize");
    do_all(*stream);
    return leave(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    locked hold(lock);
    ask(stream, "cudaStreamQuery");
    if (stream->queue.empty()) return leave(cudaSuccess);
    do_first(*stream);
    return leave(cudaErrorNotReady);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode)
{
    std::swap(*mode, tolerance);
    return leave(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    locked hold(lock);
    if (stream->capture) fail("a recording begins in a recording");
    stream->capture = new emulated_graph();
    stream->recorder = std::this_thread::get_id();
    stream->mode = mode;
    return leave(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    locked hold(lock);
    if (!stream->capture) fail("no recording was begun");
    if (stream->mode != cudaStreamCaptureModeRelaxed && stream->recorder != std::this_thread::get_id())
        fail("a recording ends in another thread than it began");
    *graph = stream->capture;
    stream->capture = NULL;
    return leave(cudaSuccess);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    if (nodes)
        for (size_t i = 0; i < *n && i < graph->nodes.size(); i++) nodes[i] = &graph->nodes[i];
    *n = graph->nodes.size();
    return leave(cudaSuccess);
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType *type)
{
    *type = node->launch ? cudaGraphNodeTypeKernel : cudaGraphNodeTypeMemset;
    return leave(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new emulated_graph(*graph);
    return leave(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    locked hold(lock);
    if (stream->capture) fail("cudaGraphLaunch into a recording");
    for (const emulated_node &node : exec->nodes) add(stream, node);
    return leave(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return leave(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return leave(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = new emulated_event();
    return leave(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    return cudaEventCreate(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    locked hold(lock);
    if (event->pending) do_all(*event->stream);
    delete event;
    return leave(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    locked hold(lock);
    if (stream->capture) fail("cudaEventRecord into a recording");
    event->stream = stream;
    event->pending++;
    add(stream, {nullptr, [=] {
                     struct timespec t;
                     clock_gettime(CLOCK_MONOTONIC, &t);
                     event->ms = (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
                     event->pending--;
                 }});
    return leave(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    locked hold(lock);
    may_wait("cudaEventSynchronize");
    while (event->pending) do_first(*event->stream);
    return leave(cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    if (from->pending || to->pending) return leave(cudaErrorNotReady);
    *ms = (float)(to->ms - from->ms);
    return leave(cudaSuccess);
}

/* ---- Launches ------------------------------------------------------------------------------------------------ */

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *)
{
    attributes->ptxVersion = settings().code * 10;
    return leave(cudaSuccess);
}

cudaError_t emulated_set_most_shared(const void *kernel, int bytes)
{
    locked hold(lock);
    if (bytes < 0 || bytes > settings().shared << 10) return leave(cudaErrorInvalidValue);
    most_shared[kernel] = bytes;
    return leave(cudaSuccess);
}

static bool valid(kernel_launch &l, const void *kernel)
{
    const dim3 &g = l.grid, &c = l.cluster;
    auto asked = most_shared.find(kernel);
    size_t most = asked == most_shared.end() ? 48 << 10 : (size_t)asked->second;
    l.most_shared = most > 48 << 10 ? (size_t)settings().shared << 10 : 48 << 10;
    return g.x > 0 && g.y > 0 && g.z > 0 && g.y < 65536 && g.z < 65536 && l.block.x > 0 &&
           l.block.x <= 1024 && c.x > 0 && c.y > 0 && c.z > 0 && g.x % c.x == 0 && g.y % c.y == 0 &&
           g.z % c.z == 0 && c.x * c.y * c.z <= 8 && l.dynamic_shared <= most;
}

cudaError_t emulated_launch(const cudaLaunchConfig_t *config, const void *kernel, const char *name,
                            const std::function<void()> &work)
{
    locked hold(lock);
    std::shared_ptr<kernel_launch> l(new kernel_launch{work, name, config->gridDim, config->blockDim, dim3(),
                                                       config->dynamicSmemBytes, 0, false, false});
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const cudaLaunchAttribute &a = config->attrs[i];
        if (a.id == cudaLaunchAttributeCooperative)
            l->cooperative = a.val.cooperative;
        else if (settings().major < 9)
            return leave(cudaErrorInvalidValue);
        if (a.id == cudaLaunchAttributeProgrammaticStreamSerialization)
            l->programmatic = a.val.programmaticStreamSerializationAllowed;
        if (a.id == cudaLaunchAttributeClusterDimension)
            l->cluster = dim3(a.val.clusterDim.x, a.val.clusterDim.y, a.val.clusterDim.z);
    }
    if (!valid(*l, kernel)) return leave(cudaErrorInvalidValue);
    if (l->cooperative) {
        if (l->grid.x * l->grid.y * l->grid.z > (unsigned)settings().multiprocessors)
            return leave(cudaErrorCooperativeLaunchTooLarge); /* one block on each is what we count on */
        l->cluster = l->grid;
    }
    add(config->stream, {l, nullptr});
    return leave(cudaSuccess);
}

void emulated_do(cudaStream_t stream, const std::function<void()> &work)
{
    locked hold(lock);
    add(stream, {nullptr, work});
}
