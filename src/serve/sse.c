/* Server-sent events; see sse.h. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html */
#include "serve/sse.h"

void sse_begin(wire *w)
{
    wire_text(w, "data: ");
}

void sse_end(wire *w)
{
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
