/* Bytes on their way to a client: a growing buffer and what JSON needs.
 *
 * Appending never fails visibly: after an allocation failed the buffer is `failed`, stays as it was and the one who
 * sends it answers with an error. Strings may hold any bytes; what is not UTF-8 leaves as U+FFFD, so that the output
 * is always valid JSON in valid UTF-8. */
#ifndef NVLLM_SERVE_WIRE_H
#define NVLLM_SERVE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char *data; /* [len], not NUL-terminated; NULL while empty */
    size_t len, capacity;
    bool failed;
} wire;

void wire_bytes(wire *w, const void *data, size_t len);
void wire_text(wire *w, const char *text);
void wire_append(wire *w, const wire *from);
void wire_integer(wire *w, int64_t value);
void wire_real(wire *w, double value); /* nine digits: a float comes back unchanged; null when not finite */
void wire_bool(wire *w, bool value);
void wire_json_string(wire *w, const char *text, size_t len); /* with its quotes */

/* Drops the first `len` bytes. */
void wire_consume(wire *w, size_t len);
void wire_clear(wire *w); /* keeps the memory */
void wire_free(wire *w);

/* Length of the well-formed UTF-8 character at text[0], `len` bytes being there; 0: none starts here. */
size_t wire_character(const char *text, size_t len);

#endif
