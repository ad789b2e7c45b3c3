/* Filters over sequences. map, select, reject, unique, batch, slice and items are lazy generators, as in Python:
 * they have no length, cannot be indexed and run once. */
#include "text/jinja/seq.h"
#include "text/jinja/iter.h"
#include "text/jinja/ops.h"

#include <string.h>

/* --- sorting ------------------------------------------------------------------------------------------------------- */
static void merge(jinja_run *r, const jv *keys, jinja_sort_order order, size_t *from, size_t *to, size_t low,
                  size_t middle, size_t high)
{
    size_t i = low, j = middle;
    for (size_t k = low; k < high; k++) {
        bool right = i >= middle;
        if (!right && j < high) {
            /* The right one goes first only if it is really smaller (larger): that keeps the sort stable. */
            jv x = keys[from[j]], y = keys[from[i]];
            right = order == SORT_ASCENDING ? jv_order(r, x, y, ORDER_LT) : jv_order(r, y, x, ORDER_LT);
        }
        to[k] = from[right ? j++ : i++];
    }
}

size_t *jinja_sort(jinja_run *r, const jv *keys, size_t n, jinja_sort_order order)
{
    size_t *a = jr_alloc(r, n + 1, sizeof *a), *b = jr_alloc(r, n + 1, sizeof *b);
    if (!a || !b) return NULL;
    for (size_t i = 0; i < n; i++) a[i] = i;
    for (size_t width = 1; width < n && !jr_failed(r); width *= 2) {
        for (size_t low = 0; low < n && !jr_failed(r); low += 2 * width) {
            size_t middle = low + width < n ? low + width : n, high = middle + width < n ? middle + width : n;
            merge(r, keys, order, a, b, low, middle, high);
        }
        size_t *swap = a;
        a = b;
        b = swap;
    }
    return jr_failed(r) ? NULL : a;
}

/* Strings count in lower case unless case_sensitive. */
static jv fold(jinja_run *r, jv v, bool case_sensitive)
{
    return v.kind == JV_STRING && !case_sensitive ? jv_lower(r, v.as.s) : v;
}

static jv take(jinja_run *r, jv list, const size_t *order)
{
    jv out = jv_list_new(r, order ? list.as.list->n : 0);
    for (size_t i = 0; order && i < list.as.list->n && !jr_failed(r); i++) {
        jv_push(r, out, list.as.list->items[order[i]]);
    }
    return out;
}

/* One key per item: the list of the attributes that "a,b.c" names. */
static jv sort_key(jinja_run *r, jv item, jv attribute, bool case_sensitive)
{
    jv key = jv_list_new(r, 1);
    if (attribute.kind != JV_STRING) {
        jv_push(r, key, fold(r, jv_get_path(r, item, attribute), case_sensitive));
        return key;
    }
    const char *part = attribute.as.s->data, *end = part + attribute.as.s->len;
    for (;;) {
        const char *comma = part < end ? memchr(part, ',', (size_t)(end - part)) : NULL;
        jv path = jv_borrow(r, part, (size_t)((comma ? comma : end) - part));
        if (jr_failed(r)) return key;
        jv_push(r, key, fold(r, jv_get_path(r, item, path), case_sensitive));
        if (!comma || jr_failed(r)) return key;
        part = comma + 1;
    }
}

jv filter_sort(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jv list = jv_to_list(r, self), keys = jv_list_new(r, 0);
    for (size_t i = 0; !jr_failed(r) && i < list.as.list->n; i++) {
        jv_push(r, keys, sort_key(r, list.as.list->items[i], a[2], arg_truth(a[1], false)));
    }
    if (jr_failed(r)) return jv_none();
    jinja_sort_order order = arg_truth(a[0], false) ? SORT_DESCENDING : SORT_ASCENDING;
    return take(r, list, jinja_sort(r, keys.as.list->items, keys.as.list->n, order));
}

jv filter_dictsort(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    bool by_value = a[1].kind != JV_MISSING && jv_string_equals(a[1], "value");
    if (a[1].kind != JV_MISSING && !by_value && !jv_string_equals(a[1], "key")) {
        return jr_error(r, "you can only sort by either \"key\" or \"value\"");
    }
    if (self.kind == JV_UNDEFINED) return jv_fail_undefined(r, self);
    if (self.kind != JV_DICT) return jr_error(r, "'%s' object has no attribute 'items'", jv_type(self));
    const jv_dict *d = self.as.dict;
    jv list = jv_list_new(r, d->n), keys = jv_list_new(r, d->n);
    for (size_t i = 0; i < d->n && !jr_failed(r); i++) {
        jv_push(r, list, jv_pair(r, d->keys[i], d->values[i]));
        jv_push(r, keys, fold(r, by_value ? d->values[i] : d->keys[i], arg_truth(a[0], false)));
    }
    if (jr_failed(r)) return jv_none();
    jinja_sort_order order = arg_truth(a[2], false) ? SORT_DESCENDING : SORT_ASCENDING;
    return take(r, list, jinja_sort(r, keys.as.list->items, keys.as.list->n, order));
}

