/* Building a tokenizer from a GGUF's arrays; see tokenizer.h.
 *
 * "llama" is SentencePiece BPE by scores, "gpt2" byte-level BPE by merges. A GGUF names the pre-tokenizer
 * instead of spelling it out (named_pre.h). Unknown names are refused: a near miss gives wrong tokens silently. */
#include "text/tokenizer/json.h"
#include "text/tokenizer/named_pre.h"
#include "text/tokenizer/parts.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool tokenizer_pre_adds_bos(const char *pre)
{
    const tok_named_pre *p = pre ? tok_named_pre_find(pre) : NULL;
    return p && p->add_bos;
}

static nvllm_status add_pre(tokenizer *t, const char *name, nvllm_error *err)
{
    const tok_named_pre *p = tok_named_pre_find(name);
    if (!p) return error_set(err, NVLLM_ERR_UNSUPPORTED, "pre-tokenizer \"%.60s\" is not known", name);
    nvllm_status st = NVLLM_OK;
    t->model.ignore_merges = p->ignore_merges;
    if (p->nfc) st = tok_normalizer_add(&t->normalizer, (tok_normalize_step){.kind = TOK_NFC}, err);
    for (size_t i = 0; st == NVLLM_OK && i < TOK_NAMED_REGEXES && p->regex[i]; i++) {
        tok_pre_step split = {.kind = TOK_SPLIT, .behavior = TOK_ISOLATED};
        st = tok_pattern_regex(&split.pattern, p->regex[i], strlen(p->regex[i]), err);
        if (st == NVLLM_OK) st = tok_pretokenizer_add(&t->pretokenizer, split, err);
    }
    if (st == NVLLM_OK)
        st = tok_pretokenizer_add(&t->pretokenizer, (tok_pre_step){.kind = TOK_BYTE_LEVEL}, err);
    return st == NVLLM_OK ? tok_decoder_add(&t->decoder, (tok_decode_step){.kind = TOK_DEC_BYTE_LEVEL}, err)
                          : st;
}

/* Strings that are control tokens whatever type the file gives them: ends of turns and texts, parts of "fill in the
 * middle". The list is llama.cpp's, for the same reason: converters forget the type. */
static bool is_known_control(tokenizer_text token)
{
    static const char known[] =
        " <|eot_id|> <|eom_id|> <|im_end|> <|end|> <|end_of_text|> <|endoftext|> <end_of_turn> "
        "<end_of_utterance>"
        " <EOT> _<EOT> [EOT] [EOS] </s> <\uFF5Cend\u2581of\u2581sentence\uFF5C>"
        " <|fim_prefix|> <|fim_suffix|> <|fim_middle|> <|fim_pad|> <|fim_repo|> <|repo_name|> <|file_sep|>"
        " <fim-prefix> <fim-suffix> <fim-middle> <fim-pad> <fim-repo>"
        " <fim_prefix> <fim_suffix> <fim_middle> <fim_pad> <reponame>"
        " <\uFF5Cfim\u2581begin\uFF5C> <\uFF5Cfim\u2581hole\uFF5C> <\uFF5Cfim\u2581end\uFF5C> ";
    return token.len && strchr("<[_", token.data[0]) && tok_is_listed(known, token.data, token.len);
}

/* A type that is not known makes an ordinary token, as in llama.cpp. */
static int32_t type_of(const tokenizer_spec *s, size_t i)
{
    int32_t type = s->types ? s->types[i] : TOKENIZER_NORMAL;
    if (is_known_control(s->tokens[i])) return TOKENIZER_CONTROL;
    return type >= TOKENIZER_NORMAL && type <= TOKENIZER_BYTE ? type : TOKENIZER_NORMAL;
}

/* Ids without a token have empty strings in some files; they get the names that llama.cpp gives them. */
static tokenizer_text text_of(const tokenizer_spec *s, size_t i, char spare[static 32])
{
    if (s->tokens[i].len) return s->tokens[i];
    return (tokenizer_text){spare, (size_t)snprintf(spare, 32, "[EMPTY_%zu]", i)};
}

static nvllm_status read_gpt2_token(tokenizer *t, const tokenizer_spec *s, size_t i, nvllm_error *err)
{
    char spare[32];
    tokenizer_text token = text_of(s, i, spare);
    if (utf8_valid_prefix(token.data, token.len) != token.len)
        return error_set(err, NVLLM_ERR_FORMAT, "token %zu is not valid UTF-8", i);
    nvllm_status st = tok_vocab_add(&t->model.vocab, token.data, token.len, (int64_t)i, err);
    int32_t type = type_of(s, i);
    bool special = type == TOKENIZER_CONTROL || type == TOKENIZER_UNKNOWN;
    if (st != NVLLM_OK || !(special || type == TOKENIZER_USER_DEFINED)) return st;
    tok_added_token added = {
        .content = (char *)token.data, .len = token.len, .id = (int32_t)i, .special = special};
    return tok_added_add(&t->added, added, err);
}

static nvllm_status build_gpt2(tokenizer *t, const tokenizer_spec *s, nvllm_error *err)
{
    t->model.kind = TOK_BPE;
    if (!s->pre)
        t->note = "the file names no pre-tokenizer; its tokens may be wrong, as \"default\" is used for it";
    nvllm_status st = add_pre(t, s->pre ? s->pre : "default", err);
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
    for (size_t i = 0; st == NVLLM_OK && i < s->token_count; i++) {
        char spare[32];
        st = tokenizer_spm_piece(t, text_of(s, i, spare), (double)s->scores[i], type_of(s, i), err);
    }
    /* User-defined tokens are in plain text here and cut out of it before a space goes in front, so that one at the
     * start has no mark before it; SentencePiece itself searches them later. */
    for (size_t i = 0; i < t->added.count; i++) t->added.token[i].normalized = false;
    t->model.byte_fallback = true; /* where the 256 tokens are there, whatever types they have */
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
