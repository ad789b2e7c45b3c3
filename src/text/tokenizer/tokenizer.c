/* Tokenizer: running one; see tokenizer.h.
 *
 *   text -> added tokens cut out -> normalizer -> normalized added tokens cut out -> pre-tokenizer -> model
 * Building one from a file is in open_json.c, open_sentencepiece.c and open_spec.c. */
#include "base/file.h"
#include "text/tokenizer/json.h"
#include "text/tokenizer/parts.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_LIMIT ((size_t)256 << 20)

nvllm_status tokenizer_new(tokenizer **out, nvllm_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return error_memory(err, sizeof **out, "a tokenizer");
    (*out)->bos = (*out)->eos = (*out)->model.unk_id = -1;
    return NVLLM_OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    tok_added_free(&t->added);
    tok_normalizer_free(&t->normalizer);
    tok_pretokenizer_free(&t->pretokenizer);
    tok_model_free(&t->model);
    tok_decoder_free(&t->decoder);
    free(t->before.data);
    free(t->after.data);
    free(t);
}

static nvllm_status check_known(const tokenizer *t, const tok_ids *ids, nvllm_error *err)
{
    size_t len;
    for (size_t i = 0; i < ids->count; i++)
        if (!tokenizer_id_to_piece(t, ids->data[i], &len))
            return error_set(err, NVLLM_ERR_FORMAT, "the special token to add has id %d, which is no token",
                             ids->data[i]);
    return NVLLM_OK;
}

nvllm_status tokenizer_finish(tokenizer *t, const tok_normalizer *added_normalizer, nvllm_error *err)
{
    nvllm_status st = tok_model_finish(&t->model, err);
    if (st == NVLLM_OK) st = tok_added_finish(&t->added, &t->model.vocab, added_normalizer, err);
    if (st != NVLLM_OK) return st;
    t->vocab_size = (int32_t)t->model.vocab.size;
    if (t->added.count && t->added.token[t->added.count - 1].id >= t->vocab_size)
        t->vocab_size = t->added.token[t->added.count - 1].id + 1;
    if ((st = check_known(t, &t->before, err)) == NVLLM_OK) st = check_known(t, &t->after, err);
    size_t len;
    if (t->bos < 0 && t->before.count) t->bos = t->before.data[0];
    if (!tokenizer_id_to_piece(t, t->bos, &len)) t->bos = -1;
    if (!tokenizer_id_to_piece(t, t->eos, &len)) t->eos = -1;
    return st;
}

/* --- opening ------------------------------------------------------------------------------------------ */

/* A token named in tokenizer_config.json: a string, or an object with "content". */
static int32_t config_token(const tokenizer *t, const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value)
               ? tokenizer_token_to_id(t, json_string_value(value), json_string_length(value))
               : -1;
}

/* For tokenizer.model only: tokenizer.json says in its post-processor what is added. */
static nvllm_status config_added(tokenizer *t, const json_t *config, nvllm_error *err)
{
    bool add_bos, add_eos;
    nvllm_status st =
        tok_json_bool(config, "add_bos_token", "tokenizer_config.json", TOK_DEFAULT_TRUE, &add_bos, err);
    if (st == NVLLM_OK)
        st =
            tok_json_bool(config, "add_eos_token", "tokenizer_config.json", TOK_DEFAULT_FALSE, &add_eos, err);
    if (st != NVLLM_OK) return st;
    t->before.count = t->after.count = 0;
    if (add_bos && t->bos >= 0) st = tok_ids_push(&t->before, &t->bos, 1, err);
    if (st == NVLLM_OK && add_eos && t->eos >= 0) st = tok_ids_push(&t->after, &t->eos, 1, err);
    return st;
}

static nvllm_status read_config(tokenizer *t, const char *path, bool is_sentencepiece, nvllm_error *err)
{
    char *text;
    size_t len;
    json_t *config = NULL;
    nvllm_status st = file_read(&text, &len, path, 64u << 20, err);
    if (st != NVLLM_OK) return st;
    st = tok_slice_json((tok_slice){text, len}, path, &config, err);
    free(text);
    if (st != NVLLM_OK) return st;
    int32_t bos = config_token(t, config, "bos_token"), eos = config_token(t, config, "eos_token");
    if (bos >= 0) t->bos = bos;
    if (eos >= 0) t->eos = eos;
    if (is_sentencepiece) st = config_added(t, config, err);
    json_decref(config);
    return st;
}

