/* Building a tokenizer from tokenizer.json; see tokenizer.h. `vocab` and `merges` are read in place by the
 * cursor, every other part by jansson (json.h). "truncation" and "padding" are training settings and
 * ignored, as in the model's own chat use. */
#include "text/tokenizer/json.h"
#include "text/tokenizer/parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_BYTES 20 /* of "piece": id, and white space; a guess for the first size of the table */

/* --- model -------------------------------------------------------------------------------------------- */

static nvllm_status read_vocab_object(tok_model *m, tok_slice slice, nvllm_error *err)
{
    tok_cursor c;
    bool more;
    tok_cursor_start(&c, slice, err);
    nvllm_status st = tok_vocab_reserve(&m->vocab, slice.len / ENTRY_BYTES, err);
    if (st == NVLLM_OK) st = tok_cursor_item(&c, '{', '}', true, &more);
    while (st == NVLLM_OK && more) {
        const char *piece;
        size_t len;
        int64_t id;
        if ((st = tok_cursor_key(&c, &piece, &len)) != NVLLM_OK) break;
        if ((st = tok_cursor_integer(&c, &id)) != NVLLM_OK) break;
        if ((st = tok_vocab_add(&m->vocab, piece, len, id, err)) != NVLLM_OK) break;
        st = tok_cursor_item(&c, '{', '}', false, &more);
    }
    if (st == NVLLM_OK) st = tok_cursor_done(&c);
    tok_cursor_free(&c);
    return st == NVLLM_OK ? st : error_prefix(err, "model.vocab");
}

/* A merge: "left right", or ["left", "right"]. */
static nvllm_status read_merge(tok_model *m, tok_cursor *c, buffer *left)
{
    const char *text, *right;
    size_t len, right_len;
    bool more;
    nvllm_status st;
    if (tok_cursor_peek(c) == '"') {
        if ((st = tok_cursor_string(c, &text, &len)) != NVLLM_OK) return st;
        if (len >= 8 && memcmp(text, "#version", 8) == 0) return NVLLM_OK;
        right = memchr(text, ' ', len);
        if (!right || memchr(right + 1, ' ', len - (size_t)(right + 1 - text)))
            return tok_cursor_fail(c, "a merge of two parts with one space between");
        return tok_merges_add(m, text, (size_t)(right - text), right + 1, len - (size_t)(right + 1 - text),
                              c->err);
    }
    if ((st = tok_cursor_item(c, '[', ']', true, &more)) != NVLLM_OK) return st;
    if (!more) return tok_cursor_fail(c, "a merge of two parts");
    if ((st = tok_cursor_string(c, &text, &len)) != NVLLM_OK) return st;
    buffer_clear(left);
    buffer_append(left, text, len);
    if (left->failed) return error_memory(c->err, len, "a merge");
    if ((st = tok_cursor_item(c, '[', ']', false, &more)) != NVLLM_OK) return st;
    if (!more) return tok_cursor_fail(c, "a merge of two parts");
    if ((st = tok_cursor_string(c, &right, &right_len)) != NVLLM_OK) return st;
    if ((st = tok_cursor_item(c, '[', ']', false, &more)) != NVLLM_OK) return st;
    if (more) return tok_cursor_fail(c, "a merge of two parts");
    return tok_merges_add(m, left->data, left->len, right, right_len, c->err);
}

static nvllm_status read_merges(tok_model *m, tok_slice slice, nvllm_error *err)
{
    tok_cursor c;
    buffer left = {0};
    bool more;
    tok_cursor_start(&c, slice, err);
    nvllm_status st = tok_cursor_item(&c, '[', ']', true, &more);
    while (st == NVLLM_OK && more) {
        if ((st = read_merge(m, &c, &left)) != NVLLM_OK) break;
        st = tok_cursor_item(&c, '[', ']', false, &more);
    }
    if (st == NVLLM_OK) st = tok_cursor_done(&c);
    tok_cursor_free(&c);
    buffer_free(&left);
    return st == NVLLM_OK ? st : error_prefix(err, "model.merges");
}

