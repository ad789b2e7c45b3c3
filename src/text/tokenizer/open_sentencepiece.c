/* Building a tokenizer from SentencePiece's tokenizer.model; see tokenizer.h.
 *
 * The file is a protobuf: ModelProto {1: pieces, 2: trainer_spec, 3: normalizer_spec, 5: denormalizer_spec}
 * (sentencepiece/src/sentencepiece_model.proto). BPE and Unigram models whose normalizer is the identity are
 * read; a compiled normalization table, WORD and CHAR models and unused pieces are refused by name.
 * Encoding is SentencePiece's. Control pieces in the text count where the caller parses special tokens. Decoding
 * is what transformers makes of such a file: Replace, ByteFallback, Fuse, Strip. */
#include "text/tokenizer/json.h"
#include "text/tokenizer/parts.h"
#include "text/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SPACE_MARK "\xE2\x96\x81" /* U+2581 */

/* --- shared with GGUF's "llama" ------------------------------------------------------------------------- */

static char *copy_text(const char *text)
{
    char *copy = malloc(strlen(text) + 1);
    return copy ? memcpy(copy, text, strlen(text) + 1) : NULL;
}

static nvllm_status add_text_step(tok_normalizer *n, tok_normalize_kind kind, nvllm_error *err)
{
    tok_normalize_step step = {.kind = kind, .text = copy_text(SPACE_MARK), .text_len = strlen(SPACE_MARK)};
    if (!step.text) return error_memory(err, step.text_len, "a normalizer");
    nvllm_status st = kind == TOK_REPLACE ? tok_pattern_literal(&step.pattern, " ", 1, err) : NVLLM_OK;
    if (st == NVLLM_OK) return tok_normalizer_add(n, step, err);
    free(step.text);
    return st;
}

static nvllm_status add_decoder(tok_decoder *d, bool space_prefix, nvllm_error *err)
{
    tok_decode_step mark = {.kind = TOK_DEC_REPLACE, .text = copy_text(" "), .text_len = 1};
    tok_decode_step strip = {.kind = TOK_DEC_STRIP, .mark = {' '}, .mark_len = 1, .start = 1};
    if (!mark.text) return error_memory(err, 1, "a decoder");
    nvllm_status st = tok_pattern_literal(&mark.pattern, SPACE_MARK, strlen(SPACE_MARK), err);
    if (st != NVLLM_OK) {
        free(mark.text);
        return st;
    }
    st = tok_decoder_add(d, mark, err);
    if (st == NVLLM_OK) st = tok_decoder_add(d, (tok_decode_step){.kind = TOK_DEC_BYTE_FALLBACK}, err);
    if (st == NVLLM_OK) st = tok_decoder_add(d, (tok_decode_step){.kind = TOK_DEC_FUSE}, err);
    return st == NVLLM_OK && space_prefix ? tok_decoder_add(d, strip, err) : st;
}

nvllm_status tokenizer_spm_parts(tokenizer *t, tokenizer_spm_options options, nvllm_error *err)
{
    nvllm_status st = NVLLM_OK;
    if (options.squeeze)
        st = tok_normalizer_add(&t->normalizer, (tok_normalize_step){.kind = TOK_SQUEEZE}, err);
    if (st == NVLLM_OK && options.space_prefix) st = add_text_step(&t->normalizer, TOK_PREPEND, err);
    if (st == NVLLM_OK) st = add_text_step(&t->normalizer, TOK_REPLACE, err);
    return st == NVLLM_OK ? add_decoder(&t->decoder, options.space_prefix, err) : st;
}

/* User-defined pieces are searched in the text after its spaces became marks, so theirs do as well. */
nvllm_status tokenizer_spm_finish(tokenizer *t, nvllm_error *err)
{
    tok_normalizer marks = {0};
    nvllm_status st = add_text_step(&marks, TOK_REPLACE, err);
    if (st == NVLLM_OK) st = tokenizer_finish(t, &marks, err);
    tok_normalizer_free(&marks);
    return st;
}

