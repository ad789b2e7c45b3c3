/* `/`: the chat page. It is one file that loads nothing else; a Content-Security-Policy inside it holds it to that. */
#include "serve/page.h"
#include "serve/routes.h"

enum MHD_Result answer_page(exchange *x)
{
    return exchange_send(x, 200, "text/html; charset=utf-8", web_page, web_page_size);
}
