/* Requests as they come in: headers and body are checked, the route is found and asked for the answer. */
#ifndef NVLLM_SERVE_INTAKE_H
#define NVLLM_SERVE_INTAKE_H

#include "serve/exchange.h"

/* libmicrohttpd's callbacks; `cls` is the server. */
enum MHD_Result intake_on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *data_len,
                                  void **context);
void intake_on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode why);

#endif
