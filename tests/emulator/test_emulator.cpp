/* The emulator keeps CUDA's rules, and shows kernels that break them. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

extern "C" {
#include <cmocka.h>
}

#include "ops/ptx.cuh"

#include <sys/wait.h>
#include <unistd.h>

static cudaStream_t stream;
static const bool races = TEST_RACES; /* are found, which ends the process before values show them */

template <class... P, class... A>
static void launch(bool programmatic, unsigned cluster, void (*kernel)(P...), dim3 grid, unsigned threads,
                   A... args)
{
    cudaLaunchAttribute with[2] = {};
    with[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    with[0].val.programmaticStreamSerializationAllowed = programmatic;
    with[1].id = cudaLaunchAttributeClusterDimension;
    with[1].val.clusterDim = {cluster, 1, 1};
    cudaLaunchConfig_t config = {grid, dim3(threads), 4096, stream, with, 2};
    assert_int_equal(cudaLaunchKernelEx(&config, kernel, P(args)...), cudaSuccess);
}

/* n zeros on the card. */
static float *array(int n)
{
    float *memory;
    assert_int_equal(cudaMalloc(&memory, (size_t)n * sizeof(float)), cudaSuccess);
    cudaMemsetAsync(memory, 0, (size_t)n * sizeof(float), stream);
    return memory;
}

static void read(float *to, const float *from, int n)
{
    cudaMemcpyAsync(to, from, (size_t)n * sizeof(float), cudaMemcpyDeviceToHost, stream);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

/* ---- Meeting ------------------------------------------------------------------------------------------------- */

static void sums(float *out)
{
    float v = (float)(threadIdx.x % 32);
    for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xffffffffu, v, lanes);
    out[threadIdx.x] = v + (float)__reduce_max_sync(0xffffffffu, threadIdx.x);
}

static void warps_exchange_values(void **)
{
    float *out = array(64), got[64];
    launch(false, 1, sums, 1, 64, out);
    read(got, out, 64);
    for (int i = 0; i < 64; i++) assert_true(got[i] == 496 + i / 32 * 32 + 31);
    cudaFree(out);
}

struct reversal {
    float of[256];
};

static void reverse(float *out, bool with_barrier)
{
    reversal &shared = block_shared<reversal>();
    shared.of[threadIdx.x] = (float)threadIdx.x;
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = shared.of[255 - threadIdx.x];
}

static void missing_barrier_gives_values_that_nobody_wrote(void **)
{
    float *out = array(256), got[256];
    int wrong = 0;
    launch(false, 1, reverse, 1, 256, out, true);
    read(got, out, 256);
    for (int i = 0; i < 256; i++) assert_true(got[i] == (float)(255 - i));
    if (!races) launch(false, 1, reverse, 1, 256, out, false);
    read(got, out, 256);
    for (int i = 0; i < 256; i++) wrong += isnan(got[i]);
    assert_true(races || wrong > 0);
    cudaFree(out);
}

static void take_from_neighbour(float *out)
{
    float2 *shared = (float2 *)dynamic_shared<16>();
    shared[threadIdx.x] = make_float2((float)blockIdx.x, (float)threadIdx.x);
    cluster_barrier();
    float2 v = cluster_load(shared_address(shared + threadIdx.x), (int)(blockIdx.x + 1) % 4);
    cluster_barrier();
    out[blockIdx.x * 32 + threadIdx.x] = v.x * 100 + v.y;
}

static void blocks_of_a_cluster_see_each_other(void **)
{
    float *out = array(256), got[256];
    launch(false, 4, take_from_neighbour, 8, 32, out);
    read(got, out, 256);
    for (int i = 0; i < 256; i++) {
        int block = i / 32, of = block / 4 * 4 + (block + 1) % 4;
        assert_true(got[i] == (float)(of * 100 + i % 32));
    }
    cudaFree(out);
}

/* ---- Blocks that wait for each other ------------------------------------------------------------------------- */

static cudaError_t launch_cooperative(void (*kernel)(float *, uint64_t *), unsigned blocks, float *out,
                                      uint64_t *words, bool cooperative = true)
{
    cudaLaunchAttribute with = {};
    with.id = cudaLaunchAttributeCooperative;
    with.val.cooperative = cooperative;
    cudaLaunchConfig_t config = {dim3(blocks), dim3(64), 4096, stream, &with, 1};
    return cudaLaunchKernelEx(&config, kernel, out, words);
}

/* Every block waits for the word of the next one, three times around. */
static void pass_around(float *out, uint64_t *words)
{
    unsigned next = (blockIdx.x + 1) % gridDim.x;
    float v = (float)blockIdx.x;
    for (uint32_t tag = 1; tag <= 3; tag++) {
        if (threadIdx.x == 0) post_word(words + tag * gridDim.x + blockIdx.x, __float_as_uint(v), tag);
        uint2 got = posted_word(words + tag * gridDim.x + next);
        while (__any_sync(0xffffffffu, got.y != tag)) {
            before_next_look();
            got = posted_word(words + tag * gridDim.x + next);
        }
        v = __uint_as_float(got.x) + 10;
    }
    out[blockIdx.x * 64 + threadIdx.x] = v;
}

static void blocks_of_a_cooperative_grid_exchange_words(void **)
{
    float *out = array(256), got[256], *words = array(2 * 16);
    assert_int_equal(launch_cooperative(pass_around, 4, out, (uint64_t *)words), cudaSuccess);
    read(got, out, 256);
    for (int i = 0; i < 256; i++) assert_true(got[i] == (float)((i / 64 + 3) % 4 + 30));
    assert_int_equal(launch_cooperative(pass_around, 5, out, (uint64_t *)words),
                     cudaErrorCooperativeLaunchTooLarge);
    cudaGetLastError();
    cudaFree(out);
    cudaFree(words);
}

/* The second warp sends rows of 16 bytes through two slots to the first, with room for one more of each. */
static void send_through_slots(float *out, uint64_t *rows)
{
    enum { ROWS = 7, SLOT = 16 };
    struct slots {
        alignas(16) float slot[2][4];
        uint64_t full[2], empty[2];
    };
    slots &s = block_shared<slots>();
    if (threadIdx.x < 2) {
        mbarrier_init(shared_address(&s.full[threadIdx.x]), 1);
        mbarrier_init(shared_address(&s.empty[threadIdx.x]), 1);
        mbarriers_made();
    }
    __syncthreads();
    for (int i = 0; i < ROWS; i++) {
        uint32_t full = shared_address(&s.full[i % 2]), empty = shared_address(&s.empty[i % 2]);
        uint32_t round = (uint32_t)i / 2;
        if (threadIdx.x < 32) {
            while (!mbarrier_ended(full, round & 1)) before_next_look();
            mbarrier_wait(full, round & 1);
            if (threadIdx.x < 4) out[i * 4 + threadIdx.x] = s.slot[i % 2][threadIdx.x];
            first_threads_meet<32>();
            if (threadIdx.x == 0) mbarrier_arrive(empty);
        } else {
            mbarrier_wait(empty, (round & 1) ^ 1);
            if (threadIdx.x > 32) continue;
            mbarrier_arrive_expecting(full, SLOT);
            bulk_copy(shared_address(s.slot[i % 2]), rows + 2 * i, SLOT, full);
        }
    }
}

static void copies_arrive_at_barriers_that_are_waited_for(void **)
{
    float *out = array(28), *rows = array(28), want[28], got[28];
    for (int i = 0; i < 28; i++) want[i] = (float)(i * i);
    cudaMemcpyAsync(rows, want, sizeof want, cudaMemcpyHostToDevice, stream);
    assert_int_equal(launch_cooperative(send_through_slots, 1, out, (uint64_t *)rows), cudaSuccess);
    read(got, out, 28);
    for (int i = 0; i < 28; i++) assert_true(got[i] == want[i]);
    cudaFree(out);
    cudaFree(rows);
}

/* ---- Copies and matrices ------------------------------------------------------------------------------------- */

static void copy_through(float *out, const float *in, bool wait)
{
    float *shared = (float *)dynamic_shared<16>();
    async_copy(shared_address(shared + 4 * threadIdx.x), in + 4 * threadIdx.x, threadIdx.x == 3 ? 0 : 16);
    async_copy_commit();
    if (wait) async_copy_wait<0>();
    for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = shared[4 * threadIdx.x + i];
}

static void copies_arrive_when_they_are_waited_for(void **)
{
    float in[128], got[128], *from = array(128), *out = array(128);
    for (int i = 0; i < 128; i++) in[i] = (float)i;
    cudaMemcpyAsync(from, in, sizeof in, cudaMemcpyHostToDevice, stream);
    launch(false, 1, copy_through, 1, 32, out, from, true);
    read(got, out, 128);
    for (int i = 0; i < 128; i++) assert_true(got[i] == (i / 4 == 3 ? 0 : (float)i));
    launch(false, 1, copy_through, 1, 32, out, from, false);
    read(got, out, 128);
    for (int i = 0; i < 128; i++) assert_true(isnan(got[i]));
    cudaFree(from);
    cudaFree(out);
}

/* a: [16, 16], b: [16, 8] (row major) in bf16, through ldmatrix; small whole numbers, so everything is exact. */
static void multiply(float *out, bool halves)
{
    uint16_t *a = (uint16_t *)dynamic_shared<16>(), *b = a + 256;
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32) a[i] = bf16_from_float((float)(i % 7 - i / 16));
    for (int i = lane; i < 128; i += 32) b[i] = bf16_from_float((float)(i % 5 + i / 8));
    __syncthreads();
    uint32_t x[4], y[4];
    float d[4] = {};
    load_matrices(x, shared_address(a + lane % 16 * 16 + lane / 16 * 8));
    load_matrices_transposed(y, shared_address(b + lane % 16 * 8)); /* its two 8 x 8 matrices, twice */
    if (halves) {
        uint32_t left[2] = {x[0], x[1]}, right[2] = {x[2], x[3]};
        mma_16x8x8(d, left, y[0], __nv_bfloat16());
        mma_16x8x8(d, right, y[1], __nv_bfloat16());
    } else
        mma_16x8x16(d, x, y[0], y[1], __nv_bfloat16());
    for (int q = 0; q < 4; q++) out[(lane / 4 + q / 2 * 8) * 8 + lane % 4 * 2 + q % 2] = d[q];
}

