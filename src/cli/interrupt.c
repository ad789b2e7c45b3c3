/* SIGINT; see interrupt.h. */
#define _GNU_SOURCE
#include "interrupt.h"

#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (++interrupts >= 2) _exit(130);
}

void interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    interrupts = 0;
    sigaction(SIGINT, &action, NULL);
}

bool interrupt_seen(void)
{
    return interrupts > 0;
}

void interrupt_release(void)
{
    signal(SIGINT, SIG_DFL);
}
