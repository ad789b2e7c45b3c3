/* The chat page, src/serve/web/index.html, put into the program by cmake/embed.cmake. */
#ifndef NVLLM_SERVE_PAGE_H
#define NVLLM_SERVE_PAGE_H

#include <stddef.h>

extern const unsigned char web_page[];
extern const size_t web_page_size;

#endif
