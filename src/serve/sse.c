/* Server-sent events; see sse.h. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html */
#include "serve/sse.h"

#include <string.h>

void sse_data(wire *w, const char *json, size_t len)
{
    wire_text(w, "data: ");
    for (size_t i = 0; i < len;) {
        size_t run = 0;
        while (i + run < len && json[i + run] != '\n' && json[i + run] != '\r') run++;
        wire_bytes(w, json + i, run);
        i += run + 1;
    }
    wire_text(w, "\n\n");
}

void sse_done(wire *w)
{
    wire_text(w, "data: [DONE]\n\n");
}

void sse_keepalive(wire *w)
{
    wire_text(w, ": keepalive\n\n");
}