/* One [piece, score] of a Unigram vocabulary; its id is its place. */
static nvllm_status read_scored(tok_model *m, tok_cursor *c, size_t *cap)
{
    const char *piece;
    size_t len;
    bool more;
    uint32_t id = m->vocab.size;
    nvllm_status st = tok_cursor_item(c, '[', ']', true, &more);
    if (st == NVLLM_OK && !more) st = tok_cursor_fail(c, "[piece, score]");
    if (st == NVLLM_OK) st = tok_cursor_string(c, &piece, &len);
    if (st == NVLLM_OK) st = tok_vocab_add(&m->vocab, piece, len, id, c->err);
    if (st == NVLLM_OK) st = tok_work_reserve((void **)&m->score, cap, (id + 1) * sizeof *m->score, c->err);
    if (st == NVLLM_OK) st = tok_cursor_item(c, '[', ']', false, &more);
    if (st == NVLLM_OK && !more) st = tok_cursor_fail(c, "[piece, score]");
    if (st == NVLLM_OK) st = tok_cursor_number(c, &m->score[id]);
    if (st == NVLLM_OK && !isfinite(m->score[id])) st = tok_cursor_fail(c, "a finite score");
    if (st == NVLLM_OK) st = tok_cursor_item(c, '[', ']', false, &more);
    return st == NVLLM_OK && more ? tok_cursor_fail(c, "[piece, score]") : st;
}

static nvllm_status read_vocab_list(tok_model *m, tok_slice slice, nvllm_error *err)
{
    tok_cursor c;
    size_t cap = 0;
    bool more;
    tok_cursor_start(&c, slice, err);
    nvllm_status st = tok_cursor_item(&c, '[', ']', true, &more);
    while (st == NVLLM_OK && more) {
        if ((st = read_scored(m, &c, &cap)) != NVLLM_OK) break;
        st = tok_cursor_item(&c, '[', ']', false, &more);
    }
    if (st == NVLLM_OK) st = tok_cursor_done(&c);
    tok_cursor_free(&c);
    if (st == NVLLM_OK && m->vocab.count == 0)
        st = error_set(err, NVLLM_ERR_FORMAT, "the vocabulary is empty");
    return st == NVLLM_OK ? st : error_prefix(err, "model.vocab");
}

enum {
    TYPE,
    VOCAB,
    MERGES,
    UNK_TOKEN,
    UNK_ID,
    BYTE_FALLBACK,
    FUSE_UNK,
    IGNORE_MERGES,
    DROPOUT,
    PREFIX,
    SUFFIX,
    FIELDS
};

static const char *const field_names[FIELDS] = {"type",
                                                "vocab",
                                                "merges",
                                                "unk_token",
                                                "unk_id",
                                                "byte_fallback",
                                                "fuse_unk",
                                                "ignore_merges",
                                                "dropout",
                                                "continuing_subword_prefix",
                                                "end_of_word_suffix"};

/* All fields but vocab and merges, as jansson values in one object. */
static nvllm_status read_fields(const tok_slice *field, json_t **out, nvllm_error *err)
{
    json_t *object = *out = json_object();
    if (!object) return error_memory(err, 0, "the model's fields");
    for (int i = 0; i < FIELDS; i++) {
        json_t *value;
        if (i == VOCAB || i == MERGES || field[i].len == 0) continue;
        nvllm_status st = tok_slice_json(field[i], field_names[i], &value, err);
        if (st != NVLLM_OK) return error_prefix(err, "model");
        if (json_object_set_new(object, field_names[i], value))
            return error_memory(err, 0, "the model's fields");
    }
    return NVLLM_OK;
}

static nvllm_status read_flags(tok_model *m, const json_t *fields, nvllm_error *err)
{
    nvllm_status st =
        tok_json_bool(fields, "byte_fallback", "model", TOK_DEFAULT_FALSE, &m->byte_fallback, err);
    if (st == NVLLM_OK) st = tok_json_bool(fields, "fuse_unk", "model", TOK_DEFAULT_FALSE, &m->fuse_unk, err);
    if (st == NVLLM_OK)
        st = tok_json_bool(fields, "ignore_merges", "model", TOK_DEFAULT_FALSE, &m->ignore_merges, err);
    if (st != NVLLM_OK) return st;
    const json_t *dropout = json_object_get(fields, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "model: dropout is not supported");
    for (int i = PREFIX; i <= SUFFIX; i++) {
        const json_t *value = json_object_get(fields, field_names[i]);
        if (value && !json_is_null(value) && !(json_is_string(value) && json_string_length(value) == 0))
            return error_set(err, NVLLM_ERR_UNSUPPORTED, "model: %s is not supported", field_names[i]);
    }
    return NVLLM_OK;
}

