/* A GGUF's tokenizer.ggml.* keys as the tokenizer's spec, and its chat template. The text room knows no file formats, so this is where they
 * meet. Key names and defaults are llama.cpp's. */
#include "api/handles.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    tokenizer_spec spec;
    char model[32], pre[64];
    tokenizer_text *tokens, *merges;
    float *scores;
    int32_t *types;
} spec_arrays;

static nvllm_status read_strings(tokenizer_text **out, size_t *count, const gguf *file, const char *key,
                                 nvllm_error *err)
{
    gguf_array a;
    nvllm_status st = gguf_get_array(&a, file, key, GGUF_STRING, err);
    if (st) return st;
    tokenizer_text *texts = malloc((a.count + 1) * sizeof *texts);
    if (!texts) return error_memory(err, a.count * sizeof *texts, key);
    for (size_t i = 0; i < a.count; i++) texts[i] = (tokenizer_text){a.strings[i].data, a.strings[i].len};
    *out = texts;
    *count = a.count;
    return NVLLM_OK;
}

static nvllm_status check_count(const gguf *file, const char *key, size_t have, size_t want, nvllm_error *err)
{
    if (have == want) return NVLLM_OK;
    return error_set(err, NVLLM_ERR_FORMAT, "%s: %s has %zu entries, tokenizer.ggml.tokens %zu",
                     gguf_path(file), key, have, want);
}

static nvllm_status read_scores(spec_arrays *s, const gguf *file, nvllm_error *err)
{
    gguf_array a;
    nvllm_status st = gguf_get_array(&a, file, "tokenizer.ggml.scores", GGUF_F32, err);
    if (!st) st = check_count(file, "tokenizer.ggml.scores", a.count, s->spec.token_count, err);
    if (st) return st;
    s->scores = malloc((a.count + 1) * sizeof *s->scores);
    if (!s->scores) return error_memory(err, a.count * sizeof *s->scores, "scores");
    for (size_t i = 0; i < a.count; i++) s->scores[i] = (float)gguf_array_float(&a, i);
    s->spec.scores = s->scores;
    return NVLLM_OK;
}

static nvllm_status read_types(spec_arrays *s, const gguf *file, nvllm_error *err)
{
    gguf_array a;
    if (!gguf_find(file, "tokenizer.ggml.token_type")) return NVLLM_OK;
    nvllm_status st = gguf_get_array(&a, file, "tokenizer.ggml.token_type", GGUF_I32, err);
    if (!st) st = check_count(file, "tokenizer.ggml.token_type", a.count, s->spec.token_count, err);
    if (st) return st;
    s->types = malloc((a.count + 1) * sizeof *s->types);
    if (!s->types) return error_memory(err, a.count * sizeof *s->types, "token types");
    for (size_t i = 0; i < a.count; i++) s->types[i] = (int32_t)gguf_array_int(&a, i);
    s->spec.types = s->types;
    return NVLLM_OK;
}

static nvllm_status read_text_key(char *out, size_t size, const gguf *file, const char *key, nvllm_error *err)
{
    gguf_string value = {out, strlen(out)};
    nvllm_status st = gguf_optional_string(&value, file, key, err);
    if (st || value.data == out) return st;
    if (value.len >= size)
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s is too long", gguf_path(file), key);
    memcpy(out, value.data, value.len);
    out[value.len] = '\0';
    return NVLLM_OK;
}

static nvllm_status read_id(int32_t *out, const gguf *file, const char *key, nvllm_error *err)
{
    uint32_t id = UINT32_MAX; /* llama.cpp writes this, too, for "none" */
    nvllm_status st = gguf_optional_u32(&id, file, key, err);
    *out = id <= INT32_MAX ? (int32_t)id : -1;
    return st;
}

/* Files from before April 2024 name no pre-tokenizer. Of that time, architecture qwen2 is Qwen 1.5, which has one;
 * for others it cannot be told. */
static nvllm_status guess_pre(spec_arrays *s, const gguf *file, nvllm_error *err)
{
    gguf_string arch = {"", 0};
    nvllm_status st = gguf_optional_string(&arch, file, "general.architecture", err);
    if (!st && gguf_string_is(arch, "qwen2")) strcpy(s->pre, "qwen2");
    return st;
}

static nvllm_status read_ids_and_flags(spec_arrays *s, const gguf *file, bool spm, nvllm_error *err)
{
    tokenizer_spec *spec = &s->spec;
    nvllm_status st = read_id(&spec->bos_id, file, "tokenizer.ggml.bos_token_id", err);
    if (!st) st = read_id(&spec->eos_id, file, "tokenizer.ggml.eos_token_id", err);
    if (!st) st = read_id(&spec->unk_id, file, "tokenizer.ggml.unknown_token_id", err);
    /* SentencePiece models expect BOS, and have their special ids by custom, when the file does not say; for the
     * others it is a matter of the pre-tokenizer. */
    spec->add_bos = spm || tokenizer_pre_adds_bos(spec->pre);
    if (spm && spec->bos_id < 0) spec->bos_id = 1;
    if (spm && spec->eos_id < 0) spec->eos_id = 2;
    if (spm && spec->unk_id < 0) spec->unk_id = 0;
    spec->add_space_prefix = spm;
    if (!st) st = gguf_optional_bool(&spec->add_bos, file, "tokenizer.ggml.add_bos_token", err);
    if (!st) st = gguf_optional_bool(&spec->add_eos, file, "tokenizer.ggml.add_eos_token", err);
    if (!st) st = gguf_optional_bool(&spec->add_space_prefix, file, "tokenizer.ggml.add_space_prefix", err);
    if (!st)
        st = gguf_optional_bool(&spec->remove_extra_whitespaces, file,
                                "tokenizer.ggml.remove_extra_whitespaces", err);
    return st;
}

