/* What other threads have the engine's thread do between two steps: measuring the device, profiles. */
#include "api/engine_state.h"

/* Returns when the engine's thread has run it. */
static void send_errand(nvllm_engine *e, void (*run)(nvllm_engine *e, void *context), void *context)
{
    errand mine = {run, context, false};
    pthread_mutex_lock(&e->lock);
    while (e->errand) pthread_cond_wait(&e->news, &e->lock);
    /* cppcheck-suppress autoVariables ; taken away before this returns */
    e->errand = &mine;
    pthread_cond_signal(&e->work);
    while (!mine.done) pthread_cond_wait(&e->news, &e->lock);
    pthread_mutex_unlock(&e->lock);
}

static void measure(nvllm_engine *e, void *limits)
{
    backend_limits found = backend_measure(e->backend);
    *(nvllm_limits *)limits = (nvllm_limits){found.read_bytes_per_s * 1e-9, found.bf16_flops * 1e-9};
}

nvllm_limits nvllm_measure_limits(nvllm_engine *e)
{
    nvllm_limits limits = {0};
    send_errand(e, measure, &limits);
    return limits;
}

typedef struct {
    char *json;
    nvllm_status status;
    nvllm_error *err;
} profile_errand;

static void start_profile(nvllm_engine *e, void *context)
{
    profile_errand *a = context;
    if (e->profile)
        a->status = error_set(a->err, NVLLM_ERR_USAGE, "a profile is being taken already");
    else
        a->status = profile_open(&e->profile, engine_runner(e->engine), e->backend, a->err);
}

static void stop_profile(nvllm_engine *e, void *context)
{
    profile_errand *a = context;
    if (!e->profile) {
        a->status = error_set(a->err, NVLLM_ERR_USAGE, "no profile is being taken");
        return;
    }
    profile_read(e->profile);
    a->json = profile_json(e->profile, engine_runner(e->engine), e->model->model, e->options.kv_type);
    if (!a->json) a->status = error_memory(a->err, 0, "the profile's document");
    profile_close(e->profile);
    e->profile = NULL;
}

nvllm_status nvllm_profile_start(nvllm_engine *e, nvllm_error *err)
{
    profile_errand a = {.err = err};
    send_errand(e, start_profile, &a);
    return a.status;
}

nvllm_status nvllm_profile_stop(nvllm_engine *e, char **json, nvllm_error *err)
{
    profile_errand a = {.err = err};
    send_errand(e, stop_profile, &a);
    if (!a.status) *json = a.json;
    return a.status;
}
