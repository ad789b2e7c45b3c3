/* Building a tokenizer from a GGUF's arrays; see tokenizer.h.
 *
 * "llama" is SentencePiece BPE by scores, "gpt2" byte-level BPE by merges. A GGUF names the pre-tokenizer
 * instead of spelling it out; the regular expressions are those of the models' tokenizer.json, and for names
 * without one those of llama.cpp (src/llama-vocab.cpp, MIT). Unknown names are refused: a near miss gives wrong
 * tokens silently. */
#include "text/tokenizer/json.h"
#include "text/tokenizer/parts.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define GPT2_REGEX "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define TAIL       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define HEAD       "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define UPPER      "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER      "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD       "[^\\r\\n\\p{L}\\p{N}]?"
#define ENDINGS    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define CASE_TAIL  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

typedef struct {
    const char *names; /* separated by spaces, with one at either end */
    const char *regex[4];
    bool ignore_merges, nfc;
} pre_tokenizer;

static const pre_tokenizer known[] = {
    {" default ",
     {"[\\p{P}\\$\\+<=>\\^~\\|]+",
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "\\p{N}+",
      "[0-9][0-9][0-9]"},
     false,
     false},
    {" gpt-2 gpt2 phi-2 mpt olmo jais roberta-bpe ", {GPT2_REGEX}, false, false},
    {" llama-bpe llama3 llama-v3 llama4-smaug falcon3 ", {HEAD "\\p{N}{1,3}" TAIL}, true, false},
    {" smaug-bpe dbrx chatglm-bpe ", {HEAD "\\p{N}{1,3}" TAIL}, false, false},
    {" qwen2 deepseek-r1-qwen ", {HEAD "\\p{N}" TAIL}, false, true},
    {" stablelm2 ", {HEAD "\\p{N}" TAIL}, false, false},
    {" smollm starcoder refact command-r codeshell exaone ", {"\\p{N}", GPT2_REGEX}, false, false},
    {" tekken ", {LEAD UPPER "*" LOWER "+|" LEAD UPPER "+" LOWER "*|\\p{N}" CASE_TAIL}, true, false},
    {" gpt-4o llama4 ",
     {LEAD UPPER "*" LOWER "+" ENDINGS "|" LEAD UPPER "+" LOWER "*" ENDINGS "|\\p{N}{1,3}" CASE_TAIL},
     false,
     false},
};

static const pre_tokenizer *find_pre(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || strchr(name, ' ')) return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (const char *at = known[i].names; (at = strstr(at, name)); at++)
            if (at[-1] == ' ' && at[len] == ' ') return &known[i];
    return NULL;
}

static nvllm_status add_pre(tokenizer *t, const char *name, nvllm_error *err)
{
    const pre_tokenizer *p = find_pre(name ? name : "default");
    if (!p) return error_set(err, NVLLM_ERR_UNSUPPORTED, "pre-tokenizer \"%.60s\" is not known", name);
    nvllm_status st = NVLLM_OK;
    t->model.ignore_merges = p->ignore_merges;
    if (p->nfc) st = tok_normalizer_add(&t->normalizer, (tok_normalize_step){.kind = TOK_NFC}, err);
    for (size_t i = 0; st == NVLLM_OK && i < 4 && p->regex[i]; i++) {
        tok_pre_step split = {.kind = TOK_SPLIT, .behavior = TOK_ISOLATED};
        st = tok_pattern_regex(&split.pattern, p->regex[i], strlen(p->regex[i]), err);
        if (st == NVLLM_OK) st = tok_pretokenizer_add(&t->pretokenizer, split, err);
    }
    if (st == NVLLM_OK)
        st = tok_pretokenizer_add(&t->pretokenizer, (tok_pre_step){.kind = TOK_BYTE_LEVEL}, err);
    return st == NVLLM_OK ? tok_decoder_add(&t->decoder, (tok_decode_step){.kind = TOK_DEC_BYTE_LEVEL}, err)
                          : st;
}

static nvllm_status read_gpt2_token(tokenizer *t, const tokenizer_spec *s, size_t i, nvllm_error *err)
{
    tokenizer_text token = s->tokens[i];
    if (utf8_valid_prefix(token.data, token.len) != token.len)
        return error_set(err, NVLLM_ERR_FORMAT, "token %zu is not valid UTF-8", i);
    nvllm_status st = tok_vocab_add(&t->model.vocab, token.data, token.len, (int64_t)i, err);
    int32_t type = s->types ? s->types[i] : TOKENIZER_NORMAL;
    bool special = type == TOKENIZER_CONTROL || type == TOKENIZER_UNKNOWN;
    if (st != NVLLM_OK || token.len == 0 || !(special || type == TOKENIZER_USER_DEFINED)) return st;
    tok_added_token added = {
        .content = (char *)token.data, .len = token.len, .id = (int32_t)i, .special = special};
    return tok_added_add(&t->added, added, err);
}

