/* Bearer keys; see auth.h. */
#define _GNU_SOURCE
#include "serve/auth.h"

#include <string.h>
#include <strings.h>

/* 1 when equal. Every byte of `given` is looked at, whatever the key is. */
static unsigned equal(const char *key, size_t key_len, const char *given, size_t given_len)
{
    unsigned difference = key_len != given_len;
    for (size_t i = 0; i < given_len; i++)
        difference |= (unsigned char)given[i] ^ (unsigned char)key[key_len ? i % key_len : 0];
    return difference == 0;
}

bool auth_allows(const char *const *keys, size_t n_keys, const char *header)
{
    static const char scheme[] = "Bearer ";
    unsigned found = 0;
    if (n_keys == 0) return true;
    if (!header || strncasecmp(header, scheme, sizeof scheme - 1) != 0) return false;
    const char *given = header + sizeof scheme - 1;
    size_t len = strlen(given);
    for (size_t i = 0; i < n_keys; i++) found |= equal(keys[i], strlen(keys[i]), given, len);
    return found != 0;
}