static void matrix_instructions_multiply(void **)
{
    float *out = array(128), got[128];
    for (int halves = 0; halves < 2; halves++) {
        launch(false, 1, multiply, 1, 32, out, halves != 0);
        read(got, out, 128);
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                float sum = 0;
                for (int k = 0; k < 16; k++)
                    sum += (float)((i * 16 + k) % 7 - i) * (float)((k * 8 + j) % 5 + k);
                assert_true(got[i * 8 + j] == sum);
            }
    }
    cudaFree(out);
}

/* ---- Kernels after kernels ----------------------------------------------------------------------------------- */

static void fill(float *out, float v)
{
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
    out[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

static void copy(float *out, const float *in, bool early)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    cudaTriggerProgrammaticLaunchCompletion();
    float v = early ? in[i] : 0;
    cudaGridDependencySynchronize();
    out[i] = early ? v : in[i];
}

static void reads_before_the_wait_see_the_past(void **)
{
    float *middle = array(64), *out = array(64), got[64];
    for (int early = 0; early < (races ? 1 : 2); early++) {
        launch(true, 1, fill, 2, 32, middle, 1.0f + (float)early);
        launch(true, 1, copy, 2, 32, out, middle, early != 0);
        read(got, out, 64);
        for (int i = 0; i < 64; i++) assert_true(got[i] == 1); /* not 2, the second time */
    }
    cudaFree(middle);
    cudaFree(out);
}

static void recorded_kernels_run_when_they_are_replayed(void **)
{
    float *out = array(32), got[32];
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t nodes = 0;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    launch(true, 1, fill, 1, 32, out, 5.0f);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphGetNodes(graph, NULL, &nodes);
    assert_int_equal(nodes, 1);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    cudaGraphDestroy(graph);
    read(got, out, 32);
    assert_true(got[7] == 0);
    cudaGraphLaunch(exec, stream);
    read(got, out, 32);
    assert_true(got[7] == 5);
    cudaGraphExecDestroy(exec);
    cudaFree(out);
}

static void host_memory_is_read_as_late_as_it_may(void **)
{
    float *pinned, pageable = 1, *out = array(2), got[2];
    assert_int_equal(cudaHostAlloc((void **)&pinned, sizeof *pinned, cudaHostAllocMapped), cudaSuccess);
    *pinned = 1;
    cudaMemcpyAsync(out, pinned, sizeof *out, cudaMemcpyHostToDevice, stream);
    cudaMemcpyAsync(out + 1, &pageable, sizeof *out, cudaMemcpyHostToDevice, stream);
    *pinned = pageable = 2;
    read(got, out, 2);
    assert_true(got[0] == 2 && got[1] == 1);
    cudaFreeHost(pinned);
    cudaFree(out);
}

/* ---- Broken rules end the process ---------------------------------------------------------------------------- */

static void shuffle_of_some(float *out)
{
    if (threadIdx.x < 7) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 0);
}

