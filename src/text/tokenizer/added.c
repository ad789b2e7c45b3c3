/* Added tokens; see added.h. */
#include "text/tokenizer/added.h"
#include "text/tokenizer/json.h"
#include "text/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void tok_added_free(tok_added *a)
{
    for (size_t i = 0; i < a->count; i++) free(a->token[i].content);
    free(a->token);
    tok_trie_free(&a->content);
    tok_trie_free(&a->raw);
    tok_trie_free(&a->normal);
    *a = (tok_added){0};
}

nvllm_status tok_added_add(tok_added *a, tok_added_token token, nvllm_error *err)
{
    if (token.len == 0) return error_set(err, NVLLM_ERR_FORMAT, "added token %d has no content", token.id);
    if (tok_added_by_content(a, token.content, token.len))
        return error_set(err, NVLLM_ERR_FORMAT, "added token \"%.100s\" is listed twice", token.content);
    if (a->count == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 16;
        tok_added_token *grown = realloc(a->token, cap * sizeof *grown);
        if (!grown) return error_memory(err, cap * sizeof *grown, "added tokens");
        a->token = grown;
        a->cap = cap;
    }
    const char *given = token.content;
    token.content = malloc(token.len + 1);
    if (!token.content) return error_memory(err, token.len, "an added token");
    memcpy(token.content, given, token.len);
    token.content[token.len] = '\0';
    a->token[a->count++] = token;
    return tok_trie_add(&a->content, token.content, token.len, (int32_t)a->count - 1, err);
}

static nvllm_status read_token(tok_added *a, const json_t *json, nvllm_error *err)
{
    const char *where = "added_tokens";
    const json_t *id = json_object_get(json, "id"), *content = json_object_get(json, "content");
    if (!json_is_string(content))
        return error_set(err, NVLLM_ERR_FORMAT, "%s: \"content\" is not a string", where);
    if (!json_is_integer(id)) return error_set(err, NVLLM_ERR_FORMAT, "%s: \"id\" is not an integer", where);
    if (json_integer_value(id) < 0 || json_integer_value(id) > TOK_MAX_ID)
        return error_set(err, NVLLM_ERR_FORMAT,
                         "%s: id %" JSON_INTEGER_FORMAT " of \"%.100s\" is not in 0..%d", where,
                         json_integer_value(id), json_string_value(content), TOK_MAX_ID);
    tok_added_token t = {.content = (char *)json_string_value(content),
                         .len = json_string_length(content),
                         .id = (int32_t)json_integer_value(id)};
    nvllm_status st = tok_json_bool(json, "special", where, TOK_DEFAULT_FALSE, &t.special, err);
    tok_default normalized = t.special ? TOK_DEFAULT_FALSE : TOK_DEFAULT_TRUE;
    if (st == NVLLM_OK) st = tok_json_bool(json, "normalized", where, normalized, &t.normalized, err);
    if (st == NVLLM_OK)
        st = tok_json_bool(json, "single_word", where, TOK_DEFAULT_FALSE, &t.single_word, err);
    if (st == NVLLM_OK) st = tok_json_bool(json, "lstrip", where, TOK_DEFAULT_FALSE, &t.lstrip, err);
    if (st == NVLLM_OK) st = tok_json_bool(json, "rstrip", where, TOK_DEFAULT_FALSE, &t.rstrip, err);
    return st == NVLLM_OK ? tok_added_add(a, t, err) : st;
}

nvllm_status tok_added_from_json(tok_added *a, const json_t *json, nvllm_error *err)
{
    if (json_is_null(json)) return NVLLM_OK;
    if (!json_is_array(json)) return error_set(err, NVLLM_ERR_FORMAT, "\"added_tokens\" is not a list");
    for (size_t i = 0; i < json_array_size(json); i++) {
        nvllm_status st = read_token(a, json_array_get(json, i), err);
        if (st != NVLLM_OK) return st;
    }
    return NVLLM_OK;
}

static int by_id(const void *left, const void *right)
{
    int32_t a = ((const tok_added_token *)left)->id, b = ((const tok_added_token *)right)->id;
    return (a > b) - (a < b);
}

/* An id is the vocabulary's own for that string, or lies where the vocabulary has none. */
static nvllm_status check_ids(const tok_added *a, const tok_vocab *vocab, nvllm_error *err)
{
    for (size_t i = 0; i < a->count; i++) {
        const tok_added_token *t = &a->token[i];
        if (i && t->id == t[-1].id)
            return error_set(err, NVLLM_ERR_FORMAT, "added tokens \"%.100s\" and \"%.100s\" share id %d",
                             t[-1].content, t->content, t->id);
        int32_t known = tok_vocab_find(vocab, t->content, t->len);
        size_t len;
        const char *other = tok_vocab_piece(vocab, t->id, &len);
        if (known >= 0 && known != t->id)
            return error_set(err, NVLLM_ERR_FORMAT,
                             "added token \"%.100s\" has id %d, but %d in the vocabulary", t->content, t->id,
                             known);
        if (known < 0 && other)
            return error_set(err, NVLLM_ERR_FORMAT, "added token \"%.100s\" has id %d, which is \"%.*s\"",
                             t->content, t->id, len < 100 ? (int)len : 100, other);
    }
    return NVLLM_OK;
}

