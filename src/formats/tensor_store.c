/* The tensor store; see tensor_store.h. A sorted table of pointers over the open files' own tables. */
#define _GNU_SOURCE
#include "formats/tensor_store.h"

#include "base/arena.h"
#include "formats/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_INDEX_BYTES (256u << 20)
#define MAX_SHARDS      10000

struct tensor_store {
    arena memory;
    const char *path;
    safetensors **shards; /* [n_shards], or none for GGUF */
    const char **names;   /* [n_shards] file names in the folder, sorted */
    size_t n_shards;
    gguf *gguf;
    const tensor **table; /* [count], sorted by name */
    size_t count;
};

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const tensor *const *)a)->name, (*(const tensor *const *)b)->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static nvllm_status build_table(tensor_store *s, nvllm_error *err)
{
    size_t total = s->gguf ? gguf_tensor_count(s->gguf) : 0;
    for (size_t i = 0; i < s->n_shards; i++) total += safetensors_count(s->shards[i]);
    s->table = arena_calloc(&s->memory, total + 1, sizeof(const tensor *));
    if (!s->table) return error_memory(err, total * sizeof(const tensor *), s->path);
    for (size_t i = 0; s->gguf && i < total; i++) s->table[s->count++] = gguf_tensor_at(s->gguf, i);
    for (size_t i = 0; i < s->n_shards; i++)
        for (size_t j = 0; j < safetensors_count(s->shards[i]); j++)
            s->table[s->count++] = safetensors_at(s->shards[i], j);
    qsort(s->table, s->count, sizeof(const tensor *), by_name);
    for (size_t i = 1; i < s->count; i++)
        if (!strcmp(s->table[i - 1]->name, s->table[i]->name))
            return error_set(err, NVLLM_ERR_FORMAT, "tensor %.100s is in both %.150s and %.150s",
                             s->table[i]->name, s->table[i - 1]->file, s->table[i]->file);
    return NVLLM_OK;
}

/* Opens the files s->names of the folder. */
static nvllm_status open_shards(tensor_store *s, nvllm_error *err)
{
    s->shards = arena_calloc(&s->memory, s->n_shards, sizeof(safetensors *));
    if (!s->shards) return error_memory(err, s->n_shards * sizeof(safetensors *), s->path);
    for (size_t i = 0; i < s->n_shards; i++) {
        char *path = file_join(s->path, s->names[i]);
        if (!path) return error_memory(err, strlen(s->path), s->path);
        nvllm_status st = safetensors_open(&s->shards[i], path, err);
        free(path);
        if (st) return st;
    }
    return NVLLM_OK;
}

/* A shard's name must be a plain file name, so that an index cannot point outside its folder. */
static nvllm_status check_shard_name(const char *index, const char *tensor_name, const json_t *value,
                                     nvllm_error *err)
{
    const char *name = json_string_value(value);
    if (!name || !*name || strchr(name, '/') || !strcmp(name, ".."))
        return error_set(err, NVLLM_ERR_FORMAT,
                         "%s: weight_map of %.100s is not the name of a file beside it", index, tensor_name);
    return NVLLM_OK;
}

/* s->names = the distinct file names in weight_map, sorted. */
static nvllm_status collect_shards(tensor_store *s, const char *index, json_t *map, nvllm_error *err)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    s->names = arena_calloc(&s->memory, json_object_size(map) + 1, sizeof(const char *));
    if (!s->names) return error_memory(err, json_object_size(map) * sizeof(const char *), index);
    json_object_foreach(map, key, value)
    {
        nvllm_status st = check_shard_name(index, key, value, err);
        if (st) return st;
        s->names[n++] = json_string_value(value);
    }
    qsort(s->names, n, sizeof(const char *), by_text);
    for (size_t i = 0; i < n; i++) {
        if (s->n_shards && !strcmp(s->names[s->n_shards - 1], s->names[i])) continue;
        s->names[s->n_shards] = arena_strndup(&s->memory, s->names[i], strlen(s->names[i]));
        if (!s->names[s->n_shards++]) return error_memory(err, strlen(s->names[i]), index);
    }
    if (s->n_shards == 0 || s->n_shards > MAX_SHARDS)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: weight_map names %zu files", index, s->n_shards);
    return NVLLM_OK;
}

/* Every tensor of the index must be in the shard that the index names. */
static nvllm_status check_index(const tensor_store *s, const char *index, json_t *map, nvllm_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        const tensor *t = tensor_store_find(s, key);
        const char *file = t ? strrchr(t->file, '/') : NULL;
        if (!file || strcmp(file + 1, json_string_value(value)) != 0)
            return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %.100s is not in %.100s", index, key,
                             json_string_value(value));
    }
    return NVLLM_OK;
}

static nvllm_status open_index(tensor_store *s, const char *index, nvllm_error *err)
{
    char *text;
    size_t len;
    json_error_t bad;
    nvllm_status st = file_read(&text, &len, index, MAX_INDEX_BYTES, err);
    if (st) return st;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &bad),
           *map = json_object_get(root, "weight_map");
    if (!root)
        st = error_set(err, NVLLM_ERR_FORMAT, "%s:%d: not valid JSON: %.150s", index, bad.line, bad.text);
    else if (!json_is_object(map))
        st = error_set(err, NVLLM_ERR_FORMAT, "%s: weight_map is missing or not an object", index);
    if (!st) st = collect_shards(s, index, map, err);
    if (!st) st = open_shards(s, err);
    if (!st) st = build_table(s, err);
    if (!st) st = check_index(s, index, map, err);
    json_decref(root);
    free(text);
    return st;
}