nvllm_status tokenizer_spm_piece(tokenizer *t, tokenizer_text piece, double score, int32_t type,
                                 nvllm_error *err)
{
    tok_model *m = &t->model;
    uint32_t id = m->vocab.size;
    if (utf8_valid_prefix(piece.data, piece.len) != piece.len)
        return error_set(err, NVLLM_ERR_FORMAT, "piece %u is not valid UTF-8", id);
    if (!isfinite(score)) return error_set(err, NVLLM_ERR_FORMAT, "piece %u has no finite score", id);
    if (type < TOKENIZER_NORMAL || type > TOKENIZER_BYTE)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "piece %u has type %d, which is not known", id, type);
    nvllm_status st = tok_vocab_add(&m->vocab, piece.data, piece.len, id, err);
    if (st != NVLLM_OK) return st;
    m->score[id] = score;
    m->mergeable[id] = type == TOKENIZER_NORMAL || type == TOKENIZER_USER_DEFINED;
    if (type == TOKENIZER_UNKNOWN && m->unk_id < 0) m->unk_id = (int32_t)id;
    if (type == TOKENIZER_BYTE) m->byte_fallback = true;
    if ((type != TOKENIZER_CONTROL && type != TOKENIZER_UNKNOWN && type != TOKENIZER_USER_DEFINED) ||
        piece.len == 0)
        return NVLLM_OK;
    bool user = type == TOKENIZER_USER_DEFINED;
    tok_added_token token = {.content = (char *)piece.data,
                             .len = piece.len,
                             .id = (int32_t)id,
                             .special = !user,
                             .normalized = user};
    return tok_added_add(&t->added, token, err);
}

/* --- protobuf ------------------------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *at, *end;
} reader;

/* One field: its number and, by wire type, an integer or a run of bytes (4, 8 or any length). */
typedef struct {
    uint32_t number, wire;
    uint64_t value;
    reader bytes;
} field;

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static bool read_varint(reader *r, uint64_t *out)
{
    uint64_t sum = 0;
    for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
        unsigned char b = *r->at++;
        sum |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80) {
            *out = sum;
            return true;
        }
    }
    return false;
}

static bool read_field(reader *r, field *f)
{
    uint64_t tag, len;
    if (!read_varint(r, &tag) || tag >> 3 > UINT32_MAX || tag >> 3 == 0) return false;
    *f = (field){.number = (uint32_t)(tag >> 3), .wire = tag & 7};
    if (f->wire == WIRE_VARINT) return read_varint(r, &f->value);
    if (f->wire == WIRE_64)
        len = 8;
    else if (f->wire == WIRE_32)
        len = 4;
    else if (f->wire != WIRE_BYTES || !read_varint(r, &len))
        return false;
    if (len > (uint64_t)(r->end - r->at)) return false;
    f->bytes = (reader){r->at, r->at + len};
    r->at += len;
    return true;
}

static double read_float(const field *f)
{
    float value = 0;
    if (f->wire == WIRE_32) memcpy(&value, f->bytes.at, sizeof value);
    return f->wire == WIRE_32 ? (double)value : NAN;
}

static nvllm_status malformed(nvllm_error *err, const char *what)
{
    return error_set(err, NVLLM_ERR_FORMAT, "%s is cut short or not a protobuf message", what);
}

/* SentencePiece {1: piece, 2: score, 3: type} */
static nvllm_status read_piece(tokenizer *t, reader r, nvllm_error *err)
{
    tokenizer_text piece = {"", 0};
    double score = 0;
    uint64_t type = TOKENIZER_NORMAL;
    for (field f; r.at < r.end;) {
        if (!read_field(&r, &f)) return malformed(err, "a piece");
        if (f.number == 1 && f.wire == WIRE_BYTES)
            piece = (tokenizer_text){(const char *)f.bytes.at, (size_t)(f.bytes.end - f.bytes.at)};
        if (f.number == 2) score = read_float(&f);
        if (f.number == 3 && f.wire == WIRE_VARINT) type = f.value;
    }
    if (type == TOKENIZER_UNUSED)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "piece %u is unused, which is not supported",
                         t->model.vocab.size);
    return tokenizer_spm_piece(t, piece, score, type <= TOKENIZER_BYTE ? (int32_t)type : 0, err);
}

/* TrainerSpec: 3 model_type, 24 treat_whitespace_as_suffix, 35 byte_fallback, 41 bos_id, 42 eos_id */
static nvllm_status read_trainer(tokenizer *t, reader r, bool *byte_fallback, nvllm_error *err)
{
    uint64_t model_type = 1;
    for (field f; r.at < r.end;) {
        if (!read_field(&r, &f)) return malformed(err, "trainer_spec");
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == 3) model_type = f.value;
        if (f.number == 24 && f.value)
            return error_set(err, NVLLM_ERR_UNSUPPORTED, "treat_whitespace_as_suffix is not supported");
        if (f.number == 35) *byte_fallback = f.value != 0;
        if (f.number == 41) t->bos = f.value <= TOK_MAX_ID ? (int32_t)f.value : -1;
        if (f.number == 42) t->eos = f.value <= TOK_MAX_ID ? (int32_t)f.value : -1;
    }
    if (model_type != 1 && model_type != 2)
        return error_set(err, NVLLM_ERR_UNSUPPORTED, "model_type %s is not supported (UNIGRAM, BPE)",
                         model_type == 3   ? "WORD"
                         : model_type == 4 ? "CHAR"
                                           : "unknown");
    t->model.kind = model_type == 2 ? TOK_SPM : TOK_UNIGRAM;
    return NVLLM_OK;
}

