/* Trie over bytes; see trie.h. Children are found through one hash table for all nodes. */
#include "text/tokenizer/trie.h"

#include <stdbool.h>
#include <stdlib.h>

#define MAX_NODES (1u << 24)

static uint32_t slot_of(const tok_trie *t, uint64_t key)
{
    return (uint32_t)((key * 0x9E3779B97F4A7C15u) >> 32) & t->mask;
}

uint32_t tok_trie_step(const tok_trie *t, uint32_t node, unsigned char byte)
{
    if (!t->slots) return 0;
    uint64_t key = (uint64_t)node << 8 | byte;
    for (uint32_t i = slot_of(t, key); t->slots[i]; i = (i + 1) & t->mask)
        if (t->slots[i] >> 32 == key) return (uint32_t)t->slots[i];
    return 0;
}

static void put(tok_trie *t, uint64_t slot)
{
    uint32_t i = slot_of(t, slot >> 32);
    while (t->slots[i]) i = (i + 1) & t->mask;
    t->slots[i] = slot;
}

static bool grow_slots(tok_trie *t)
{
    tok_trie bigger = *t;
    uint32_t old = t->slots ? t->mask + 1 : 0, size = old ? old * 2 : 256;
    bigger.slots = calloc(size, sizeof *bigger.slots);
    if (!bigger.slots) return false;
    bigger.mask = size - 1;
    for (uint32_t i = 0; i < old; i++)
        if (t->slots[i]) put(&bigger, t->slots[i]);
    free(t->slots);
    *t = bigger;
    return true;
}

static bool add_node(tok_trie *t)
{
    if (t->nodes == t->value_cap) {
        uint32_t cap = t->value_cap ? t->value_cap * 2 : 128;
        int32_t *value = realloc(t->value, cap * sizeof *value);
        if (!value) return false;
        t->value = value;
        t->value_cap = cap;
    }
    t->value[t->nodes++] = -1;
    return true;
}

nvllm_status tok_trie_add(tok_trie *t, const char *text, size_t len, int32_t value, nvllm_error *err)
{
    if (t->nodes == 0 && !add_node(t)) return error_memory(err, sizeof *t, "a trie");
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = tok_trie_step(t, node, byte);
        if (!child) {
            if (t->nodes >= MAX_NODES)
                return error_set(err, NVLLM_ERR_LIMIT, "the tokens' strings need more than %u trie nodes",
                                 MAX_NODES);
            if (((!t->slots || t->nodes >= t->mask / 2) && !grow_slots(t)) || !add_node(t))
                return error_memory(err, t->nodes, "a trie");
            child = t->nodes - 1;
            put(t, ((uint64_t)node << 8 | byte) << 32 | child);
        }
        node = child;
    }
    t->value[node] = value;
    return NVLLM_OK;
}

void tok_trie_free(tok_trie *t)
{
    free(t->slots);
    free(t->value);
    *t = (tok_trie){0};
}