static nvllm_status add_normalized(tok_added *a, tok_work *w, size_t i, const tok_normalizer *n,
                                   nvllm_error *err)
{
    buffer text = {0};
    bool at_origin = true;
    buffer_append(&text, a->token[i].content, a->token[i].len);
    nvllm_status st = text.failed ? error_memory(err, a->token[i].len, "an added token") : NVLLM_OK;
    if (st == NVLLM_OK) st = tok_normalize(n, w, &text, &at_origin, err);
    if (st == NVLLM_OK && text.len) st = tok_trie_add(&a->normal, text.data, text.len, (int32_t)i, err);
    buffer_free(&text);
    return st;
}

nvllm_status tok_added_finish(tok_added *a, const tok_vocab *vocab, const tok_normalizer *normalizer,
                              nvllm_error *err)
{
    if (a->count) qsort(a->token, a->count, sizeof *a->token, by_id);
    nvllm_status st = check_ids(a, vocab, err);
    if (st != NVLLM_OK) return st;
    tok_work w;
    if ((st = tok_work_open(&w, 65536, err)) != NVLLM_OK) return st;
    for (size_t i = 0; st == NVLLM_OK && i < a->count; i++) {
        const tok_added_token *t = &a->token[i];
        st = tok_trie_add(&a->content, t->content, t->len, (int32_t)i, err);
        if (st != NVLLM_OK) break;
        if (t->normalized)
            st = add_normalized(a, &w, i, normalizer, err);
        else
            st = tok_trie_add(&a->raw, t->content, t->len, (int32_t)i, err);
    }
    tok_work_close(&w);
    return st;
}

const tok_added_token *tok_added_by_id(const tok_added *a, int32_t id)
{
    size_t low = 0, high = a->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (a->token[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < a->count && a->token[low].id == id ? &a->token[low] : NULL;
}

/* Length of the longest string of the trie at text, and its value; 0: none. */
static size_t longest_match(const tok_trie *t, const char *text, size_t len, int32_t *value)
{
    size_t best = 0;
    uint32_t node = 0;
    *value = -1;
    for (size_t i = 0; i < len && (node = tok_trie_step(t, node, (unsigned char)text[i])); i++) {
        if (t->value[node] < 0) continue;
        best = i + 1;
        *value = t->value[node];
    }
    return best;
}

const tok_added_token *tok_added_by_content(const tok_added *a, const char *text, size_t len)
{
    int32_t index = -1;
    size_t found = len ? longest_match(&a->content, text, len, &index) : 0;
    return found && found == len ? &a->token[index] : NULL;
}

static size_t character_before(const char *text, size_t end, uint32_t *code)
{
    size_t i = end - 1;
    while (i && (text[i] & 0xC0) == 0x80) i--;
    return utf8_decode(text + i, end - i, code) ? i : end;
}

static bool is_single_word(const char *text, size_t len, size_t start, size_t end)
{
    uint32_t code;
    if (start && character_before(text, start, &code) != start && utf8_is_word(code)) return false;
    return !(end < len && utf8_decode(text + end, len - end, &code) && utf8_is_word(code));
}

static size_t skip_spaces_back(const char *text, size_t start, size_t limit)
{
    uint32_t code;
    while (start > limit) {
        size_t before = character_before(text, start, &code);
        if (before == start || !utf8_is_space(code)) break;
        start = before;
    }
    return start > limit ? start : limit;
}

static size_t skip_spaces(const char *text, size_t len, size_t end)
{
    uint32_t code;
    for (unsigned n; end < len && (n = utf8_decode(text + end, len - end, &code)) && utf8_is_space(code);)
        end += n;
    return end;
}

static nvllm_status push(tok_sections *out, size_t start, size_t end, int32_t id, nvllm_error *err)
{
    if (start >= end && id < 0) return NVLLM_OK;
    if (out->count == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 16;
        tok_section *grown = realloc(out->data, cap * sizeof *grown);
        if (!grown) return error_memory(err, cap * sizeof *grown, "sections of the text");
        out->data = grown;
        out->cap = cap;
    }
    out->data[out->count++] = (tok_section){start, end - start, id};
    return NVLLM_OK;
}

nvllm_status tok_added_split(const tok_added *a, tok_added_search which, bool special, const char *text,
                             size_t len, tok_sections *out, nvllm_error *err)
{
    const tok_trie *trie = which == TOK_SEARCH_RAW ? &a->raw : &a->normal;
    nvllm_status st = NVLLM_OK;
    size_t done = 0, match;
    for (size_t i = 0; trie->nodes && i < len && st == NVLLM_OK; i += match ? match : 1) {
        int32_t index;
        if (!(match = longest_match(trie, text + i, len - i, &index))) continue;
        const tok_added_token *t = &a->token[index];
        size_t start = i, end = i + match;
        if (t->special && !special) continue;
        if (t->single_word && !is_single_word(text, len, start, end)) continue;
        /* White space that the match before took is not taken again. */
        if (t->lstrip) start = skip_spaces_back(text, start, done < start ? done : start);
        if (t->rstrip) end = skip_spaces(text, len, end);
        if (done < start) st = push(out, done, start, -1, err);
        if (st == NVLLM_OK) st = push(out, start, end, t->id, err);
        done = end;
    }
    return st == NVLLM_OK ? push(out, done, len, -1, err) : st;
}
