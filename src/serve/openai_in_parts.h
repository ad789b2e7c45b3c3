/* What the readers of the two endpoints share beside the field tables. */
#ifndef NVLLM_SERVE_OPENAI_IN_PARTS_H
#define NVLLM_SERVE_OPENAI_IN_PARTS_H

#include "serve/openai_fields.h"

void request_begin(api_request *r, const nvllm_request *defaults);
bool request_finish(api_request *r, api_error *err); /* checks and settles what depends on several fields */

#endif