static void barrier_of_some(float *out)
{
    out[threadIdx.x] = 0;
    if (threadIdx.x < 32) __syncthreads();
    if (threadIdx.x >= 32) cluster_barrier();
}

static void misaligned_copy(float *out)
{
    async_copy(shared_address(dynamic_shared<16>() + 8), out, 16);
}

/* By no more than a variable of 16 bytes must be aligned. */
static void misaligned_vector(float *out)
{
    cudaGridDependencySynchronize();
    *(float4 *)(out + 2) = make_float4(1, 2, 3, 4);
}

/* As if it lay at a multiple of 32, where 16 are promised. */
static void misaligned_matrix(float *out)
{
    uint32_t r[4], from = shared_address(dynamic_shared<16>());
    load_matrices(r, from & ~31u);
    out[0] = (float)r[0];
}

struct large {
    float of[11 * 1024 + 1]; /* with 4096 bytes of the launch one too many for 48 KB */
};

static void too_much_shared_memory(float *out)
{
    block_shared<large>().of[0] = 1;
    out[0] = 1;
}

/* A barrier is missing at the end: some blocks are gone before their neighbours have read. */
static void gone_too_early(float *out)
{
    float2 *shared = (float2 *)dynamic_shared<16>();
    shared[threadIdx.x] = make_float2(1, 1);
    cluster_barrier();
    float2 v = cluster_load(shared_address(shared + threadIdx.x), (int)(blockIdx.x + 1) % 4);
    out[blockIdx.x * 32 + threadIdx.x] = v.x;
}

