/* Filters over sequences (seq.c), for the table in filters.c. */
#ifndef NVLLM_TEXT_JINJA_SEQ_H
#define NVLLM_TEXT_JINJA_SEQ_H

#include "text/jinja/builtin.h"

jv filter_map(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_select(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_reject(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_selectattr(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_rejectattr(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_unique(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_sort(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_dictsort(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_groupby(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_min(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_max(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_sum(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_batch(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_slice(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_first(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_last(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_reverse(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_items(jinja_run *r, jv self, const jv *a, const jv_args *raw);
jv filter_join(jinja_run *r, jv self, const jv *a, const jv_args *raw);

#endif
