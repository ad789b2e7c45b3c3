/* Sentences for CUDA's errors; see cuda_fault.cuh. Those that a user can do something about have one of their own. */
#include "backend/cuda_fault.cuh"

#define OR_THE_CPU ", or choose the device cpu"

/* cudart does not tell a driver that is missing from one that is too old, but its version is 0. */
static nvllm_status driver_fault(nvllm_error *err)
{
    int has = 0, needs = 0;
    cudaDriverGetVersion(&has);
    cudaRuntimeGetVersion(&needs);
    needs -= needs % 1000; /* within a major version any driver will do */
    if (has == 0)
        return error_set(err, NVLLM_ERR_UNSUPPORTED,
                         "no NVIDIA driver was found; install one for CUDA %d.%d or later" OR_THE_CPU,
                         needs / 1000, needs % 1000 / 10);
    return error_set(
        err, NVLLM_ERR_UNSUPPORTED,
        "the NVIDIA driver is for CUDA %d.%d, and CUDA %d.%d is needed; update the driver" OR_THE_CPU,
        has / 1000, has % 1000 / 10, needs / 1000, needs % 1000 / 10);
}

static bool has_driver(void)
{
    int version = 0;
    cudaDriverGetVersion(&version);
    return version > 0;
}

/* The sentence of an error that needs no figures; NULL: it has none of its own. */
static const char *sentence_of(cudaError_t rc)
{
    switch (rc) {
    case cudaErrorNoDevice:
        return "the NVIDIA driver finds no GPU; see what nvidia-smi and CUDA_VISIBLE_DEVICES say" OR_THE_CPU;
    case cudaErrorSystemDriverMismatch:
        return "the NVIDIA driver's library and kernel module are of different versions; restart the "
               "machine" OR_THE_CPU;
    case cudaErrorCompatNotSupportedOnDevice:
        return "CUDA's forward compatibility does not cover this GPU; install a newer driver "
               "instead" OR_THE_CPU;
    case cudaErrorSystemNotReady:
        return "the NVIDIA driver is not ready; start its services (nvidia-fabricmanager)" OR_THE_CPU;
    case cudaErrorDevicesUnavailable:
        return "the GPU is busy, or lets only one process in (nvidia-smi -q -d COMPUTE); end the other "
               "process" OR_THE_CPU;
    case cudaErrorNoKernelImageForDevice:
        return "this build has no code for this GPU; build it with "
               "CMAKE_CUDA_ARCHITECTURES=native" OR_THE_CPU;
    default: return NULL;
    }
}

nvllm_status cuda_fault(cudaError_t rc, const char *what, const char *card, nvllm_error *err)
{
    if (rc == cudaSuccess) return NVLLM_OK;
    const char *sentence = sentence_of(rc), *of = *card ? card : "GPU";
    if (rc == cudaErrorInsufficientDriver || !has_driver()) return driver_fault(err);
    if (rc == cudaErrorMemoryAllocation) {
        size_t left = 0, total = 0;
        bool known = cudaMemGetInfo(&left, &total) == cudaSuccess && total > 0;
        if (!known)
            return error_set(err, NVLLM_ERR_MEMORY,
                             "%s: out of memory while %s; end what else uses it" OR_THE_CPU, of, what);
        return error_set(
            err, NVLLM_ERR_MEMORY,
            "%s: out of memory while %s, %.3f of %.3f GB are free; end what else uses it" OR_THE_CPU, of,
            what, (double)left / 1e9, (double)total / 1e9);
    }
    if (sentence) return error_set(err, NVLLM_ERR_UNSUPPORTED, *card ? "%s: %s" : "%s%s", card, sentence);
    return error_set(err, NVLLM_ERR_DEVICE, "%s: error while %s: %s (%s)", of, what, cudaGetErrorString(rc),
                     cudaGetErrorName(rc));
}

nvllm_status cuda_fault_card(const cudaDeviceProp *card, nvllm_error *err)
{
    return error_set(err, NVLLM_ERR_UNSUPPORTED,
                     "%s has compute capability %d.%d, and 8.0 is needed; choose the device cpu", card->name,
                     card->major, card->minor);
}
