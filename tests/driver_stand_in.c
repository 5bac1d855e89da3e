/* A CUDA driver without a device: memory is the host's, kernels do nothing, and every call is written to stderr.
   It refuses what a driver refuses: work without a context, code that is no machine code, grids and blocks too large. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *Handle;
typedef unsigned long long Address;
enum { OK = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500 };

static char contexts[2][64];
static __thread Handle stack[64];
static __thread int depth;
static uintptr_t last = 0x5000;
static Address threshold;

#define SAY(...) (fprintf(stderr, "driver: " __VA_ARGS__), OK)
#define CONTEXT() do { if (!depth) { SAY("%s without a context\n", __func__); return INVALID_CONTEXT; } } while (0)
#define NEW(to) (*(to) = (Handle)(last += 16))

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *n) { *n = 2; return OK; }
int cuDeviceGet(int *device, int n) { *device = n; return n < 2 ? OK : INVALID_DEVICE; }
int cuDeviceGetName(char *to, int size, int device) { snprintf(to, size, "stand-in %d", device); return OK; }
int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 1ull << 37; return OK; }
int cuDeviceGetUuid_v2(char *to, int device) { memset(to, device, 16); return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 75 ? 9 : which == 76 ? 0 : which == 1 ? 1024 : which == 10 ? 32 : 1;
    return OK;
}
int cuDevicePrimaryCtxRetain(Handle *to, int device) { *to = contexts[device]; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxGetCurrent(Handle *to) { *to = depth ? stack[depth - 1] : 0; return OK; }
int cuCtxSetCurrent(Handle context) {
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return OK;
}
int cuCtxPushCurrent_v2(Handle context) { stack[depth++] = context; return OK; }
int cuCtxPopCurrent_v2(Handle *to) { CONTEXT(); Handle top = stack[--depth]; if (to) *to = top; return OK; }
int cuCtxGetDevice(int *device) { CONTEXT(); *device = stack[depth - 1] == contexts[1]; return OK; }
int cuDeviceGetDefaultMemPool(Handle *to, int device) { *to = contexts[device]; return OK; }
int cuMemPoolGetAttribute(Handle pool, int which, void *to) { *(Address *)to = threshold; return OK; }
int cuMemPoolSetAttribute(Handle pool, int which, void *from) { threshold = *(Address *)from; return OK; }

static void *memory(size_t size) { void *to = aligned_alloc(256, (size + 511) / 256 * 256); return memset(to, 255, size); }
int cuMemAllocAsync(Address *to, size_t size, Handle stream) { CONTEXT(); *to = (Address)memory(size); return SAY("alloc\n"); }
int cuMemFreeAsync(Address at, Handle stream) { CONTEXT(); free((void *)at); return SAY("free\n"); }
int cuMemHostAlloc(void **to, size_t size, unsigned flags) { CONTEXT(); *to = memory(size); return OK; }
int cuMemFreeHost(void *at) { CONTEXT(); free(at); return OK; }
int cuMemcpyAsync(Address to, Address from, size_t size, Handle stream) {
    CONTEXT(); memmove((void *)to, (void *)from, size); return SAY("copy %zu\n", size);
}
int cuMemAlloc_v2(Address *to, size_t size) { CONTEXT(); *to = (Address)memory(size); return OK; }
int cuMemFree_v2(Address at) { CONTEXT(); free((void *)at); return OK; }
int cuMemcpyHtoD_v2(Address to, void *from, size_t size) { CONTEXT(); memmove((void *)to, from, size); return OK; }
int cuMemcpyHtoDAsync_v2(Address to, void *from, size_t size, Handle stream) { return cuMemcpyHtoD_v2(to, from, size); }
int cuMemGetInfo_v2(size_t *left, size_t *all) { CONTEXT(); *left = 1ull << 36; *all = 1ull << 37; return OK; }
int cuPointerGetAttribute(void *to, int which, Address at) { *(int *)to = 0; return OK; }
int cuStreamCreate(Handle *to, unsigned flags) { CONTEXT(); NEW(to); return OK; }
int cuStreamDestroy_v2(Handle stream) { CONTEXT(); return OK; }
int cuStreamSynchronize(Handle stream) { CONTEXT(); return SAY("synchronize\n"); }
int cuStreamWaitEvent(Handle stream, Handle event, unsigned flags) { CONTEXT(); return SAY("wait\n"); }
int cuEventCreate(Handle *to, unsigned flags) { CONTEXT(); NEW(to); return OK; }
int cuEventDestroy_v2(Handle event) { CONTEXT(); return OK; }
int cuEventRecord(Handle event, Handle stream) { CONTEXT(); return SAY("record\n"); }
int cuEventSynchronize(Handle event) { CONTEXT(); return OK; }
int cuEventElapsedTime_v2(float *to, Handle start, Handle end) { *to = 1.0f; return OK; }
int cuEventElapsedTime(float *to, Handle start, Handle end) { *to = 1.0f; return OK; }
int cuGetErrorString(int error, const char **to) { *to = "refused by the stand-in"; return OK; }
int cuGetErrorName(int error, const char **to) { *to = "CUDA_ERROR_STAND_IN"; return OK; }
int cuModuleLoadData(Handle *to, const char *image) {
    CONTEXT();
    if (memcmp(image, "\177ELF", 4)) return INVALID_IMAGE;
    NEW(to);
    return SAY("module\n");
}
int cuModuleGetFunction(Handle *to, Handle module, const char *name) { CONTEXT(); NEW(to); return OK; }
int cuLaunchKernel(Handle function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Handle stream, void **parameters, void **extra) {
    CONTEXT();
    if (!gx || !gy || gz != 1 || gy > 65535 || bx * by * bz > 1024 || extra || !parameters)
        return INVALID_VALUE;
    return SAY("launch\n");
}

int cuGetProcAddress_v2(const char *name, void **to, int version, uint64_t flags, int *found) {
    static const char *endings[] = {"_v2", ""};
    Dl_info here;
    char full[200];
    dladdr((void *)cuInit, &here);
    Handle self = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    for (int i = 0; i < 2; i++) {
        snprintf(full, sizeof full, "%s%s", name, endings[i]);
        if ((*to = dlsym(self, full))) break;
    }
    if (found) *found = *to ? 0 : 1;
    return *to ? OK : NOT_FOUND;
}
