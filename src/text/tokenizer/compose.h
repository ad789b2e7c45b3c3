/* NFC and NFKC as the reference has them: by the character data of Unicode 9.
 *
 * utf8proc knows Unicode 15. The reference's tables are older, models were trained with them, and so the marks
 * and compatibility characters that came later must stay as they are, where they are. */
#ifndef NVLLM_TEXT_TOK_COMPOSE_H
#define NVLLM_TEXT_TOK_COMPOSE_H

#include "base/buffer.h"
#include "base/error.h"

typedef enum { TOK_COMPOSE_CANONICAL, TOK_COMPOSE_COMPATIBLE } tok_compose_form;

/* Appends the composed text to *out. */
nvllm_status tok_compose(buffer *out, const char *text, size_t len, tok_compose_form form, nvllm_error *err);

#endif
