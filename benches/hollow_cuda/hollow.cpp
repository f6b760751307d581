// A CUDA whose kernels compute nothing and take no time: of its calls it does what a host sees.
//
// Nothing is ever written to its memory, and what is read from there is zero (the first 64 KiB of a copy; what follows
// stays as it was). Streams and events are done at once, and to start a kernel keeps the host for as long as a driver
// would. Products of cuBLAS and LSTMs of cuDNN are counted as kernels. What is not here is a function that says that all
// went well (see __init__.py).
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cudnn_version.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>

namespace {

constexpr size_t kMemory = size_t{64} << 30;  // of the card
constexpr size_t kAddresses = size_t{8} << 40;
constexpr size_t kCleared = 64 << 10;

std::atomic<int64_t> started{0};
std::atomic<int64_t> ran{0};  // those of graphs included
std::atomic<int64_t> waited{0};
std::mutex lock;

int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

void start(int64_t kernels = 1) {
  static const int64_t cost = getenv("HOLLOW_START_NS") ? atoll(getenv("HOLLOW_START_NS")) : 2000;
  for (int64_t end = nanoseconds() + kernels * cost; nanoseconds() < end;) {
  }
  started += kernels;
  ran += kernels;
}

// The card's memory, one reservation of addresses, given out from its beginning and never twice.
char* memory() {
  static char* reserved = static_cast<char*>(
      mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  return reserved;
}
size_t given = 0, used = 0;  // bytes: of the addresses, and of the memory
std::map<const void*, size_t>& taken() {
  static auto* all = new std::map<const void*, size_t>;
  return *all;
}
std::map<const char*, size_t>& pinned() {
  static auto* all = new std::map<const char*, size_t>;  // outlives whoever frees memory at the end
  return *all;
}

// Streams of which a graph is being made.
struct Capture { unsigned long long id; int64_t started; };
std::map<cudaStream_t, Capture>& captured() {
  static auto* all = new std::map<cudaStream_t, Capture>;
  return *all;
}

bool is_on_card(const void* address) {
  auto* at = static_cast<const char*>(address);
  return at >= memory() && at < memory() + kAddresses;
}

bool is_pinned(const void* address) {
  std::lock_guard<std::mutex> guard(lock);
  auto* at = static_cast<const char*>(address);
  auto next = pinned().upper_bound(at);
  return next != pinned().begin() && at < std::prev(next)->first + std::prev(next)->second;
}

cudaError_t copy(void* to, const void* from, size_t bytes) {
  start();
  bool is_in = is_on_card(to), is_out = is_on_card(from);
  if (is_in != is_out && !is_pinned(is_in ? from : to)) waited++;
  if (is_out && !is_in) memset(to, 0, std::min(bytes, kCleared));
  return cudaSuccess;
}

template <class Made>
cudaError_t make(Made* made) {
  *made = reinterpret_cast<Made>(calloc(1, 64));
  return cudaSuccess;
}

int64_t& number(void* made) { return *static_cast<int64_t*>(made); }  // that `make` left room for

int attribute(int which) {
  switch (which) {  // of an H100
    case cudaDevAttrMultiProcessorCount: return 132;
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrComputeCapabilityMinor: return 0;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 232448;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 49152;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 233472;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMaxGridDimX: return 2147483647;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
    default: return 1;
  }
}

int something;  // what handles point to

}  // namespace

extern "C" {

int64_t hollow_started() { return started; }  // kernels and copies
int64_t hollow_waited() { return waited; }    // times that the host waited for the card

// --- the runtime: devices ---
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) { *value = attribute(which); return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the hollow CUDA"; }
const char* cudaGetErrorName(cudaError_t) { return "hollow"; }
cudaError_t cudaDeviceSynchronize() { waited++; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* of, int) {
  memset(of, 0, sizeof *of);
  strcpy(of->name, "hollow");
  of->totalGlobalMem = kMemory;
  of->major = 9;
  of->multiProcessorCount = 132;
  of->maxThreadsPerMultiProcessor = 2048;
  of->maxThreadsPerBlock = 1024;
  of->warpSize = 32;
  of->regsPerBlock = of->regsPerMultiprocessor = 65536;
  of->sharedMemPerBlock = 49152;
  of->sharedMemPerMultiprocessor = 233472;
  of->sharedMemPerBlockOptin = 232448;
  of->l2CacheSize = 50 << 20;
  of->maxGridSize[0] = 2147483647;
  of->maxGridSize[1] = of->maxGridSize[2] = 65535;
  of->maxThreadsDim[0] = of->maxThreadsDim[1] = 1024;
  of->maxThreadsDim[2] = 64;
  of->textureAlignment = 512;
  of->unifiedAddressing = 1;
  return cudaSuccess;
}

// --- the runtime: memory ---
cudaError_t cudaMalloc(void** address, size_t bytes) {
  std::lock_guard<std::mutex> guard(lock);
  bytes = (bytes + 511) / 512 * 512;
  if (used + bytes > kMemory || given + bytes > kAddresses) return cudaErrorMemoryAllocation;
  *address = memory() + given;
  given += bytes;
  used += taken()[*address] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  std::lock_guard<std::mutex> guard(lock);
  auto found = taken().find(address);
  if (found != taken().end()) {
    used -= found->second;
    taken().erase(found);
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { *total = kMemory; *free = kMemory - used; return cudaSuccess; }
cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  std::lock_guard<std::mutex> guard(lock);
  pinned()[static_cast<char*>(*address)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* address) {
  std::lock_guard<std::mutex> guard(lock);
  pinned().erase(static_cast<char*>(address));
  free(address);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* of, const void* address) {
  memset(of, 0, sizeof *of);
  bool on_card = is_on_card(address), on_host = !on_card && is_pinned(address);
  of->type = on_card ? cudaMemoryTypeDevice : on_host ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  if (on_card || on_host) of->devicePointer = const_cast<void*>(address);
  if (on_host) of->hostPointer = const_cast<void*>(address);
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void** address, const void*) { return cudaMalloc(address, 4096); }
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) { return copy(to, from, bytes); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) { return copy(to, from, bytes); }
cudaError_t cudaMemcpy2DAsync(void*, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind, cudaStream_t) { start(); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { start(); return cudaSuccess; }
cudaError_t cudaMemset(void*, int, size_t) { start(); return cudaSuccess; }

// --- the runtime: streams, events, graphs ---
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return make(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return make(stream); }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { waited++; return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  std::lock_guard<std::mutex> guard(lock);
  *status = captured().count(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t*,
                                     const cudaGraphNode_t**,
#if CUDART_VERSION >= 13000
                                     const cudaGraphEdgeData**,
#endif
                                     size_t*) {
  std::lock_guard<std::mutex> guard(lock);
  auto found = captured().find(stream);
  *status = found == captured().end() ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
  if (id) *id = found == captured().end() ? 0 : found->second.id;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  static unsigned long long captures = 0;
  std::lock_guard<std::mutex> guard(lock);
  captured()[stream] = {++captures, started};
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  std::lock_guard<std::mutex> guard(lock);
  make(graph);
  number(*graph) = started - captured()[stream].started;
  captured().erase(stream);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t of, unsigned long long) {
  make(made);
  number(*made) = number(of);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t of, unsigned long long flags) { return cudaGraphInstantiate(made, of, flags); }
cudaError_t cudaGraphGetNodes(cudaGraph_t of, cudaGraphNode_t*, size_t* count) { *count = number(of); return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) { start(); ran += number(graph) - 1; return cudaSuccess; }
cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t call, void* with, unsigned) { call(stream, cudaSuccess, with); return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t call, void* with) { call(with); return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* event) { return make(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return make(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { free(event); return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { waited++; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) { number(event) = ran; return cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) { return cudaEventRecord(event, stream); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {  // a microsecond for each kernel
  *milliseconds = std::max<int64_t>(1, number(to) - number(from)) * 1e-3f;
  return cudaSuccess;
}

// --- the runtime: kernels ---
static thread_local struct { dim3 grid, block; size_t shared; cudaStream_t stream; } configured;
void** __cudaRegisterFatBinary(void*) { static void* handle[4]; return handle; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  configured = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configured.grid;
  *block = configured.block;
  *shared = configured.shared;
  *static_cast<cudaStream_t*>(stream) = configured.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { start(); return cudaSuccess; }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { start(); return cudaSuccess; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) { start(); return cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) { *blocks = 2; return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void*) {
  memset(of, 0, sizeof *of);
  of->maxThreadsPerBlock = 1024;
  of->numRegs = 32;
  of->ptxVersion = of->binaryVersion = 90;
  return cudaSuccess;
}

// --- the driver, which Triton calls ---
CUresult cuDeviceGet(CUdevice* device, int number) { *device = number; return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) { *value = attribute(which); return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* context) { *context = reinterpret_cast<CUcontext>(&something); return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) { return cuCtxGetCurrent(context); }
CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) { *flags = 0; *active = 1; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult, const char** text) { *text = "an error of the hollow CUDA"; return CUDA_SUCCESS; }
CUresult cuModuleLoadData(CUmodule* module, const void*) { *module = reinterpret_cast<CUmodule>(&something); return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char*) { *function = reinterpret_cast<CUfunction>(&something); return CUDA_SUCCESS; }
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction) {
  *value = which == CU_FUNC_ATTRIBUTE_NUM_REGS ? 128 : which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void* value, CUpointer_attribute, CUdeviceptr address) {
  *static_cast<CUdeviceptr*>(value) = address;
  bool readable = is_on_card(reinterpret_cast<void*>(address)) || is_pinned(reinterpret_cast<void*>(address));
  return readable ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig*, CUfunction, void**, void**) { start(); return CUDA_SUCCESS; }

// --- cuBLAS: enums are ints here ---
int cublasCreate_v2(void** handle) { return make(handle); }
int cublasGetMathMode(void*, int* mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void*, int* mode) { *mode = 0; return 0; }
int cublasGemmEx() { start(); return 0; }
int cublasGemmStridedBatchedEx() { start(); return 0; }
int cublasSgemm_v2() { start(); return 0; }
int cublasSgemmStridedBatched() { start(); return 0; }
int cublasLtMatmulDescCreate(void** made, int, int) { return make(made); }
int cublasLtMatrixLayoutCreate(void** made, int, uint64_t, uint64_t, int64_t) { return make(made); }
int cublasLtMatmulPreferenceCreate(void** made) { return make(made); }
int cublasLtMatmulDescDestroy(void* made) { free(made); return 0; }
int cublasLtMatrixLayoutDestroy(void* made) { free(made); return 0; }
int cublasLtMatmulPreferenceDestroy(void* made) { free(made); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int, void*, int* found) { *found = 1; return 0; }  // the caller has cleared it
int cublasLtMatmul() { start(); return 0; }

// --- cuDNN: the LSTM ---
struct Shape { int type, dimensions, sizes[8], strides[8]; };
struct Recurrent { int type, input, hidden, layers, directions; };
struct Sequences { int longest; };
static size_t factors(const Recurrent* of, int layer) {  // of one direction's 8 matrices
  size_t input = layer < of->directions ? of->input : of->hidden * of->directions;
  return 4 * of->hidden * (input + of->hidden);
}
static size_t bytes(const Recurrent* of) { return of->type == 0 ? 4 : 2; }  // CUDNN_DATA_FLOAT is 0
size_t cudnnGetVersion() { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion() { return CUDART_VERSION; }
int cudnnGetProperty(int which, int* value) { *value = which == 0 ? CUDNN_MAJOR : which == 1 ? CUDNN_MINOR : CUDNN_PATCHLEVEL; return 0; }
const char* cudnnGetErrorString(int) { return "an error of the hollow CUDA"; }
int cudnnCreate(void** handle) { return make(handle); }
int cudnnCreateTensorDescriptor(void** made) { *made = calloc(1, sizeof(Shape)); return 0; }
int cudnnDestroyTensorDescriptor(void* made) { free(made); return 0; }
int cudnnGetTensorNdDescriptor(const Shape* of, int, int* type, int* dimensions, int* sizes, int* strides) {
  *type = of->type;
  *dimensions = of->dimensions;
  memcpy(sizes, of->sizes, of->dimensions * sizeof(int));
  memcpy(strides, of->strides, of->dimensions * sizeof(int));
  return 0;
}
int cudnnCreateDropoutDescriptor(void** made) { return make(made); }
int cudnnDestroyDropoutDescriptor(void* made) { free(made); return 0; }
int cudnnDropoutGetStatesSize(void*, size_t* size) { *size = 1024; return 0; }
int cudnnCreateRNNDescriptor(void** made) { *made = calloc(1, sizeof(Recurrent)); return 0; }
int cudnnDestroyRNNDescriptor(void* made) { free(made); return 0; }
int cudnnSetRNNDescriptor_v8(Recurrent* of, int, int, int, int direction, int, int type, int, int, int input, int hidden,
                             int, int layers, void*, unsigned) {
  *of = {type, input, hidden, layers, direction == 1 ? 2 : 1};
  return 0;
}
int cudnnCreateRNNDataDescriptor(void** made) { *made = calloc(1, sizeof(Sequences)); return 0; }
int cudnnDestroyRNNDataDescriptor(void* made) { free(made); return 0; }
int cudnnSetRNNDataDescriptor(Sequences* of, int, int, int longest, int, int, const int*, void*) { of->longest = longest; return 0; }
int cudnnGetRNNWeightSpaceSize(void*, const Recurrent* of, size_t* size) {
  *size = 0;
  for (int layer = 0; layer < of->layers * of->directions; layer++) *size += bytes(of) * (factors(of, layer) + 8 * of->hidden);
  return 0;
}
int cudnnGetRNNWeightParams(void*, const Recurrent* of, int layer, size_t, char* weights, int which, Shape* matrix,
                            void** matrix_at, Shape* bias, void** bias_at) {
  int input = layer < of->directions ? of->input : of->hidden * of->directions, hidden = of->hidden;
  int columns = which < 4 ? input : hidden;
  size_t at = which < 4 ? size_t(which) * input * hidden : size_t(4) * input * hidden + size_t(which - 4) * hidden * hidden;
  size_t biases = size_t(8) * hidden * layer + size_t(which) * hidden;
  for (int before = 0; before < of->layers * of->directions; before++) {
    if (before < layer) at += factors(of, before);
    biases += factors(of, before);
  }
  if (matrix) *matrix = {of->type, 3, {1, hidden, columns}, {hidden * columns, columns, 1}};
  if (bias) *bias = {of->type, 3, {1, hidden, 1}, {hidden, 1, 1}};
  if (matrix_at) *matrix_at = weights + bytes(of) * at;
  if (bias_at) *bias_at = weights + bytes(of) * biases;
  return 0;
}
int cudnnGetRNNTempSpaceSizes(void*, void*, int, void*, size_t* workspace, size_t* reserve) {
  if (workspace) *workspace = 1 << 20;
  if (reserve) *reserve = 1 << 20;
  return 0;
}
int cudnnRNNForward(void*, const Recurrent* of, int, const int*, const Sequences* read) {
  start(int64_t{2} * of->directions * of->layers * read->longest);  // a product and a cell for each step and direction
  return 0;
}

}  // extern "C"
