/* Where models lie; see model_source.h. */
#define _GNU_SOURCE
#include "formats/model_source.h"

#include "base/buffer.h"
#include "base/file.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REF_BYTES 1024

/* "$HOME/rest" for "~/rest", otherwise a copy. */
static char *expand_home(const char *path, const char *home)
{
    if (path[0] == '~' && path[1] == '/' && home) return file_join(home, path + 2);
    return strdup(path);
}

char *model_cache_dir(void)
{
    const char *home = getenv("HOME"), *hub = getenv("HF_HUB_CACHE"), *hf = getenv("HF_HOME");
    const char *xdg = getenv("XDG_CACHE_HOME");
    if (!hub || !*hub) hub = getenv("HUGGINGFACE_HUB_CACHE");
    if (hub && *hub) return expand_home(hub, home);
    buffer b = {0};
    if (hf && *hf) {
        buffer_printf(&b, "%s/hub", hf);
    } else if (xdg && *xdg) {
        buffer_printf(&b, "%s/huggingface/hub", xdg);
    } else if (home && *home) {
        buffer_printf(&b, "%s/.cache/huggingface/hub", home);
    } else {
        return NULL;
    }
    char *raw = buffer_take(&b), *path = raw ? expand_home(raw, home) : NULL;
    free(raw);
    return path;
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && !strcmp(text + n - m, suffix);
}

/* The absolute path of `path`, with links resolved in its folder but not in its last part: a cache entry is a link
 * whose target has no telling name. */
static char *absolute_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    char *real = dir ? realpath(dir, NULL) : NULL;
    char *full = real ? file_join(real, slash ? slash + 1 : path) : NULL;
    free(dir);
    free(real);
    return full;
}

/* The one .gguf in `dir` (free), or NULL; *count says how many there are. */
static char *only_gguf(const char *dir, size_t *count)
{
    char *found = NULL;
    *count = 0;
    DIR *d = opendir(dir);
    if (!d) return NULL;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        if (!has_suffix(e->d_name, ".gguf")) continue;
        if ((*count)++ == 0) found = file_join(dir, e->d_name);
    }
    closedir(d);
    if (*count == 1) return found;
    free(found);
    return NULL;
}

/* A folder with config.json, or with a single .gguf in it. */
static nvllm_status resolve_folder(model_source *out, const char *path, nvllm_error *err)
{
    size_t ggufs = 0;
    char *config = file_join(path, "config.json");
    if (!config) return error_memory(err, strlen(path), path);
    bool is_hf = file_exists(config);
    free(config);
    if (is_hf) {
        out->kind = MODEL_HF_FOLDER;
        out->path = realpath(path, NULL);
        return out->path ? NVLLM_OK : error_set(err, NVLLM_ERR_IO, "%s: cannot be resolved", path);
    }
    char *file = only_gguf(path, &ggufs);
    if (ggufs > 1)
        return error_set(err, NVLLM_ERR_IO, "%s: holds %zu .gguf files: name one of them", path, ggufs);
    if (!file)
        return error_set(err, NVLLM_ERR_IO, "%s: a folder with neither config.json nor a .gguf file", path);
    out->kind = MODEL_GGUF;
    out->path = absolute_file(file);
    free(file);
    return out->path ? NVLLM_OK : error_set(err, NVLLM_ERR_IO, "%s: cannot be resolved", path);
}

static nvllm_status resolve_file(model_source *out, const char *path, nvllm_error *err)
{
    if (has_suffix(path, ".safetensors") || has_suffix(path, ".json"))
        return error_set(err, NVLLM_ERR_USAGE, "%s: name the folder that holds this file", path);
    out->kind = MODEL_GGUF;
    out->path = absolute_file(path);
    return out->path ? NVLLM_OK : error_set(err, NVLLM_ERR_IO, "%s: cannot be resolved", path);
}

typedef struct {
    char repo[256];     /* "models--org--name" */
    char revision[256]; /* "main" */
} cache_name;