/* JSON starts with a brace, a SentencePiece file with field tags that are none. */
static bool looks_like_json(const file_map *map)
{
    size_t i = 0;
    while (i < map->size && map->data[i] && strchr(" \t\r\n", map->data[i])) i++;
    return i == map->size || map->data[i] == '{';
}

static nvllm_status open_file(tokenizer **out, const char *path, bool *is_sentencepiece, nvllm_error *err)
{
    file_map map;
    nvllm_status st = file_map_open(&map, path, err);
    if (st != NVLLM_OK) return st;
    *is_sentencepiece = !looks_like_json(&map);
    st = *is_sentencepiece ? tokenizer_from_sentencepiece(out, map.data, map.size, err)
                           : tokenizer_from_json(out, (const char *)map.data, map.size, err);
    file_map_close(&map);
    return st == NVLLM_OK ? st : error_prefix(err, "%s", path);
}

static nvllm_status open_folder(tokenizer **out, const char *path, nvllm_error *err)
{
    char *json = file_join(path, "tokenizer.json"), *model = file_join(path, "tokenizer.model");
    char *config = file_join(path, "tokenizer_config.json");
    nvllm_status st = json && model && config ? NVLLM_OK : error_memory(err, strlen(path), "a path");
    bool is_sentencepiece;
    if (st == NVLLM_OK) {
        const char *file = file_exists(json) ? json : file_exists(model) ? model : NULL;
        st = file ? open_file(out, file, &is_sentencepiece, err)
                  : error_set(err, NVLLM_ERR_IO, "%s: neither tokenizer.json nor tokenizer.model is there",
                              path);
    }
    if (st == NVLLM_OK && file_exists(config)) st = read_config(*out, config, is_sentencepiece, err);
    free(json);
    free(model);
    free(config);
    return st;
}

nvllm_status tokenizer_open(tokenizer **out, const char *path, nvllm_error *err)
{
    nvllm_error own;
    bool is_sentencepiece;
    *out = NULL;
    if (!err) err = &own;
    nvllm_status st =
        file_is_directory(path) ? open_folder(out, path, err) : open_file(out, path, &is_sentencepiece, err);
    if (st == NVLLM_OK) return st;
    tokenizer_close(*out);
    *out = NULL;
    return st;
}

/* --- encoding ----------------------------------------------------------------------------------------- */

typedef struct {
    const tokenizer *t;
    tok_work work;
    tok_pieces pieces, spare;
    buffer normalized;
    tok_sections raw, inner;
    tok_ids ids;
    bool special;
    nvllm_error *err;
} encoding;

static nvllm_status encode_plain(encoding *e, const char *text, size_t len, bool at_origin)
{
    buffer_clear(&e->pieces.text);
    buffer_append(&e->pieces.text, text, len);
    if (e->pieces.text.failed) return error_memory(e->err, len, "the text");
    e->pieces.count = 0;
    nvllm_status st = tok_pieces_push(&e->pieces, (tok_span){0, len, at_origin}, e->err);
    if (st == NVLLM_OK) st = tok_pretokenize(&e->t->pretokenizer, &e->work, &e->pieces, &e->spare, e->err);
    return st == NVLLM_OK ? tok_model_encode(&e->t->model, &e->work, &e->pieces, &e->spare, &e->ids, e->err)
                          : st;
}

/* A part of the text between raw added tokens. */
static nvllm_status encode_section(encoding *e, const char *text, size_t len, bool at_origin)
{
    buffer *n = &e->normalized;
    buffer_clear(n);
    buffer_append(n, text, len);
    if (n->failed) return error_memory(e->err, len, "the text");
    nvllm_status st = tok_normalize(&e->t->normalizer, &e->work, n, &at_origin, e->err);
    e->inner.count = 0;
    if (st == NVLLM_OK)
        st = tok_added_split(&e->t->added, TOK_SEARCH_NORMALIZED, e->special, n->data, n->len, &e->inner,
                             e->err);
    for (size_t i = 0; st == NVLLM_OK && i < e->inner.count; i++) {
        tok_section s = e->inner.data[i];
        st = s.id >= 0 ? tok_ids_push(&e->ids, &s.id, 1, e->err)
                       : encode_plain(e, n->data + s.start, s.len, at_origin && s.start == 0);
    }
    return st;
}