static nvllm_status read_bpe(tok_model *m, const tok_slice *field, const json_t *fields, nvllm_error *err)
{
    m->kind = TOK_BPE;
    if (!field[VOCAB].len || !field[MERGES].len)
        return error_set(err, NVLLM_ERR_FORMAT, "model: BPE needs \"vocab\" and \"merges\"");
    nvllm_status st = read_vocab_object(m, field[VOCAB], err);
    if (st == NVLLM_OK) st = read_merges(m, field[MERGES], err);
    if (st != NVLLM_OK) return st;
    const json_t *unk = json_object_get(fields, "unk_token");
    if (!unk || json_is_null(unk)) return NVLLM_OK;
    if (!json_is_string(unk)) return error_set(err, NVLLM_ERR_FORMAT, "model: \"unk_token\" is not a string");
    m->unk_id = tok_vocab_find(&m->vocab, json_string_value(unk), json_string_length(unk));
    if (m->unk_id >= 0) return NVLLM_OK;
    return error_set(err, NVLLM_ERR_FORMAT, "model: unk_token \"%.100s\" is not in the vocabulary",
                     json_string_value(unk));
}

static nvllm_status read_unigram(tok_model *m, const tok_slice *field, const json_t *fields, nvllm_error *err)
{
    m->kind = TOK_UNIGRAM;
    if (!field[VOCAB].len) return error_set(err, NVLLM_ERR_FORMAT, "model: Unigram needs \"vocab\"");
    nvllm_status st = read_vocab_list(m, field[VOCAB], err);
    if (st != NVLLM_OK) return st;
    const json_t *unk = json_object_get(fields, "unk_id");
    if (!unk || json_is_null(unk)) return NVLLM_OK;
    if (!json_is_integer(unk) || json_integer_value(unk) < 0 ||
        json_integer_value(unk) >= (json_int_t)m->vocab.size)
        return error_set(err, NVLLM_ERR_FORMAT, "model: \"unk_id\" is not an id of the vocabulary of %u",
                         m->vocab.size);
    m->unk_id = (int32_t)json_integer_value(unk);
    return NVLLM_OK;
}

static nvllm_status read_model(tok_model *m, tok_slice slice, nvllm_error *err)
{
    tok_cursor c;
    tok_slice field[FIELDS] = {{0}};
    json_t *fields = NULL;
    tok_cursor_start(&c, slice, err);
    nvllm_status st = tok_cursor_members(&c, field_names, field, FIELDS);
    tok_cursor_free(&c);
    if (st != NVLLM_OK) return error_prefix(err, "model");
    st = read_fields(field, &fields, err);
    if (st == NVLLM_OK) st = read_flags(m, fields, err);
    if (st != NVLLM_OK) goto done;
    const json_t *given = json_object_get(fields, "type");
    const char *type = json_string_value(given);
    if (!given) type = field[MERGES].len ? "BPE" : "Unigram"; /* files from before the field existed */
    if (type && strcmp(type, "BPE") == 0)
        st = read_bpe(m, field, fields, err);
    else if (type && strcmp(type, "Unigram") == 0)
        st = read_unigram(m, field, fields, err);
    else
        st = error_set(err, NVLLM_ERR_UNSUPPORTED, "model type \"%.60s\" is not supported (BPE, Unigram)",
                       type ? type : "(not a string)");
done:
    json_decref(fields);
    return st;
}

/* --- post-processor ----------------------------------------------------------------------------------- */

/* The ids that a special token of the template stands for. */
static nvllm_status push_template_token(const json_t *processor, const char *name, tok_ids *to,
                                        nvllm_error *err)
{
    const json_t *entry = json_object_get(json_object_get(processor, "special_tokens"), name);
    const json_t *ids = json_object_get(entry, "ids");
    if (!json_is_array(ids))
        return error_set(err, NVLLM_ERR_FORMAT,
                         "post_processor TemplateProcessing: special token \"%.100s\" has no ids", name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *value = json_array_get(ids, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) > TOK_MAX_ID)
            return error_set(err, NVLLM_ERR_FORMAT,
                             "post_processor TemplateProcessing: an id of \"%.100s\" is no id", name);
        int32_t id = (int32_t)json_integer_value(value);
        nvllm_status st = tok_ids_push(to, &id, 1, err);
        if (st != NVLLM_OK) return st;
    }
    return NVLLM_OK;
}