/* One part of a name: letters, digits, '-', '_' and '.', and not only dots. */
static bool plain_part(const char *text, size_t len)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (len == 0 || strspn(text, allowed) < len) return false;
    return strspn(text, ".") < len;
}

/* Parts of a revision may be separated by slashes ("refs/pr/1"). */
static bool plain_path(const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "/");
        if (!plain_part(text, len)) return false;
        text += len;
        if (*text == '/' && !*++text) return false;
    }
    return true;
}

/* Parses [org/]name[@revision]; false: it is not one. */
static bool parse_name(cache_name *out, const char *model)
{
    const char *at = strchr(model, '@'), *slash = strchr(model, '/');
    size_t len = at ? (size_t)(at - model) : strlen(model);
    const char *revision = at ? at + 1 : "main";
    if (slash && slash >= model + len) slash = NULL;
    if (len > 200 || strlen(revision) >= sizeof out->revision || !*revision || !plain_path(revision))
        return false;
    if (slash) {
        size_t org = (size_t)(slash - model);
        if (!plain_part(model, org) || !plain_part(slash + 1, len - org - 1)) return false;
        snprintf(out->repo, sizeof out->repo, "models--%.*s--%.*s", (int)org, model, (int)(len - org - 1),
                 slash + 1);
    } else {
        if (!plain_part(model, len)) return false;
        snprintf(out->repo, sizeof out->repo, "models--%.*s", (int)len, model);
    }
    strcpy(out->revision, revision);
    return true;
}

/* The commit that refs/{revision} names, or the revision itself, into commit. */
static void read_ref(char *commit, size_t size, const char *cache, const cache_name *name)
{
    snprintf(commit, size, "%s", name->revision);
    buffer b = {0};
    buffer_printf(&b, "%s/%s/refs/%s", cache, name->repo, name->revision);
    char *path = buffer_take(&b), *text = NULL;
    size_t len = 0;
    if (path && file_read(&text, &len, path, MAX_REF_BYTES, NULL) == NVLLM_OK) {
        text[strcspn(text, " \t\r\n")] = '\0';
        if (plain_part(text, strlen(text))) snprintf(commit, size, "%s", text);
    }
    free(text);
    free(path);
}

static nvllm_status resolve_cached(model_source *out, const char *model, const char *cache, nvllm_error *err)
{
    cache_name name;
    if (!parse_name(&name, model))
        return error_set(err, NVLLM_ERR_IO,
                         "%s: no such file or folder, and not of the form org/name[@revision]", model);
    if (!cache)
        return error_set(
            err, NVLLM_ERR_IO,
            "%s: no such file or folder, and neither HF_HUB_CACHE, HF_HOME nor HOME names a cache", model);
    char commit[256];
    read_ref(commit, sizeof commit, cache, &name);
    buffer b = {0};
    buffer_printf(&b, "%s/%s/snapshots/%s", cache, name.repo, commit);
    char *path = buffer_take(&b);
    if (!path) return error_memory(err, strlen(cache), model);
    nvllm_status st;
    if (file_is_directory(path))
        st = resolve_folder(out, path, err);
    else
        st = error_set(err, NVLLM_ERR_IO,
                       "%s: not found: neither a file or folder of this name, nor revision %s in %s/%s",
                       model, name.revision, cache, name.repo);
    free(path);
    return st;
}

nvllm_status model_source_resolve_in(model_source *out, const char *model, const char *cache,
                                     nvllm_error *err)
{
    *out = (model_source){0};
    if (file_is_directory(model)) return resolve_folder(out, model, err);
    if (file_exists(model)) return resolve_file(out, model, err);
    if (has_suffix(model, ".gguf")) return error_set(err, NVLLM_ERR_IO, "%s: no such file", model);
    return resolve_cached(out, model, cache, err);
}

nvllm_status model_source_resolve(model_source *out, const char *model, nvllm_error *err)
{
    char *cache = model_cache_dir();
    nvllm_status st = model_source_resolve_in(out, model, cache, err);
    free(cache);
    return st;
}

void model_source_free(model_source *source)
{
    if (!source) return;
    free(source->path);
    *source = (model_source){0};
}