static jv attribute_or(jinja_run *r, jv item, jv path, jv usual)
{
    jv v = jv_get_path(r, item, path);
    return v.kind == JV_UNDEFINED && usual.kind != JV_MISSING && usual.kind != JV_NONE ? usual : v;
}

jv filter_groupby(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jv list = jv_to_list(r, self), keys = jv_list_new(r, 0), out = jv_list_new(r, 0), group = jv_none();
    bool case_sensitive = arg_truth(a[2], false);
    for (size_t i = 0; !jr_failed(r) && i < list.as.list->n; i++) {
        jv_push(r, keys, fold(r, attribute_or(r, list.as.list->items[i], a[0], a[1]), case_sensitive));
    }
    if (jr_failed(r)) return jv_none();
    size_t n = list.as.list->n, *order = jinja_sort(r, keys.as.list->items, n, SORT_ASCENDING);
    for (size_t i = 0; order && i < n && !jr_failed(r); i++) {
        jv item = list.as.list->items[order[i]], key = keys.as.list->items[order[i]];
        if (i == 0 || !jv_equal(r, key, keys.as.list->items[order[i - 1]])) {
            group = jv_list_new(r, 0);
            jv_push(r, out, jv_pair(r, attribute_or(r, item, a[0], a[1]), group));
        }
        jv_push(r, group, item);
    }
    return out;
}

static jv extreme(jinja_run *r, jv self, const jv *a, jv_order_op better)
{
    jinja_iter *it = jinja_iter_open(r, self);
    jv best, best_key, item;
    if (!it || !jinja_iter_next(r, it, &best)) {
        return jr_failed(r) ? jv_none() : jv_undefined_hint(r, "No aggregated item, sequence was empty.");
    }
    bool case_sensitive = arg_truth(a[0], false);
    best_key = fold(r, jv_get_path(r, best, a[1]), case_sensitive);
    while (jinja_iter_next(r, it, &item)) {
        jv key = fold(r, jv_get_path(r, item, a[1]), case_sensitive);
        if (!jv_order(r, key, best_key, better)) continue;
        best = item;
        best_key = key;
    }
    return best;
}

jv filter_min(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return extreme(r, self, a, ORDER_LT);
}

jv filter_max(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    return extreme(r, self, a, ORDER_GT);
}

jv filter_sum(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jinja_iter *it = jinja_iter_open(r, self);
    jv total = a[1].kind == JV_MISSING ? jv_int(0) : a[1], item;
    if (total.kind == JV_STRING) return jr_error(r, "sum() can't sum strings [use ''.join(seq) instead]");
    while (it && jinja_iter_next(r, it, &item)) {
        total = jv_binary(r, BINARY_ADD, total, jv_get_path(r, item, a[0]));
    }
    return total;
}

/* --- generators ---------------------------------------------------------------------------------------------------- */
/* Arguments outlive the call that made the generator: they lie in the arena already. */
static jv generator(jinja_run *r, jv over, bool (*next)(jinja_run *, jinja_iter *, jv *), const jv_args *args)
{
    if (jr_failed(r)) return jv_none();
    jinja_iter *it = jinja_generator(r, NULL, next);
    if (!it) return jv_none();
    it->source = over;
    if (args) it->args = *args;
    return jv_of_iter(it);
}

/* The inner iterator, opened at the first step: a generator fails when it is used, not when it is made. */
static bool draw(jinja_run *r, jinja_iter *it, jv *out)
{
    if (!it->inner)
        it->inner =
            jv_truth(it->source) ? jinja_iter_open(r, it->source) : jinja_iter_open(r, jv_list_new(r, 0));
    return it->inner && jinja_iter_next(r, it->inner, out);
}

static const jv_keyword *keyword(const jv_args *args, const char *name)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        if (jv_string_equals(jv_of_string(args->kw[i].name), name)) return &args->kw[i];
    }
    return NULL;
}

