/* A profile as the JSON document that nvllm_profile_stop hands out. */
#ifndef NVLLM_API_PROFILE_H
#define NVLLM_API_PROFILE_H

#include "model/profile.h"

/* p has been read. NULL: no memory. The caller frees it. */
char *profile_json(const profile *p, const runner *r, const model *m, dtype kv_type);

#endif