static nvllm_status encode_text(encoding *e, const char *text, size_t len)
{
    nvllm_status st = tok_added_split(&e->t->added, TOK_SEARCH_RAW, e->special, text, len, &e->raw, e->err);
    for (size_t i = 0; st == NVLLM_OK && i < e->raw.count; i++) {
        tok_section s = e->raw.data[i];
        st = s.id >= 0 ? tok_ids_push(&e->ids, &s.id, 1, e->err)
                       : encode_section(e, text + s.start, s.len, s.start == 0);
    }
    return st;
}

nvllm_status tokenizer_encode(const tokenizer *t, const char *text, size_t len, unsigned flags, int32_t **ids,
                              size_t *count, nvllm_error *err)
{
    *ids = NULL;
    *count = 0;
    if (len > TEXT_LIMIT)
        return error_set(err, NVLLM_ERR_LIMIT, "the text has %zu bytes, more than %zu", len, TEXT_LIMIT);
    size_t valid = utf8_valid_prefix(text, len);
    if (valid < len)
        return error_set(err, NVLLM_ERR_FORMAT, "the text is not valid UTF-8 at byte %zu", valid);
    encoding e = {.t = t, .special = (flags & TOKENIZER_PARSE_SPECIAL) != 0, .err = err};
    nvllm_status st = tok_work_open(&e.work, len, err);
    if (st != NVLLM_OK) return st;
    if (flags & TOKENIZER_ADD_SPECIAL) st = tok_ids_push(&e.ids, t->before.data, t->before.count, err);
    if (st == NVLLM_OK) st = encode_text(&e, text, len);
    if (st == NVLLM_OK && (flags & TOKENIZER_ADD_SPECIAL))
        st = tok_ids_push(&e.ids, t->after.data, t->after.count, err);
    if (st == NVLLM_OK && !e.ids.data && !(e.ids.data = malloc(sizeof *e.ids.data)))
        st = error_memory(err, sizeof *e.ids.data, "token ids");
    tok_work_close(&e.work);
    tok_pieces_free(&e.pieces);
    tok_pieces_free(&e.spare);
    buffer_free(&e.normalized);
    free(e.raw.data);
    free(e.inner.data);
    if (st != NVLLM_OK) {
        free(e.ids.data);
        return st;
    }
    *ids = e.ids.data;
    *count = e.ids.count;
    return NVLLM_OK;
}

/* --- decoding and lookups ----------------------------------------------------------------------------- */

nvllm_status tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t count, unsigned flags,
                              buffer *out, nvllm_error *err)
{
    tok_decoding s;
    nvllm_status st = tok_decoding_open(&s, &t->decoder, err);
    if (st != NVLLM_OK) return st;
    for (size_t i = 0; st == NVLLM_OK && i < count; i++) {
        size_t len;
        const char *piece = tokenizer_id_to_piece(t, ids[i], &len);
        if (!piece || ((flags & TOKENIZER_SKIP_SPECIAL) && tokenizer_is_special(t, ids[i]))) continue;
        st = tok_decoding_push(&s, piece, len, out, err);
    }
    if (st == NVLLM_OK) st = tok_decoding_finish(&s, out, err);
    tok_decoding_close(&s);
    return st;
}

int32_t tokenizer_vocab_size(const tokenizer *t)
{
    return t->vocab_size;
}

int32_t tokenizer_token_to_id(const tokenizer *t, const char *token, size_t len)
{
    const tok_added_token *added = tok_added_by_content(&t->added, token, len);
    return added ? added->id : tok_vocab_find(&t->model.vocab, token, len);
}

const char *tokenizer_id_to_piece(const tokenizer *t, int32_t id, size_t *len)
{
    const char *piece = tok_vocab_piece(&t->model.vocab, id, len);
    if (piece) return piece;
    const tok_added_token *added = tok_added_by_id(&t->added, id);
    if (added) *len = added->len;
    return added ? added->content : NULL;
}

const char *tokenizer_note(const tokenizer *t)
{
    return t->note;
}

bool tokenizer_is_special(const tokenizer *t, int32_t id)
{
    const tok_added_token *added = tok_added_by_id(&t->added, id);
    return added && added->special;
}

int32_t tokenizer_bos(const tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t)
{
    return t->eos;
}