static void no_wait(float *out)
{
    out[threadIdx.x] = 1;
}

static void wait_for(cudaError_t (*call)(), bool relaxed)
{
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (relaxed) cudaThreadExchangeStreamCaptureMode(&mode);
    call();
    if (relaxed) cudaThreadExchangeStreamCaptureMode(&mode);
    cudaGraph_t graph;
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphDestroy(graph);
}

static cudaError_t take_memory()
{
    cudaFree(array(1));
    return cudaSuccess;
}

static cudaError_t ask_stream()
{
    return cudaStreamQuery(stream);
}

/* What the process says when this work ends it. */
static void expect_end(const std::function<void()> &work, const char *says)
{
    char text[2000] = "";
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the next test */
        work();
        cudaStreamSynchronize(stream);
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < sizeof text && (got = ::read(ends[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    close(ends[0]);
    waitpid(child, &status, 0);
    if (status == 0 || !strstr(text, says))
        fail_msg("status %d and no \"%s\", it says: %s", status, says, text);
}

static void broken_rule_in(void (*kernel)(float *), const char *says)
{
    expect_end([=] { launch(true, 1, kernel, 1, 64, array(64)); }, says);
}

static void looks_for_words_of_nobody(float *out, uint64_t *words)
{
    while (__any_sync(0xffffffffu, posted_word(words).y != 1)) before_next_look();
    out[threadIdx.x] = 0;
}

static void expect_waiting_to_end(bool cooperative, const char *says)
{
    expect_end(
        [=] {
            float *out = array(64), *words = array(2);
            launch_cooperative(looks_for_words_of_nobody, 1, out, (uint64_t *)words, cooperative);
        },
        says);
}

static void broken_rules_end_the_process(void **)
{
    expect_waiting_to_end(false, "blocks that may not be running");
    expect_waiting_to_end(true, "words that nobody writes");
    broken_rule_in(shuffle_of_some, "7 of 32 lanes are at an instruction");
    broken_rule_in(barrier_of_some, "threads wait at a barrier that others do not reach");
    broken_rule_in(misaligned_copy, "16 bytes at 8 of shared variable 0 are misaligned");
    broken_rule_in(misaligned_matrix, "16 bytes at -16 of shared variable 0 lie outside of it");
    if (TEST_SANITIZED) broken_rule_in(misaligned_vector, "misaligned address");
    broken_rule_in(too_much_shared_memory, "49156 bytes of shared memory, and a block has at most 49152");
    broken_rule_in(no_wait, "ended without waiting for the kernels before it");
    expect_end([] { launch(false, 4, gone_too_early, 4, 32, array(128)); }, "its shared memory with it");
}

static void calls_that_may_wait_are_refused_while_a_stream_records(void **)
{
    wait_for(take_memory, true);
    expect_end([] { wait_for(take_memory, false); }, "cudaMalloc while a stream records");
    expect_end([] { wait_for(ask_stream, true); }, "cudaStreamQuery of a stream that records");
}

static void launches_beyond_the_cards_limits_are_errors(void **)
{
    cudaLaunchConfig_t config = {dim3(1, 65536), dim3(32), 0, stream, NULL, 0};
    assert_int_equal(cudaLaunchKernelEx(&config, no_wait, (float *)NULL), cudaErrorInvalidValue);
    config.gridDim = dim3(1);
    config.dynamicSmemBytes = (48 << 10) + 1;
    assert_int_equal(cudaLaunchKernelEx(&config, no_wait, (float *)NULL), cudaErrorInvalidValue);
    assert_int_equal(cudaFuncSetAttribute(no_wait, cudaFuncAttributeMaxDynamicSharedMemorySize, 1024),
                     cudaSuccess);
    config.dynamicSmemBytes = 2048;
    assert_int_equal(cudaLaunchKernelEx(&config, no_wait, (float *)NULL), cudaErrorInvalidValue);
    assert_int_equal(cudaFuncSetAttribute(no_wait, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10),
                     cudaErrorInvalidValue);
    cudaGetLastError();
}

/* ---- Races --------------------------------------------------------------------------------------------------- */

static void no_barrier(float *out)
{
    reversal &shared = block_shared<reversal>();
    shared.of[threadIdx.x] = 0;
    out[threadIdx.x] = shared.of[63 - threadIdx.x];
}

/* Lanes of one warp, without and with __syncwarp. */
static void neighbours(float *out, bool with_sync)
{
    float *shared = (float *)dynamic_shared<16>();
    shared[threadIdx.x] = 1;
    if (with_sync) __syncwarp();
    out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

static void unsynced_neighbours(float *out)
{
    cudaGridDependencySynchronize();
    neighbours(out, false);
}

static void read_then_overwritten(float *out)
{
    reversal &shared = block_shared<reversal>();
    shared.of[threadIdx.x] = 0;
    __syncthreads();
    out[threadIdx.x] = shared.of[63 - threadIdx.x];
    shared.of[threadIdx.x] = 1;
}

static void blocks_write_the_same(float *out)
{
    out[threadIdx.x] = (float)blockIdx.x;
}

/* The last block adds up what all have left, with or without barriers around the counter. */
static void last_adds(float *out, unsigned *counter, bool with_barriers)
{
    struct flag {
        bool last;
    };
    flag &shared = block_shared<flag>();
    out[blockIdx.x * 64 + threadIdx.x] = 1;
    if (with_barriers) __syncthreads();
    if (threadIdx.x == 0) shared.last = increment_wrapping(counter, gridDim.x - 1) == gridDim.x - 1;
    __syncthreads();
    if (!shared.last || threadIdx.x != 0) return;
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x * 64; i++) sum += out[i];
    out[0] = sum;
}

/* The same by one thread of each block and an atomic that orders nothing by itself. */
static void last_adds_by_fences(float *out, unsigned *counter, bool before, bool behind)
{
    out[blockIdx.x] = 1;
    if (before) __threadfence();
    bool last = atomicAdd(counter, 1u) == gridDim.x - 1;
    if (behind) __threadfence();
    if (!last) return;
    float sum = 0;
    for (unsigned i = 0; i < gridDim.x; i++) sum += out[i];
    out[0] = sum;
}

static void early_copy(float *out)
{
    copy(out, out + 64, true);
}

static void ordered_accesses_are_no_races(void **)
{
    float *out = array(256), got[256], *counter = array(2);
    launch(false, 1, neighbours, 1, 32, out, true);
    launch(false, 1, last_adds, 4, 64, out, (unsigned *)counter, true);
    read(got, out, 256);
    assert_true(got[0] == 256);
    launch(false, 1, last_adds_by_fences, 4, 1, out, (unsigned *)counter + 1, true, true);
    read(got, out, 256);
    assert_true(got[0] == 4);
    cudaFree(out);
    cudaFree(counter);
}

static void race_in(void (*kernel)(float *), int blocks, const char *says)
{
    expect_end(
        [=] {
            float *out = array(128);
            launch(false, 1, kernel, (unsigned)blocks, 64, out);
        },
        says);
}

static void races_end_the_process(void **)
{
    if (!races) skip();
    race_in(no_barrier, 1, "of this kernel has ");
    race_in(unsynced_neighbours, 1, "of this kernel has ");
    race_in(read_then_overwritten, 1, "of this kernel has ");
    race_in(blocks_write_the_same, 2, "race: writes");
    expect_end(
        [] {
            float *out = array(256), *counter = array(1);
            launch(false, 1, last_adds, 4, 64, out, (unsigned *)counter, false);
        },
        "race: reads");
    for (int missing = 0; missing < 2; missing++)
        expect_end(
            [=] {
                float *out = array(256), *counter = array(1);
                launch(false, 1, last_adds_by_fences, 4, 1, out, (unsigned *)counter, missing != 0,
                       missing == 0);
            },
            "race: reads");
    expect_end(
        [] {
            float *out = array(128);
            launch(true, 1, fill, 2, 64, out, 1.0f);
            launch(true, 1, early_copy, 1, 64, out);
        },
        "of a kernel 1 launches later has read");
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warps_exchange_values),
        cmocka_unit_test(missing_barrier_gives_values_that_nobody_wrote),
        cmocka_unit_test(blocks_of_a_cluster_see_each_other),
        cmocka_unit_test(blocks_of_a_cooperative_grid_exchange_words),
        cmocka_unit_test(copies_arrive_at_barriers_that_are_waited_for),
        cmocka_unit_test(copies_arrive_when_they_are_waited_for),
        cmocka_unit_test(matrix_instructions_multiply),
        cmocka_unit_test(reads_before_the_wait_see_the_past),
        cmocka_unit_test(recorded_kernels_run_when_they_are_replayed),
        cmocka_unit_test(host_memory_is_read_as_late_as_it_may),
        cmocka_unit_test(broken_rules_end_the_process),
        cmocka_unit_test(calls_that_may_wait_are_refused_while_a_stream_records),
        cmocka_unit_test(launches_beyond_the_cards_limits_are_errors),
        cmocka_unit_test(ordered_accesses_are_no_races),
        cmocka_unit_test(races_end_the_process),
    };
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cudaStreamDestroy(stream);
    return failed;
}
