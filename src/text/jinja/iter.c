/* See iter.h. */
#include "text/jinja/iter.h"
#include "text/jinja/utf8.h"

static bool next_in_list(jinja_run *r, jinja_iter *it, jv *out)
{
    (void)r;
    const jv_list *list = it->source.as.list;
    if (it->pos >= list->n) return false;
    *out = list->items[it->pos++];
    return true;
}

static bool next_in_string(jinja_run *r, jinja_iter *it, jv *out)
{
    const jv_string *s = it->source.as.s;
    uint32_t cp;
    if (it->byte >= s->len) return false;
    size_t n = jutf8_decode(s->data + it->byte, &cp);
    *out = jv_sub(r, s, it->byte, it->byte + n);
    it->byte += n;
    return !jr_failed(r);
}

static bool next_in_dict(jinja_run *r, jinja_iter *it, jv *out)
{
    bool view = it->source.kind == JV_VIEW;
    const jv_dict *d = view ? it->source.as.view->dict : it->source.as.dict;
    jv_view_kind kind = view ? it->source.as.view->kind : VIEW_KEYS;
    if (it->pos >= d->n) return false;
    size_t i = it->pos++;
    *out = kind == VIEW_KEYS     ? d->keys[i]
           : kind == VIEW_VALUES ? d->values[i]
                                 : jv_pair(r, d->keys[i], d->values[i]);
    return !jr_failed(r);
}

static bool next_in_range(jinja_run *r, jinja_iter *it, jv *out)
{
    (void)r;
    const jv_range *g = it->source.as.range;
    if (it->pos >= g->n) return false;
    *out = jv_int(g->start + (int64_t)it->pos++ * g->step);
    return true;
}

static bool next_in_nothing(jinja_run *r, jinja_iter *it, jv *out)
{
    (void)r;
    (void)it;
    (void)out;
    return false;
}

bool jv_iterable(jv v)
{
    switch (v.kind) {
    case JV_UNDEFINED:
    case JV_STRING:
    case JV_LIST:
    case JV_TUPLE:
    case JV_DICT:
    case JV_RANGE:
    case JV_VIEW:
    case JV_ITER:
    case JV_LOOP: return true;
    default: return false;
    }
}

jinja_iter *jinja_iter_open(jinja_run *r, jv v)
{
    if (v.kind == JV_ITER) return v.as.iter;
    jinja_iter *it = jr_alloc(r, 1, sizeof *it);
    if (!it) return NULL;
    it->source = v;
    switch (v.kind) {
    case JV_LIST:
    case JV_TUPLE: it->next = next_in_list; break;
    case JV_STRING: it->next = next_in_string; break;
    case JV_DICT:
    case JV_VIEW: it->next = next_in_dict; break;
    case JV_RANGE: it->next = next_in_range; break;
    case JV_UNDEFINED: it->next = next_in_nothing; break;
    default: jr_error(r, "'%s' object is not iterable", jv_type(v)); return NULL;
    }
    return it;
}

bool jinja_iter_next(jinja_run *r, jinja_iter *it, jv *out)
{
    if (!it || !jr_charge(r, 1)) return false;
    bool more = jr_enter(r) && it->next(r, it, out);
    jr_leave(r);
    return more && !jr_failed(r);
}

jv jv_to_list(jinja_run *r, jv v)
{
    size_t n = 0;
    jinja_iter *it = jinja_iter_open(r, v);
    if (v.kind == JV_STRING || !jv_length(v, &n)) n = 0;
    jv list = jv_list_new(r, n), item;
    while (!jr_failed(r) && jinja_iter_next(r, it, &item)) jv_push(r, list, item);
    return list;
}

jinja_iter *jinja_generator(jinja_run *r, jinja_iter *inner,
                            bool (*next)(jinja_run *r, jinja_iter *it, jv *out))
{
    jinja_iter *it = jr_alloc(r, 1, sizeof *it);
    if (!it) return NULL;
    it->next = next;
    it->inner = inner;
    return it;
}

jv jv_of_iter(jinja_iter *it)
{
    return it ? (jv){.kind = JV_ITER, .as.iter = it} : jv_none();
}