/* NormalizerSpec: 1 name, 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces,
 * 5 escape_whitespaces */
static nvllm_status read_normalizer(reader r, tokenizer_spm_options *options, nvllm_error *err)
{
    reader name = {0};
    bool has_table = false;
    for (field f; r.at < r.end;) {
        if (!read_field(&r, &f)) return malformed(err, "normalizer_spec");
        if (f.number == 1 && f.wire == WIRE_BYTES) name = f.bytes;
        if (f.number == 2 && f.wire == WIRE_BYTES) has_table = f.bytes.at < f.bytes.end;
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == 3) options->space_prefix = f.value != 0;
        if (f.number == 4) options->squeeze = f.value != 0;
        if (f.number == 5 && !f.value)
            return error_set(err, NVLLM_ERR_UNSUPPORTED, "escape_whitespaces false is not supported");
    }
    if (!has_table) return NVLLM_OK;
    return error_set(
        err, NVLLM_ERR_UNSUPPORTED, "normalizer \"%.*s\" with a precompiled table is not supported",
        name.end - name.at < 60 ? (int)(name.end - name.at) : 60, name.at ? (const char *)name.at : "");
}

/* All pieces first: the other messages may come in any order, and ids are needed to check them. */
static nvllm_status read_pieces(tokenizer *t, reader r, nvllm_error *err)
{
    size_t count = 0;
    for (reader look = r; look.at < look.end;) {
        field f;
        if (!read_field(&look, &f)) return malformed(err, "the file");
        if (f.number == 1 && f.wire != WIRE_BYTES) return malformed(err, "a piece");
        count += f.number == 1;
    }
    if (count == 0) return error_set(err, NVLLM_ERR_FORMAT, "there are no pieces");
    if (count > TOK_MAX_ID) return error_set(err, NVLLM_ERR_LIMIT, "%zu pieces are too many", count);
    t->model.score = calloc(count, sizeof *t->model.score);
    t->model.mergeable = calloc(count, sizeof *t->model.mergeable);
    if (!t->model.score || !t->model.mergeable) return error_memory(err, count * 9, "the pieces");
    while (r.at < r.end) {
        field f;
        if (!read_field(&r, &f)) return malformed(err, "the file");
        nvllm_status st = f.number == 1 ? read_piece(t, f.bytes, err) : NVLLM_OK;
        if (st != NVLLM_OK) return st;
    }
    return NVLLM_OK;
}

static nvllm_status read_model(tokenizer *t, reader r, nvllm_error *err)
{
    tokenizer_spm_options options = {.squeeze = true, .space_prefix = true};
    bool byte_fallback = false;
    t->model.kind = TOK_UNIGRAM; /* the message's defaults */
    t->bos = 1;
    t->eos = 2;
    nvllm_status st = read_pieces(t, r, err);
    while (st == NVLLM_OK && r.at < r.end) {
        field f;
        if (!read_field(&r, &f)) return malformed(err, "the file");
        if (f.wire != WIRE_BYTES) continue;
        if (f.number == 2) st = read_trainer(t, f.bytes, &byte_fallback, err);
        if (f.number == 3) st = read_normalizer(f.bytes, &options, err);
        tokenizer_spm_options ignored = {0};
        if (f.number == 5) st = read_normalizer(f.bytes, &ignored, err);
    }
    if (st != NVLLM_OK) return st;
    if (t->model.unk_id < 0) return error_set(err, NVLLM_ERR_FORMAT, "no piece has the type UNKNOWN");
    t->model.byte_fallback = byte_fallback;
    if (t->bos >= 0 && (uint32_t)t->bos < t->model.vocab.size) st = tok_ids_push(&t->before, &t->bos, 1, err);
    if (st == NVLLM_OK) st = tokenizer_spm_parts(t, options, err);
    return st == NVLLM_OK ? tokenizer_spm_finish(t, err) : st;
}

nvllm_status tokenizer_from_sentencepiece(tokenizer **out, const void *bytes, size_t len, nvllm_error *err)
{
    nvllm_error own;
    if (!err) err = &own;
    nvllm_status st = tokenizer_new(out, err);
    const unsigned char *at = len ? bytes : (const unsigned char *)"";
    if (st == NVLLM_OK) st = read_model(*out, (reader){at, at + len}, err);
    if (st == NVLLM_OK) return st;
    tokenizer_close(*out);
    *out = NULL;
    return st;
}
