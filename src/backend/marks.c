/* A growing table of clock readings; see marks.h. */
#define _GNU_SOURCE
#include "backend/marks.h"

#include <stdlib.h>
#include <time.h>

static bool grow(clock_marks *m, int32_t i)
{
    int32_t count = m->count ? m->count : 512;
    while (count <= i) count *= 2;
    double *at = realloc(m->at, (size_t)count * sizeof *at);
    if (!at) return false;
    m->at = at;
    m->count = count;
    return true;
}

bool clock_marks_set(clock_marks *m, int32_t i)
{
    struct timespec t;
    if (i >= m->count && !grow(m, i)) return false;
    clock_gettime(CLOCK_MONOTONIC, &t);
    m->at[i] = (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
    return true;
}

double clock_marks_between(const clock_marks *m, int32_t i, int32_t j)
{
    return m->at[j] - m->at[i];
}

void clock_marks_free(clock_marks *m)
{
    free(m->at);
    *m = (clock_marks){0};
}
