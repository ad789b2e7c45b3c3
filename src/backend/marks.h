/* Moments by number, for backends whose ops have ended when they return: the clock is all they need.
 * See mark and between in backend.h. */
#ifndef NVLLM_BACKEND_MARKS_H
#define NVLLM_BACKEND_MARKS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double *at; /* [count] microseconds, CLOCK_MONOTONIC */
    int32_t count;
} clock_marks;

bool clock_marks_set(clock_marks *m, int32_t i); /* i < 2^30; false: no memory for it */
double clock_marks_between(const clock_marks *m, int32_t i, int32_t j);
void clock_marks_free(clock_marks *m);

#endif