static bool next_mapped(jinja_run *r, jinja_iter *it, jv *out)
{
    jv item;
    if (!draw(r, it, &item)) return false;
    const jv_keyword *attribute = it->args.n ? NULL : keyword(&it->args, "attribute");
    if (attribute) {
        const jv_keyword *usual = keyword(&it->args, "default");
        if (it->args.n_kw > (usual ? 2u : 1u)) jr_error(r, "map() got an unexpected keyword argument");
        *out = attribute_or(r, item, attribute->value, usual ? usual->value : jv_missing());
    } else if (!it->args.n) {
        jr_error(r, "map requires a filter argument");
    } else {
        jv_args rest = {it->args.pos + 1, it->args.n - 1, it->args.kw, it->args.n_kw};
        *out = jinja_filter_apply(r, it->args.pos[0], item, &rest);
    }
    return !jr_failed(r);
}

jv filter_map(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    return generator(r, self, next_mapped, raw);
}

/* Bits of a selecting generator's state. */
enum { SELECT_REJECTS = 1, SELECT_ATTRIBUTE = 2 };

static bool next_selected(jinja_run *r, jinja_iter *it, jv *out)
{
    bool rejects = it->state.as.i & SELECT_REJECTS, by_attribute = it->state.as.i & SELECT_ATTRIBUTE;
    size_t skip = by_attribute;
    while (draw(r, it, out)) {
        if (by_attribute && !it->args.n) {
            jr_error(r, "missing parameter for attribute name");
            return false;
        }
        jv subject = by_attribute ? jv_get_path(r, *out, it->args.pos[0]) : *out;
        bool passes = false;
        if (it->args.n > skip) {
            jv_args rest = {it->args.pos + skip + 1, it->args.n - skip - 1, it->args.kw, it->args.n_kw};
            passes = jinja_test_apply(r, it->args.pos[skip], subject, &rest);
        } else {
            passes = jv_truth(subject);
        }
        if (jr_failed(r)) return false;
        if (passes != rejects) return true;
    }
    return false;
}

static jv selecting(jinja_run *r, jv self, const jv_args *raw, int64_t bits)
{
    jv v = generator(r, self, next_selected, raw);
    if (v.kind == JV_ITER) v.as.iter->state = jv_int(bits);
    return v;
}

jv filter_select(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    return selecting(r, self, raw, 0);
}

jv filter_reject(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    return selecting(r, self, raw, SELECT_REJECTS);
}

jv filter_selectattr(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    return selecting(r, self, raw, SELECT_ATTRIBUTE);
}

jv filter_rejectattr(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    return selecting(r, self, raw, SELECT_REJECTS | SELECT_ATTRIBUTE);
}

/* state: the dict of keys seen; args.pos: case_sensitive, attribute. */
static bool next_unique(jinja_run *r, jinja_iter *it, jv *out)
{
    if (!it->inner) it->inner = jinja_iter_open(r, it->source);
    while (it->inner && jinja_iter_next(r, it->inner, out)) {
        jv key = fold(r, jv_get_path(r, *out, it->args.pos[1]), arg_truth(it->args.pos[0], false));
        if (jr_failed(r)) return false;
        bool seen = jv_dict_get(r, it->state.as.dict, key) != NULL;
        if (!seen) jv_dict_set(r, it->state.as.dict, key, jv_none());
        if (jr_failed(r)) return false;
        if (!seen) return true;
    }
    return false;
}

static jv_args kept_args(jinja_run *r, const jv *a, size_t n)
{
    jv *copy = jr_alloc(r, n, sizeof *copy);
    if (!copy) return (jv_args){0};
    memcpy(copy, a, n * sizeof *copy);
    return (jv_args){.pos = copy, .n = n};
}

jv filter_unique(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jv_args args = kept_args(r, a, 2);
    jv v = generator(r, self, next_unique, &args);
    if (v.kind == JV_ITER) v.as.iter->state = jv_dict_new(r);
    return jr_failed(r) ? jv_none() : v;
}

/* args.pos: linecount, fill_with */
static bool next_batch(jinja_run *r, jinja_iter *it, jv *out)
{
    int64_t size;
    jv batch = jv_list_new(r, 0), item;
    if (!it->inner) it->inner = jinja_iter_open(r, it->source);
    if (!it->inner || !arg_int(r, it->args.pos[0], 0, &size)) return false;
    while ((int64_t)batch.as.list->n < size && jinja_iter_next(r, it->inner, &item)) jv_push(r, batch, item);
    if (jr_failed(r) || !batch.as.list->n) return false;
    bool fill = it->args.pos[1].kind != JV_MISSING && it->args.pos[1].kind != JV_NONE;
    while (fill && (int64_t)batch.as.list->n < size && !jr_failed(r)) jv_push(r, batch, it->args.pos[1]);
    *out = batch;
    return !jr_failed(r);
}

