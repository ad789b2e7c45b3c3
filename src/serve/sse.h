/* Server-sent events as OpenAI's stream uses them: `data: <one line of JSON>` and an empty line. */
#ifndef NVLLM_SERVE_SSE_H
#define NVLLM_SERVE_SSE_H

#include "serve/wire.h"

/* `json` holds no line break: our writer escapes them. A byte that would end the line is dropped. */
void sse_data(wire *w, const char *json, size_t len);
void sse_done(wire *w);      /* data: [DONE] */
void sse_keepalive(wire *w); /* a comment, which clients skip */

#endif
