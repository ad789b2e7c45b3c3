/* The engine's events on their way to the I/O thread.
 *
 * One thread waits in nvllm_poll, copies what a step brought into a page and rings once (an eventfd); the I/O thread
 * turns the pages and reads. While nothing runs the thread sleeps: no timers. */
#ifndef NVLLM_SERVE_EVENT_PUMP_H
#define NVLLM_SERVE_EVENT_PUMP_H

#include "nanovllm.h"

typedef struct event_pump event_pump;

/* `bell`: an eventfd that becomes readable when events are there. NULL: out of memory or of threads. */
event_pump *event_pump_open(nvllm_engine *engine, int bell);

/* Call after nvllm_submit, so that the thread looks for events again. */
void event_pump_wake(event_pump *p);

/* All events that have come, in order: [returned count], with their pointers good until the next call. *times: the
 * second each one was seen at (CLOCK_MONOTONIC). */
size_t event_pump_take(event_pump *p, const nvllm_event **events, const double **times);

/* Every request must have been cancelled or have ended; waits for the thread. */
void event_pump_close(event_pump *p);

double seconds_now(void); /* CLOCK_MONOTONIC */

#endif
