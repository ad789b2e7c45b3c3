/* How many threads are worth starting: the physical cores that this process may really use.
 *
 * Affinity says which processors may run us, sysfs which of them are siblings of one core (two threads of one core
 * share its vector units, so the second is worth nothing here), and the cgroup's cpu.max how much time we get.
 * What cannot be read does not limit. */
#define _GNU_SOURCE
#include "base/thread_pool.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_line(const char *path, char *line, int size)
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, size, f) != NULL;
    fclose(f);
    return ok;
}

/* The lowest processor number that shares `cpu`'s core ("0,64" or "0-1" start with it). */
static int first_sibling(int cpu)
{
    char path[96], line[64];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    if (!read_line(path, line, sizeof line)) return cpu;
    long first = strtol(line, NULL, 10);
    return first >= 0 && first < CPU_SETSIZE ? (int)first : cpu;
}

static int allowed_cores(void)
{
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed)) CPU_SET(first_sibling(cpu), &cores);
    return CPU_COUNT(&cores);
}

/* Processors' worth of time in a cpu.max file ("max 100000", "150000 100000"), rounded up; 0: no limit. */
static int quota_of(const char *path)
{
    char line[64];
    long long quota, period;
    if (!read_line(path, line, sizeof line)) return 0;
    if (sscanf(line, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < CPU_SETSIZE ? (int)cpus : CPU_SETSIZE;
}

/* The tightest quota of this process's cgroup (version 2) and of those that hold it; 0: none. */
static int cgroup_quota(void)
{
    char line[3072], path[3200];
    if (!read_line("/proc/self/cgroup", line, sizeof line) || strncmp(line, "0::/", 4) != 0) return 0;
    char *group = line + 3;
    group[strcspn(group, "\n")] = '\0';
    int least = 0;
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group);
        int quota = quota_of(path);
        if (quota && (!least || quota < least)) least = quota;
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = '\0';
    }
}

int thread_count_default(void)
{
    int cores = allowed_cores(), quota = cgroup_quota();
    if (quota && quota < cores) cores = quota;
    return cores > 0 ? cores : 1;
}