static nvllm_status open_single(tensor_store *s, nvllm_error *err)
{
    s->names = arena_calloc(&s->memory, 1, sizeof(const char *));
    if (!s->names) return error_memory(err, sizeof(const char *), s->path);
    s->names[0] = "model.safetensors";
    s->n_shards = 1;
    nvllm_status st = open_shards(s, err);
    return st ? st : build_table(s, err);
}

static nvllm_status open_folder(tensor_store *s, nvllm_error *err)
{
    nvllm_status st;
    char *single = file_join(s->path, "model.safetensors");
    char *index = file_join(s->path, "model.safetensors.index.json");
    if (!single || !index)
        st = error_memory(err, strlen(s->path), s->path);
    else if (file_exists(single))
        st = open_single(s, err);
    else if (file_exists(index))
        st = open_index(s, index, err);
    else
        st = error_set(err, NVLLM_ERR_IO,
                       "%s: holds neither model.safetensors nor model.safetensors.index.json", s->path);
    free(single);
    free(index);
    return st;
}

static nvllm_status open_gguf(tensor_store *s, nvllm_error *err)
{
    uint32_t parts = 1;
    nvllm_status st = gguf_open(&s->gguf, s->path, err);
    if (!st) st = gguf_optional_u32(&parts, s->gguf, "split.count", err);
    if (!st && parts > 1)
        st = error_set(err, NVLLM_ERR_UNSUPPORTED,
                       "%s: one of %u parts of a split GGUF, which is not supported: "
                       "merge them first (llama-gguf-split --merge)",
                       s->path, parts);
    return st ? st : build_table(s, err);
}

nvllm_status tensor_store_open(tensor_store **out, const char *path, nvllm_error *err)
{
    nvllm_status st;
    tensor_store *s = *out = calloc(1, sizeof *s);
    if (!s) return error_memory(err, sizeof *s, path);
    s->path = arena_strndup(&s->memory, path, strlen(path));
    if (!s->path)
        st = error_memory(err, strlen(path), path);
    else
        st = file_is_directory(path) ? open_folder(s, err) : open_gguf(s, err);
    if (!st) return NVLLM_OK;
    tensor_store_close(s);
    *out = NULL;
    return st;
}

void tensor_store_close(tensor_store *store)
{
    if (!store) return;
    for (size_t i = 0; store->shards && i < store->n_shards; i++) safetensors_close(store->shards[i]);
    gguf_close(store->gguf);
    arena_free(&store->memory);
    free(store);
}

size_t tensor_store_count(const tensor_store *store)
{
    return store->count;
}

const tensor *tensor_store_at(const tensor_store *store, size_t index)
{
    return store->table[index];
}

const tensor *tensor_store_find(const tensor_store *store, const char *name)
{
    tensor wanted = {.name = name};
    const tensor *key = &wanted, **found;
    found = bsearch(&key, store->table, store->count, sizeof(const tensor *), by_name);
    return found ? *found : NULL;
}

nvllm_status tensor_store_get(const tensor **out, const tensor_store *store, const char *name,
                              nvllm_error *err)
{
    const tensor *t = *out = tensor_store_find(store, name);
    if (!t) return error_set(err, NVLLM_ERR_FORMAT, "%s: tensor %s is missing", store->path, name);
    if (!t->refused) return NVLLM_OK;
    *out = NULL;
    return error_set(err, NVLLM_ERR_UNSUPPORTED, "%s: tensor %s: %s", t->file, name, t->refused);
}

const char *tensor_store_path(const tensor_store *store)
{
    return store->path;
}

const gguf *tensor_store_gguf(const tensor_store *store)
{
    return store->gguf;
}

static file_map map_at(const tensor_store *store, size_t index)
{
    return index < store->n_shards ? safetensors_map(store->shards[index]) : gguf_map(store->gguf);
}

static size_t map_count(const tensor_store *store)
{
    return store->n_shards + (store->gguf ? 1 : 0);
}

size_t tensor_store_bytes(const tensor_store *store)
{
    size_t bytes = 0;
    for (size_t i = 0; i < map_count(store); i++) bytes += map_at(store, i).size;
    return bytes;
}

static const char *file_at(const tensor_store *store, size_t index)
{
    return index < store->n_shards ? store->names[index] : store->path;
}

nvllm_status tensor_store_read(void *to, const tensor_store *store, const void *from, size_t bytes,
                               nvllm_error *err)
{
    for (size_t i = 0; store && i < map_count(store); i++) {
        file_map map = map_at(store, i);
        uintptr_t offset = (uintptr_t)from - (uintptr_t)map.data;
        if (map.data && offset < map.size && bytes <= map.size - offset)
            return file_map_read(to, &map, offset, bytes, file_at(store, i), err);
    }
    memcpy(to, from, bytes);
    return NVLLM_OK;
}

void tensor_store_prefetch(const tensor_store *store)
{
    for (size_t i = 0; i < map_count(store); i++) {
        file_map map = map_at(store, i);
        if (map.data) madvise((void *)(uintptr_t)map.data, map.size, MADV_WILLNEED);
    }
}
