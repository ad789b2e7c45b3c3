/* Ctrl-C: the first SIGINT asks the running answer to end, the second ends the program with 130.
 *
 * Between interrupt_catch and interrupt_release only; outside, SIGINT does what the system does. The handler's counter
 * is the one variable that this program keeps outside a struct: a signal handler has no argument. */
#ifndef NVLLM_CLI_INTERRUPT_H
#define NVLLM_CLI_INTERRUPT_H

#include <stdbool.h>

void interrupt_catch(void); /* starts counting from zero */
bool interrupt_seen(void);
void interrupt_release(void);

#endif