/* "single": special tokens, the sequence A once, special tokens. */
static nvllm_status read_template(tokenizer *t, const json_t *json, nvllm_error *err)
{
    const json_t *single = json_object_get(json, "single");
    bool seen = false;
    if (!json_is_array(single))
        return error_set(err, NVLLM_ERR_FORMAT,
                         "post_processor TemplateProcessing: \"single\" is not a list");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const char *token = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        const char *sequence = json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        nvllm_status st = NVLLM_OK;
        if (token)
            st = push_template_token(json, token, seen ? &t->after : &t->before, err);
        else if (sequence && strcmp(sequence, "A") == 0 && !seen)
            seen = true;
        else
            st = error_set(err, NVLLM_ERR_UNSUPPORTED,
                           "post_processor TemplateProcessing: item %zu of \"single\"", i);
        if (st != NVLLM_OK) return st;
    }
    return seen ? NVLLM_OK
                : error_set(err, NVLLM_ERR_FORMAT,
                            "post_processor TemplateProcessing: \"single\" lacks the sequence A");
}

static nvllm_status read_post(tokenizer *t, const json_t *json, int depth, bool *has_template,
                              nvllm_error *err)
{
    const char *type;
    nvllm_status st = tok_json_type(json, "post_processor", depth, &type, err);
    if (st != NVLLM_OK || strcmp(type, "ByteLevel") == 0) return st; /* ByteLevel moves offsets only */
    if (strcmp(type, "TemplateProcessing") == 0) {
        if (*has_template)
            return error_set(err, NVLLM_ERR_UNSUPPORTED, "post_processor: more than one TemplateProcessing");
        *has_template = true;
        return read_template(t, json, err);
    }
    if (strcmp(type, "Sequence") != 0)
        return error_set(
            err, NVLLM_ERR_UNSUPPORTED,
            "post_processor \"%.60s\" is not supported (ByteLevel, TemplateProcessing, Sequence)", type);
    const json_t *list = json_object_get(json, "processors");
    if (!json_is_array(list))
        return error_set(err, NVLLM_ERR_FORMAT, "post_processor Sequence: \"processors\" is not a list");
    for (size_t i = 0; st == NVLLM_OK && i < json_array_size(list); i++)
        st = read_post(t, json_array_get(list, i), depth + 1, has_template, err);
    return st;
}

/* --- the file ----------------------------------------------------------------------------------------- */

enum { NORMALIZER, PRE_TOKENIZER, POST_PROCESSOR, DECODER, ADDED_TOKENS, MODEL, PARTS };

static const char *const part_names[PARTS] = {"normalizer", "pre_tokenizer", "post_processor",
                                              "decoder",    "added_tokens",  "model"};

static nvllm_status read_part(tokenizer *t, int part, const json_t *json, nvllm_error *err)
{
    bool has_template = false;
    switch (part) {
    case NORMALIZER: return tok_normalizer_from_json(&t->normalizer, json, err);
    case PRE_TOKENIZER: return tok_pretokenizer_from_json(&t->pretokenizer, json, err);
    case POST_PROCESSOR: return json_is_null(json) ? NVLLM_OK : read_post(t, json, 0, &has_template, err);
    case DECODER: return tok_decoder_from_json(&t->decoder, json, err);
    default: return tok_added_from_json(&t->added, json, err);
    }
}

static nvllm_status read_parts(tokenizer *t, const char *text, size_t len, nvllm_error *err)
{
    tok_cursor c;
    tok_slice part[PARTS] = {{0}};
    tok_cursor_start(&c, (tok_slice){text, len}, err);
    nvllm_status st = tok_cursor_members(&c, part_names, part, PARTS);
    if (st == NVLLM_OK) st = tok_cursor_done(&c);
    tok_cursor_free(&c);
    if (st == NVLLM_OK && !part[MODEL].len) st = error_set(err, NVLLM_ERR_FORMAT, "\"model\" is missing");
    for (int i = 0; st == NVLLM_OK && i < MODEL; i++) {
        json_t *json;
        if ((st = tok_slice_json(part[i], part_names[i], &json, err)) != NVLLM_OK) break;
        st = read_part(t, i, json, err);
        json_decref(json);
    }
    if (st == NVLLM_OK) st = read_model(&t->model, part[MODEL], err);
    return st == NVLLM_OK ? tokenizer_finish(t, &t->normalizer, err) : st;
}

nvllm_status tokenizer_from_json(tokenizer **out, const char *json, size_t len, nvllm_error *err)
{
    nvllm_error own;
    if (!err) err = &own;
    nvllm_status st = tokenizer_new(out, err);
    if (st == NVLLM_OK) st = read_parts(*out, json ? json : "", json ? len : 0, err);
    if (st == NVLLM_OK) return st;
    tokenizer_close(*out);
    *out = NULL;
    return st;
}
