/* Which path is answered by whom. */
#ifndef NVLLM_SERVE_ROUTES_H
#define NVLLM_SERVE_ROUTES_H

#include "serve/exchange.h"

struct route {
    const char *path;   /* NULL ends the table; one that ends with / stands for all below it */
    const char *method; /* GET (then HEAD too) or POST */
    bool needs_key, needs_model;
    enum MHD_Result (*answer)(exchange *x);
};

/* The route of a path and a method. NULL with *allowed the method that the path has, or NULL: no such path. */
const route *route_find(const char *path, const char *method, const char **allowed);

enum MHD_Result answer_chat(exchange *x);
enum MHD_Result answer_completion(exchange *x);
enum MHD_Result answer_tokenize(exchange *x);
enum MHD_Result answer_detokenize(exchange *x);
enum MHD_Result answer_tokenizer_info(exchange *x);
enum MHD_Result answer_page(exchange *x);

/* Is `model` (NULL: any) the one we serve? Otherwise *err says so. */
bool check_model(const server *s, const char *model, api_error *err);

#endif
