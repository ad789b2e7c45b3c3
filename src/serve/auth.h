/* API keys: does an Authorization header carry one of ours? */
#ifndef NVLLM_SERVE_AUTH_H
#define NVLLM_SERVE_AUTH_H

#include <stdbool.h>
#include <stddef.h>

/* `header`: the value of Authorization, or NULL. The time taken depends on the header's length alone, not on how
 * much of a key it has right. Without keys everybody may pass. */
bool auth_allows(const char *const *keys, size_t n_keys, const char *header);

#endif
