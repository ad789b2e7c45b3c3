/* The limits of the device that results stand beside. A GPU's are measured once and kept in a file, by the GPU's own
 * name: measuring takes gigabytes of memory and a second, and neighbours do not change them. A CPU's are measured anew. */
#ifndef NVLLM_CLI_BENCH_LIMITS_H
#define NVLLM_CLI_BENCH_LIMITS_H

#include "cli.h"

/* again: as if nothing was kept. *kept: they come from the file. */
nvllm_limits bench_limits(nvllm_engine *engine, bool again, bool *kept);

#endif
