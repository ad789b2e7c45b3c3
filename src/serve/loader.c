/* Opening model and engine on a thread of its own, while the server already answers /health. */
#define _GNU_SOURCE
#include "serve/log.h"
#include "serve/server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEFAULT_CONTEXT = 4096 };

/* The engine first: weights go to the device while the model's other thread reads the tokenizer. */
static nvllm_status open_all(loader *l, nvllm_error *err)
{
    nvllm_engine_options options = l->options->engine;
    nvllm_status st = nvllm_model_open(&l->model, &l->options->model, err);
    if (!st) st = nvllm_engine_open(&l->engine, l->model, &options, err);
    if (!st) st = nvllm_model_tokenizer(l->model, &l->tokenizer, err);
    if (st) return st;
    int32_t longest = nvllm_model_describe(l->model).max_context;
    int32_t fallback = longest < DEFAULT_CONTEXT ? longest : DEFAULT_CONTEXT;
    l->context = options.context ? options.context : fallback;
    const char *passed_over = nvllm_engine_stats(l->engine).passed_over;
    const char *note = nvllm_tokenizer_note(l->tokenizer);
    if (passed_over) log_line("the CPU is used: %s", passed_over);
    if (note) log_line("tokenizer: %s", note);
    return NVLLM_OK;
}

static void *load(void *arg)
{
    loader *l = arg;
    uint64_t one = 1;
    nvllm_error err = {0};
    nvllm_status st = open_all(l, &err);
    pthread_mutex_lock(&l->lock);
    l->error = err;
    l->state = st ? LOAD_FAILED : LOAD_DONE;
    pthread_mutex_unlock(&l->lock);
    if (write(l->bell, &one, sizeof one) < 0)
        log_line("the loader cannot ring: the server will not notice the model");
    return NULL;
}

bool loader_start(loader *l, const serve_options *options, int bell)
{
    l->options = options;
    l->bell = bell;
    pthread_mutex_init(&l->lock, NULL);
    return pthread_create(&l->thread, NULL, load, l) == 0;
}

load_state loader_look(loader *l)
{
    pthread_mutex_lock(&l->lock);
    load_state state = l->state;
    pthread_mutex_unlock(&l->lock);
    return state;
}

/* What clients call the model: the name given, else org/name as it is, else the last part of a path. */
char *model_name_of(const serve_options *options)
{
    struct stat what;
    const char *source = options->model.source ? options->model.source : options->model.random_config;
    if (options->served_name) return strdup(options->served_name);
    if (!source) return strdup("model");
    if (stat(source, &what) != 0) return strndup(source, strcspn(source, "@"));
    char *path = realpath(source, NULL);
    if (!path) return strdup(source);
    const char *slash = strrchr(path, '/');
    char *name = strdup(slash && slash[1] ? slash + 1 : path);
    free(path);
    size_t len = name ? strlen(name) : 0;
    if (len > 5 && strcmp(name + len - 5, ".gguf") == 0) name[len - 5] = 0;
    return name;
}
