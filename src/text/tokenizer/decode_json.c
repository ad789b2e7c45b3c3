/* Decoders: reading them from tokenizer.json; see decode.h. */
#include "text/tokenizer/decode.h"
#include "text/tokenizer/json.h"

#include <stdlib.h>
#include <string.h>

static void free_step(tok_decode_step *s)
{
    tok_pattern_close(s->pattern);
    free(s->text);
}

void tok_decoder_free(tok_decoder *d)
{
    for (size_t i = 0; i < d->count; i++) free_step(&d->step[i]);
    free(d->step);
    *d = (tok_decoder){0};
}

nvllm_status tok_decoder_add(tok_decoder *d, tok_decode_step step, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    tok_decode_step *grown = NULL;
    if (d->count >= TOK_MAX_STEPS)
        st = error_set(err, NVLLM_ERR_LIMIT, "decoder: more than %d steps", TOK_MAX_STEPS);
    else if (!(grown = realloc(d->step, (d->count + 1) * sizeof *grown)))
        st = error_memory(err, sizeof *grown, "a decoder");
    if (!grown) {
        free_step(&step);
        return st;
    }
    if (d->count) {
        const tok_decode_step *last = &grown[d->count - 1];
        step.fused = last->fused || last->kind == TOK_DEC_FUSE || last->kind == TOK_DEC_BYTE_LEVEL;
    }
    if (step.pattern && tok_pattern_is_regex(step.pattern)) d->needs_matcher = true;
    d->step = grown;
    d->step[d->count++] = step;
    return NVLLM_OK;
}

static nvllm_status read_count(const json_t *json, const char *key, size_t *out, nvllm_error *err)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > 1000)
        return error_set(err, NVLLM_ERR_FORMAT, "decoder Strip: \"%s\" is not an integer from 0 to 1000",
                         key);
    *out = (size_t)json_integer_value(value);
    return NVLLM_OK;
}

static nvllm_status read_strip(tok_decode_step *s, const json_t *json, nvllm_error *err)
{
    s->kind = TOK_DEC_STRIP;
    nvllm_status st = tok_json_char(json, "content", "decoder Strip", s->mark, &s->mark_len, err);
    if (st == NVLLM_OK) st = read_count(json, "start", &s->start, err);
    if (st == NVLLM_OK) st = read_count(json, "stop", &s->stop, err);
    return st;
}

static nvllm_status read_step(tok_decode_step *s, const json_t *json, const char *type, nvllm_error *err)
{
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = TOK_DEC_BYTE_LEVEL;
        return NVLLM_OK;
    }
    if (strcmp(type, "ByteFallback") == 0) {
        s->kind = TOK_DEC_BYTE_FALLBACK;
        return NVLLM_OK;
    }
    if (strcmp(type, "Fuse") == 0) {
        s->kind = TOK_DEC_FUSE;
        return NVLLM_OK;
    }
    if (strcmp(type, "Strip") == 0) return read_strip(s, json, err);
    if (strcmp(type, "Metaspace") == 0) {
        tok_pre_step same = {0};
        nvllm_status st = tok_metaspace_from_json(&same, json, "decoder Metaspace", err);
        s->kind = TOK_DEC_METASPACE;
        memcpy(s->mark, same.mark, sizeof s->mark);
        s->mark_len = same.mark_len;
        s->prepend = same.prepend;
        return st;
    }
    if (strcmp(type, "Replace") == 0) {
        s->kind = TOK_DEC_REPLACE;
        nvllm_status st = tok_json_text(json, "content", "decoder Replace", &s->text, &s->text_len, err);
        if (st != NVLLM_OK) return st;
        return tok_pattern_from_json(&s->pattern, json_object_get(json, "pattern"), "decoder Replace", err);
    }
    return error_set(
        err, NVLLM_ERR_UNSUPPORTED,
        "decoder \"%.60s\" is not supported (ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, "
        "Sequence)",
        type);
}

static nvllm_status read_into(tok_decoder *d, const json_t *json, int depth, nvllm_error *err)
{
    const char *type;
    nvllm_status st = tok_json_type(json, "decoder", depth, &type, err);
    if (st != NVLLM_OK) return st;
    if (strcmp(type, "Sequence") != 0) {
        tok_decode_step step = {0};
        st = read_step(&step, json, type, err);
        if (st == NVLLM_OK) return tok_decoder_add(d, step, err);
        free_step(&step);
        return st;
    }
    const json_t *list = json_object_get(json, "decoders");
    if (!json_is_array(list))
        return error_set(err, NVLLM_ERR_FORMAT, "decoder Sequence: \"decoders\" is not a list");
    for (size_t i = 0; i < json_array_size(list); i++)
        if ((st = read_into(d, json_array_get(list, i), depth + 1, err)) != NVLLM_OK) return st;
    return NVLLM_OK;
}

nvllm_status tok_decoder_from_json(tok_decoder *d, const json_t *json, nvllm_error *err)
{
    if (!json_is_null(json)) return read_into(d, json, 0, err);
    return tok_decoder_add(d, (tok_decode_step){.kind = TOK_DEC_JOIN}, err);
}
