/* Iteration: over every iterable value, and lazy generators (map, select, unique, ...) built on top. */
#ifndef NVLLM_TEXT_JINJA_ITER_H
#define NVLLM_TEXT_JINJA_ITER_H

#include "text/jinja/value.h"

struct jinja_iter {
    /* Puts the next item into *out; false: exhausted, or the render failed. */
    bool (*next)(jinja_run *r, jinja_iter *it, jv *out);
    jv source;         /* what is iterated over */
    size_t pos, byte;  /* items handed out; byte offset in a string */
    jinja_iter *inner; /* what a generator draws from */
    jv state;          /* a generator's own */
    jv_args args;
    const void *data;
};

bool jv_iterable(jv v);
jinja_iter *jinja_iter_open(jinja_run *r, jv v); /* NULL: not iterable (failed) or no memory */
bool jinja_iter_next(jinja_run *r, jinja_iter *it, jv *out);
jv jv_to_list(jinja_run *r, jv v); /* list(v) */

/* A generator over `inner`, with the given step; the caller fills in the rest. */
jinja_iter *jinja_generator(jinja_run *r, jinja_iter *inner,
                            bool (*next)(jinja_run *r, jinja_iter *it, jv *out));
jv jv_of_iter(jinja_iter *it);

#endif
