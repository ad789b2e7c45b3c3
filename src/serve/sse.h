/* Server-sent events as OpenAI's stream uses them: `data: <one line of JSON>` and an empty line. */
#ifndef NVLLM_SERVE_SSE_H
#define NVLLM_SERVE_SSE_H

#include "serve/wire.h"

/* Around an event's JSON, which holds no line break: our writer escapes them. */
void sse_begin(wire *w);
void sse_end(wire *w);
void sse_done(wire *w);      /* data: [DONE] */
void sse_keepalive(wire *w); /* a comment, which clients skip */

#endif