static nvllm_status read_spec(spec_arrays *s, const gguf *file, nvllm_error *err)
{
    nvllm_status st = read_text_key(s->model, sizeof s->model, file, "tokenizer.ggml.model", err);
    if (!st && !s->model[0])
        st = error_set(err, NVLLM_ERR_UNSUPPORTED, "%s: has no tokenizer (tokenizer.ggml.model)",
                       gguf_path(file));
    if (!st) st = read_text_key(s->pre, sizeof s->pre, file, "tokenizer.ggml.pre", err);
    if (!st && !s->pre[0]) st = guess_pre(s, file, err);
    if (!st) st = read_strings(&s->tokens, &s->spec.token_count, file, "tokenizer.ggml.tokens", err);
    if (st) return st;
    bool spm = strcmp(s->model, "llama") == 0;
    s->spec.model = s->model;
    s->spec.pre = s->pre[0] ? s->pre : NULL;
    s->spec.tokens = s->tokens;
    if (spm)
        st = read_scores(s, file, err);
    else
        st = read_strings(&s->merges, &s->spec.merge_count, file, "tokenizer.ggml.merges", err);
    s->spec.merges = s->merges;
    if (!st) st = read_types(s, file, err);
    return st ? st : read_ids_and_flags(s, file, spm, err);
}

nvllm_status tokenizer_of_gguf(tokenizer **out, const gguf *file, nvllm_error *err)
{
    spec_arrays s = {0};
    nvllm_status st = read_spec(&s, file, err);
    if (!st) {
        st = tokenizer_from_spec(out, &s.spec, err);
        if (st) error_prefix(err, "%s", gguf_path(file));
    }
    free(s.tokens);
    free(s.merges);
    free(s.scores);
    free(s.types);
    return st;
}

/* "bos_token" and so on, as templates expect them. */
static json_t *special_tokens(const gguf *file, const tokenizer *t, nvllm_error *err)
{
    static const struct {
        const char *name, *key;
    } known[] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                 {"eos_token", "tokenizer.ggml.eos_token_id"},
                 {"unk_token", "tokenizer.ggml.unknown_token_id"},
                 {"pad_token", "tokenizer.ggml.padding_token_id"}};
    json_t *o = json_object();
    for (size_t i = 0; t && i < sizeof known / sizeof *known; i++) {
        int32_t id;
        size_t len;
        if (read_id(&id, file, known[i].key, err) || id < 0) continue;
        const char *piece = tokenizer_id_to_piece(t, id, &len);
        if (piece) json_object_set_new(o, known[i].name, json_stringn(piece, len));
    }
    return o;
}

/* *out is NULL where the key is absent. */
static nvllm_status read_template(char **out, const gguf *file, const char *key, nvllm_error *err)
{
    gguf_string source = {NULL, 0};
    *out = NULL;
    nvllm_status st = gguf_optional_string(&source, file, key, err);
    if (st || !source.data) return st;
    if (memchr(source.data, 0, source.len))
        return error_set(err, NVLLM_ERR_FORMAT, "%s: %s holds a NUL byte", gguf_path(file), key);
    *out = malloc(source.len + 1);
    if (!*out) return error_memory(err, source.len + 1, "a chat template");
    memcpy(*out, source.data, source.len);
    (*out)[source.len] = '\0';
    return NVLLM_OK;
}

/* Converters write a template named "default" as tokenizer.chat_template and another as tokenizer.chat_template.NAME.
 * Where only the one for tools is there, it serves both, as in llama.cpp. */
nvllm_status chat_template_of_gguf(chat_template **out, const gguf *file, const tokenizer *t,
                                   nvllm_error *err)
{
    char *usual = NULL, *tools = NULL;
    json_t *special = NULL;
    nvllm_status st = read_template(&usual, file, "tokenizer.chat_template", err);
    if (!st) st = read_template(&tools, file, "tokenizer.chat_template.tool_use", err);
    if (!st && !usual && !tools)
        st = error_set(err, NVLLM_ERR_UNSUPPORTED, "%s: has no chat template (tokenizer.chat_template)",
                       gguf_path(file));
    if (!st) special = special_tokens(file, t, err);
    if (!st) st = chat_template_from_source(out, usual ? usual : tools, usual ? tools : NULL, special, err);
    json_decref(special);
    free(usual);
    free(tools);
    return st;
}
