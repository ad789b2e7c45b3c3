/* Vocabulary; see vocab.h. Open addressing with linear probing, at most half full. */
#include "text/tokenizer/vocab.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FREE_SLOT UINT64_MAX

uint64_t tok_hash(const char *bytes, size_t len)
{
    const uint64_t k = 0x9E3779B97F4A7C15u;
    uint64_t h = k ^ (len * 0xD6E8FEB86659FD93u), word;
    for (; len >= 8; bytes += 8, len -= 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * k;
        h ^= h >> 29;
    }
    word = 0;
    if (len) memcpy(&word, bytes, len);
    h = (h ^ word) * k;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static void put_slot(uint64_t *slots, uint32_t mask, uint64_t hash, uint32_t id)
{
    uint32_t i = (uint32_t)hash & mask;
    while (slots[i] != FREE_SLOT) i = (i + 1) & mask;
    slots[i] = (hash >> 32 << 32) | id;
}

static bool resize_slots(tok_vocab *v, uint32_t size)
{
    uint64_t *slots = malloc(size * sizeof *slots);
    if (!slots) return false;
    memset(slots, 0xFF, size * sizeof *slots);
    for (uint32_t id = 0; id < v->size; id++)
        if (v->piece[id].start != UINT32_MAX)
            put_slot(slots, size - 1, tok_hash(v->bytes + v->piece[id].start, v->piece[id].length), id);
    free(v->slots);
    v->slots = slots;
    v->mask = size - 1;
    return true;
}

static bool grow_slots(tok_vocab *v)
{
    return resize_slots(v, v->slots ? (v->mask + 1) * 2 : 1024);
}

nvllm_status tok_vocab_reserve(tok_vocab *v, size_t count, nvllm_error *err)
{
    uint32_t size = 1024;
    if (count > TOK_MAX_ID) count = TOK_MAX_ID;
    while (size / 2 < count) size *= 2;
    return resize_slots(v, size) ? NVLLM_OK : error_memory(err, size * sizeof *v->slots, "the vocabulary");
}

static bool grow_ids(tok_vocab *v, uint32_t need)
{
    if (need <= v->size) return true;
    if (need > v->cap) {
        uint32_t cap = v->cap ? v->cap * 2 : 1024;
        if (cap < need) cap = need;
        tok_piece *piece = realloc(v->piece, cap * sizeof *piece);
        if (!piece) return false;
        v->piece = piece;
        v->cap = cap;
    }
    memset(v->piece + v->size, 0xFF, (need - v->size) * sizeof *v->piece);
    v->size = need;
    return true;
}

static bool grow_bytes(tok_vocab *v, size_t extra)
{
    if (v->bytes_len + extra <= v->bytes_cap) return true;
    size_t cap = v->bytes_cap ? v->bytes_cap * 2 : 16384;
    if (cap < v->bytes_len + extra) cap = v->bytes_len + extra;
    char *bytes = realloc(v->bytes, cap);
    if (!bytes) return false;
    v->bytes = bytes;
    v->bytes_cap = cap;
    return true;
}

nvllm_status tok_vocab_add(tok_vocab *v, const char *piece, size_t len, int64_t id, nvllm_error *err)
{
    int shown = len < 100 ? (int)len : 100;
    if (id < 0 || id > TOK_MAX_ID)
        return error_set(err, NVLLM_ERR_FORMAT, "token \"%.*s\": id %" PRId64 " is not in 0..%d", shown,
                         piece, id, TOK_MAX_ID);
    if (len > UINT32_MAX / 4 || v->bytes_len + len > UINT32_MAX - 1)
        return error_set(err, NVLLM_ERR_LIMIT, "the vocabulary's strings exceed 4 GiB");
    if (id < v->size && v->piece[id].start != UINT32_MAX)
        return error_set(err, NVLLM_ERR_FORMAT, "tokens \"%.*s\" and \"%.*s\" share id %" PRId64,
                         v->piece[id].length < 100 ? (int)v->piece[id].length : 100,
                         v->bytes + v->piece[id].start, shown, piece, id);
    int32_t known = tok_vocab_find(v, piece, len);
    if (known >= 0)
        return error_set(err, NVLLM_ERR_FORMAT, "token \"%.*s\" has two ids, %d and %" PRId64, shown, piece,
                         known, id);
    if ((!v->slots || v->count >= v->mask / 2) && !grow_slots(v))
        return error_memory(err, len, "the vocabulary");
    if (!grow_ids(v, (uint32_t)id + 1) || !grow_bytes(v, len ? len : 1))
        return error_memory(err, len, "the vocabulary");
    if (len) memcpy(v->bytes + v->bytes_len, piece, len);
    v->piece[id] = (tok_piece){(uint32_t)v->bytes_len, (uint32_t)len};
    v->bytes_len += len;
    v->count++;
    if (len > v->longest) v->longest = (uint32_t)len;
    put_slot(v->slots, v->mask, tok_hash(piece, len), (uint32_t)id);
    return NVLLM_OK;
}

void tok_vocab_free(tok_vocab *v)
{
    free(v->bytes);
    free(v->piece);
    free(v->slots);
    *v = (tok_vocab){0};
}

int32_t tok_vocab_find(const tok_vocab *v, const char *piece, size_t len)
{
    if (!v->slots || len > v->longest) return -1;
    uint64_t hash = tok_hash(piece, len);
    for (uint32_t i = (uint32_t)hash & v->mask; v->slots[i] != FREE_SLOT; i = (i + 1) & v->mask) {
        if (v->slots[i] >> 32 != hash >> 32) continue;
        uint32_t id = (uint32_t)v->slots[i];
        if (v->piece[id].length == len && memcmp(v->bytes + v->piece[id].start, piece, len) == 0)
            return (int32_t)id;
    }
    return -1;
}

int32_t tok_vocab_find_near(const tok_vocab *v, const char *piece, size_t len, int32_t guess)
{
    size_t have_len;
    const char *have = tok_vocab_piece(v, guess, &have_len);
    if (have && have_len == len && memcmp(have, piece, len) == 0) return guess;
    return tok_vocab_find(v, piece, len);
}

void tok_vocab_prefetch(const tok_vocab *v, uint64_t hash)
{
    if (v->slots) __builtin_prefetch(&v->slots[(uint32_t)hash & v->mask]);
}

const char *tok_vocab_piece(const tok_vocab *v, int32_t id, size_t *len)
{
    if (id < 0 || (uint32_t)id >= v->size || v->piece[id].start == UINT32_MAX) return NULL;
    *len = v->piece[id].length;
    return v->bytes + v->piece[id].start;
}
