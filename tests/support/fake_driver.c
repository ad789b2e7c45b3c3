/* A stand-in for the NVIDIA driver (libcuda.so.1) that fails as $FAKE_INIT says (a CUresult) or is of the version
 * $FAKE_VERSION: for tests of what the program says then, on machines without a GPU. */
#include <stdlib.h>
#include <string.h>

int cuDriverGetVersion(int *version);
int cuInit(unsigned flags);
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        void *status);
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags);

int cuDriverGetVersion(int *version)
{
    const char *wanted = getenv("FAKE_VERSION");
    *version = wanted ? atoi(wanted) : 99000;
    return 0;
}

int cuInit(unsigned flags)
{
    const char *wanted = getenv("FAKE_INIT");
    (void)flags;
    return wanted ? atoi(wanted) : 100;
}

/* Every other function. 3: CUDA_ERROR_NOT_INITIALIZED */
static int nothing(void)
{
    return 3;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        void *status)
{
    (void)version;
    (void)flags;
    *function = (void *)nothing;
    if (strcmp(name, "cuInit") == 0) *function = (void *)cuInit;
    if (strcmp(name, "cuDriverGetVersion") == 0) *function = (void *)cuDriverGetVersion;
    if (strncmp(name, "cuGetProcAddress", 16) == 0) *function = (void *)cuGetProcAddress_v2;
    if (status) *(int *)status = 0;
    return 0;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
