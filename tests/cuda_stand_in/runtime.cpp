// A CUDA runtime without a GPU, preloaded before torch's own: one device that looks like an H100, whose memory is the
// host's. Streams and events finish at once (an event remembers the clock). No kernel runs here: stand_in.py takes every
// operation before it comes to one, so a launch is an error.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {
constexpr size_t GIBIBYTE = 1ull << 30;

struct Event {
  double seconds;
};

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

// Once it is set, every call fails as after an illegal access of a kernel: until the process ends.
bool broken = false;
thread_local int current = 0;

cudaError_t status() { return broken ? cudaErrorIllegalAddress : cudaSuccess; }

template <typename T>
cudaError_t answer(T* place, T value) {
  if (place) *place = value;
  return cudaSuccess;
}
}  // namespace

extern "C" void stand_in_break(void) { broken = true; }

extern "C" {
// --- the device
cudaError_t cudaGetDeviceCount(int* count) {
  const char* wanted = getenv("STAND_IN_GPUS");
  return answer(count, wanted ? atoi(wanted) : 1);
}
cudaError_t cudaGetDevice(int* device) { return answer(device, current); }
cudaError_t cudaSetDevice(int device) {
  current = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) { return status(); }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return answer(can, 0); }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return answer(value, 1); }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  answer(least, 0);
  return answer(greatest, -5);
}
cudaError_t cudaDriverGetVersion(int* version) { return answer(version, CUDART_VERSION); }
cudaError_t cudaRuntimeGetVersion(int* version) { return answer(version, CUDART_VERSION); }
cudaError_t cudaGetLastError(void) { return status(); }
cudaError_t cudaPeekAtLastError(void) { return status(); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) {
  memset(found, 0, sizeof *found);
  strcpy(found->name, "Stand-in H100");
  found->totalGlobalMem = 79 * GIBIBYTE;
  found->major = 9;
  found->multiProcessorCount = 132;
  found->warpSize = 32;
  found->maxThreadsPerMultiProcessor = 2048;
  found->maxThreadsPerBlock = 1024;
  found->sharedMemPerBlock = 49152;
  found->sharedMemPerMultiprocessor = 233472;
  found->regsPerMultiprocessor = 65536;
  found->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

// --- events and streams
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return answer(event, reinterpret_cast<cudaEvent_t>(new Event{0}));
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<Event*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  reinterpret_cast<Event*>(event)->seconds = now();
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
cudaError_t cudaEventQuery(cudaEvent_t) { return status(); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return status(); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  double seconds = reinterpret_cast<Event*>(end)->seconds - reinterpret_cast<Event*>(begin)->seconds;
  return answer(milliseconds, static_cast<float>(1e3 * seconds));
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return answer(stream, static_cast<cudaStream_t>(malloc(8))); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return status(); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return answer(status, cudaStreamCaptureStatusNone);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }

// --- memory, aligned as CUDA's is
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  answer(available, 78 * GIBIBYTE);
  return answer(total, 79 * GIBIBYTE);
}
cudaError_t cudaMalloc(void** place, size_t bytes) {
  *place = aligned_alloc(512, (bytes + 511) / 512 * 512);
  return *place ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* place) {
  if (!broken) free(place);  // after an error nothing is freed: whoever tries again would free it twice
  return status();
}
cudaError_t cudaHostAlloc(void** place, size_t bytes, unsigned) { return cudaMalloc(place, bytes); }
cudaError_t cudaFreeHost(void* place) { return cudaFree(place); }
// All memory seems to be the host's own: no tensor counts as pinned, and pinning one copies it.
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void*) {
  memset(found, 0, sizeof *found);
  found->type = cudaMemoryTypeUnregistered;
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes, cudaMemcpyKind) {
  memcpy(target, source, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  memcpy(target, source, bytes);
  return status();
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t) {
  memset(target, value, bytes);
  return cudaSuccess;
}

// --- kernels
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { return cudaErrorNotSupported; }
}