jv filter_batch(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jv_args args = kept_args(r, a, 2);
    return generator(r, self, next_batch, &args);
}

/* args.pos: slices, fill_with; state: the whole list */
static bool next_slice(jinja_run *r, jinja_iter *it, jv *out)
{
    int64_t slices;
    if (it->state.kind != JV_LIST) it->state = jv_to_list(r, it->source);
    if (jr_failed(r) || !arg_int(r, it->args.pos[0], 0, &slices)) return false;
    if (slices == 0) {
        jr_error(r, "integer division or modulo by zero");
        return false;
    }
    if (slices < 0 || it->pos >= (uint64_t)slices) return false;
    size_t count = (size_t)slices, n = it->state.as.list->n, each = n / count, longer = n % count,
           i = it->pos++;
    size_t start = i * each + (i < longer ? i : longer), size = each + (i < longer);
    jv part = jv_list_new(r, size + 1);
    for (size_t k = 0; k < size && !jr_failed(r); k++) jv_push(r, part, it->state.as.list->items[start + k]);
    bool fill = it->args.pos[1].kind != JV_MISSING && it->args.pos[1].kind != JV_NONE;
    if (fill && i >= longer && !jr_failed(r)) jv_push(r, part, it->args.pos[1]);
    *out = part;
    return !jr_failed(r);
}

jv filter_slice(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jv_args args = kept_args(r, a, 2);
    return generator(r, self, next_slice, &args);
}

static bool next_item(jinja_run *r, jinja_iter *it, jv *out)
{
    if (it->source.kind != JV_DICT) {
        if (it->source.kind != JV_UNDEFINED) jr_error(r, "Can only get item pairs from a mapping.");
        return false;
    }
    const jv_dict *d = it->source.as.dict;
    if (it->pos >= d->n) return false;
    *out = jv_pair(r, d->keys[it->pos], d->values[it->pos]);
    it->pos++;
    return !jr_failed(r);
}

jv filter_items(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    return generator(r, self, next_item, NULL);
}

/* --- ends and joins ------------------------------------------------------------------------------------------------ */
jv filter_first(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    jv item;
    jinja_iter *it = jinja_iter_open(r, self);
    if (it && jinja_iter_next(r, it, &item)) return item;
    return jr_failed(r) ? jv_none() : jv_undefined_hint(r, "No first item, sequence was empty.");
}

jv filter_last(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    size_t n;
    if (self.kind == JV_ITER || self.kind == JV_LOOP || !jv_iterable(self)) {
        return jr_error(r, "'%s' object is not reversible", jv_type(self));
    }
    if (!jv_length(self, &n) || n == 0) return jv_undefined_hint(r, "No last item, sequence was empty.");
    if (self.kind != JV_DICT && self.kind != JV_VIEW) return jv_get_item(r, self, jv_int(-1));
    jv list = jv_to_list(r, self);
    return jr_failed(r) ? jv_none() : list.as.list->items[list.as.list->n - 1];
}

static bool next_reversed(jinja_run *r, jinja_iter *it, jv *out)
{
    (void)r;
    const jv_list *list = it->source.as.list;
    if (it->pos >= list->n) return false;
    *out = list->items[list->n - 1 - it->pos++];
    return true;
}

jv filter_reverse(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)a;
    (void)raw;
    if (self.kind == JV_STRING) return jv_slice(r, self, jv_none(), jv_none(), jv_int(-1));
    if (!jv_iterable(self)) return jr_error(r, "argument must be iterable");
    jv list = jv_to_list(r, self);
    if (self.kind == JV_ITER && !jr_failed(r)) return jv_slice(r, list, jv_none(), jv_none(), jv_int(-1));
    return generator(r, list, next_reversed, NULL);
}

jv filter_join(jinja_run *r, jv self, const jv *a, const jv_args *raw)
{
    (void)raw;
    jinja_text t = {0};
    jv separator = a[0].kind == JV_MISSING ? jv_literal(r, "") : jv_to_string(r, a[0]), item;
    jinja_iter *it = jr_failed(r) ? NULL : jinja_iter_open(r, self);
    for (bool first = true; it && jinja_iter_next(r, it, &item); first = false) {
        if (!first) jv_write(r, &t, separator);
        jv_write(r, &t, jv_get_path(r, item, a[1]));
    }
    return text_value(r, &t);
}
