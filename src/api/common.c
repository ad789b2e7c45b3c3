/* Version, status names, and freeing what the library handed out. */
#include "nanovllm.h"

#include <stdlib.h>

const char *nvllm_version(void)
{
    return NVLLM_VERSION;
}

const char *nvllm_status_name(nvllm_status status)
{
    static const char *const names[] = {"ok",    "usage",    "io",        "format", "unsupported", "memory",
                                        "limit", "template", "cancelled", "busy",   "device"};
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown";
}

void nvllm_free(void *text_or_ids)
{
    free(text_or_ids);
}
