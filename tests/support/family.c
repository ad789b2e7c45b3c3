/* The tiny reference models; see family.h. */
#include "support/test.h"
#include "support/family.h"

#include <dirent.h>
#include <math.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(((const family_case *)a)->name, ((const family_case *)b)->name);
}

static int list_folder(family_case *out, int n, const char *folder, const char *suffix)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", TEST_FIXTURES, folder);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name), tail = strlen(suffix);
        bool is_gguf = len > tail && strcmp(entry->d_name + len - tail, suffix) == 0;
        if (entry->d_name[0] == '.' || (*suffix ? !is_gguf : strchr(entry->d_name, '.') != NULL)) continue;
        assert_true(n < FAMILY_MAX && len < 64);
        family_case *c = &out[n++];
        snprintf(c->name, sizeof c->name, "%s/%.64s", folder, entry->d_name);
        snprintf(c->path, sizeof c->path, "%s/%.64s", path, entry->d_name);
        if (*suffix)
            snprintf(c->reference, sizeof c->reference, "%s/%.*s.reference.safetensors", path,
                     (int)(len - tail), entry->d_name);
        else
            snprintf(c->reference, sizeof c->reference, "%s/reference.safetensors", c->path);
    }
    closedir(dir);
    return n;
}

int family_cases(family_case *out)
{
    int n = list_folder(out, 0, "families", "");
    n = list_folder(out, n, "gguf", ".gguf");
    qsort(out, (size_t)n, sizeof *out, by_name);
    return n;
}

static const tensor *find(const family_model *f, const char *name)
{
    for (size_t i = 0; i < safetensors_count(f->file); i++)
        if (strcmp(safetensors_at(f->file, i)->name, name) == 0) return safetensors_at(f->file, i);
    return NULL;
}

const float *family_tensor(const family_model *f, const char *name)
{
    const tensor *t = find(f, name);
    return t ? t->data : NULL;
}

void family_open(family_model *out, const family_case *which)
{
    nvllm_error err = {0};
    family_model f = {0};
    if (model_open(&f.model, which->path, &err) || safetensors_open(&f.file, which->reference, &err))
        fail_msg("%s: %s", which->name, err.message);
    const tensor *prompt = find(&f, "prompt"), *greedy = find(&f, "greedy");
    f.prompt = prompt->data;
    f.n_prompt = (int32_t)prompt->shape[0];
    f.greedy = greedy->data;
    f.n_greedy = (int32_t)greedy->shape[0];
    f.logits = family_tensor(&f, "logits");
    f.greedy_gap = family_tensor(&f, "greedy_gap");
    f.low_error = *family_tensor(&f, "bf16_error");
    f.wide = weights_get(&f.model->weights, W_Q, 0)->format == DTYPE_F32;
    for (int64_t i = 0; i < (int64_t)f.n_prompt * f.model->config.V; i++)
        if (fabsf(f.logits[i]) > f.max_logit) f.max_logit = fabsf(f.logits[i]);
    *out = f;
}

void family_close(family_model *f)
{
    model_close(f->model);
    safetensors_close(f->file);
}

bool family_gpu_refuses(const char *no_chain)
{
    return strstr(no_chain, "GPU") || strstr(no_chain, "multiprocessor");
}

backend *family_backend(const char *device, const char *isa, int threads)
{
    nvllm_error err = {0};
    backend *b;
    if (backend_open(&b, device, &(backend_options){.threads = threads, .isa = isa}, &err))
        fail_msg("%s", err.message);
    return b;
}