static nvllm_status build_gpt2(tokenizer *t, const tokenizer_spec *s, nvllm_error *err)
{
    t->model.kind = TOK_BPE;
    nvllm_status st = add_pre(t, s->pre, err);
    for (size_t i = 0; st == NVLLM_OK && i < s->token_count; i++) st = read_gpt2_token(t, s, i, err);
    for (size_t i = 0; st == NVLLM_OK && i < s->merge_count; i++) {
        const char *left = s->merges[i].data;
        size_t len = s->merges[i].len;
        const char *space =
            len > 1 ? memchr(left + 1, ' ', len - 1) : NULL; /* a part may itself be a space */
        if (!space)
            return error_set(err, NVLLM_ERR_FORMAT, "merge %zu is not two parts with a space between", i);
        st = tok_merges_add(&t->model, left, (size_t)(space - left), space + 1,
                            len - (size_t)(space + 1 - left), err);
    }
    return st == NVLLM_OK ? tokenizer_finish(t, &t->normalizer, err) : st;
}

static nvllm_status build_llama(tokenizer *t, const tokenizer_spec *s, nvllm_error *err)
{
    if (!s->scores) return error_set(err, NVLLM_ERR_FORMAT, "model \"llama\" needs the scores of its tokens");
    t->model.kind = TOK_SPM;
    t->model.score = calloc(s->token_count + 1, sizeof *t->model.score);
    t->model.mergeable = calloc(s->token_count + 1, sizeof *t->model.mergeable);
    if (!t->model.score || !t->model.mergeable) return error_memory(err, s->token_count * 9, "the tokens");
    nvllm_status st = NVLLM_OK;
    for (size_t i = 0; st == NVLLM_OK && i < s->token_count; i++)
        st = tokenizer_spm_piece(t, s->tokens[i], (double)s->scores[i],
                                 s->types ? s->types[i] : TOKENIZER_NORMAL, err);
    if (s->unk_id >= 0) t->model.unk_id = s->unk_id;
    tokenizer_spm_options options = {.squeeze = s->remove_extra_whitespaces,
                                     .space_prefix = s->add_space_prefix};
    if (st == NVLLM_OK) st = tokenizer_spm_parts(t, options, err);
    return st == NVLLM_OK ? tokenizer_spm_finish(t, err) : st;
}

static nvllm_status check_id(const tokenizer_spec *s, int32_t id, const char *name, nvllm_error *err)
{
    if (id < 0 || (size_t)id < s->token_count) return NVLLM_OK;
    return error_set(err, NVLLM_ERR_FORMAT, "%s %d is not below the number of tokens, %zu", name, id,
                     s->token_count);
}

static nvllm_status build(tokenizer *t, const tokenizer_spec *s, nvllm_error *err)
{
    if (s->token_count == 0 || s->token_count > TOK_MAX_ID)
        return error_set(err, NVLLM_ERR_FORMAT, "the tokenizer has %zu tokens", s->token_count);
    nvllm_status st = check_id(s, s->bos_id, "bos_token_id", err);
    if (st == NVLLM_OK) st = check_id(s, s->eos_id, "eos_token_id", err);
    if (st == NVLLM_OK) st = check_id(s, s->unk_id, "unknown_token_id", err);
    if (st != NVLLM_OK) return st;
    t->bos = s->bos_id;
    t->eos = s->eos_id;
    if (s->add_bos && s->bos_id >= 0) st = tok_ids_push(&t->before, &s->bos_id, 1, err);
    if (st == NVLLM_OK && s->add_eos && s->eos_id >= 0) st = tok_ids_push(&t->after, &s->eos_id, 1, err);
    if (st != NVLLM_OK) return st;
    if (s->model && strcmp(s->model, "gpt2") == 0) return build_gpt2(t, s, err);
    if (s->model && strcmp(s->model, "llama") == 0) return build_llama(t, s, err);
    return error_set(err, NVLLM_ERR_UNSUPPORTED, "tokenizer model \"%.60s\" is not supported (llama, gpt2)",
                     s->model ? s->model : "");
}

nvllm_status tokenizer_from_spec(tokenizer **out, const tokenizer_spec *spec, nvllm_error *err)
{
    nvllm_error own;
    if (!err) err = &own;
    nvllm_status st = tokenizer_new(out, err);
    if (st == NVLLM_OK) st = build(*out, spec, err);
    if (st == NVLLM_OK) return st;
    tokenizer_close(*out);
    *out = NULL;
    return st;
}
