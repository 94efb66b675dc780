// Enough of CUDA to run the kernels' own source on the host, a block at a time:
// every CUDA thread is a fiber that runs until it meets a barrier or a shuffle.
// For tests of tiny sizes; the kernels see it through csrc/common/cuda_block.h.
//
// It finds what a GPU would hide: shared memory starts as NaNs, an overrun of
// it is an error, a barrier that not every thread reaches is an error, a
// 16-byte access must be aligned, threads can be run in the reverse order (a
// missing barrier then gives other results), and bytes of global memory are
// counted.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static // blocks run one after the other
#define MCLR_READS(address, bytes)                                             \
  cuda_shim::access(cuda_shim::state().bytes_read, address, bytes)
#define MCLR_WRITES(address, bytes)                                            \
  cuda_shim::access(cuda_shim::state().bytes_written, address, bytes)

typedef int cudaError_t;
typedef void *cudaStream_t;
enum {
  cudaSuccess = 0,
  cudaErrorLaunchFailure = 719,
  cudaErrorInvalidValue = 1
};
enum {
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaFuncAttributeMaxDynamicSharedMemorySize
};

struct uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

// --- bfloat16 and half, rounded to nearest even ---
struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};

inline uint32_t shim_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline float shim_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return shim_float((uint32_t)value.bits << 16);
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const uint32_t bits = shim_bits(value);
  if (value != value)
    return {0x7fff};
  return {(uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
  const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                     : exponent     ? ldexpf(1024 + mantissa, exponent - 25)
                                    : ldexpf(mantissa, -24);
  return value.bits & 0x8000 ? -size : size;
}
inline __half __float2half_rn(float value) {
  const uint16_t sign = shim_bits(value) >> 16 & 0x8000;
  const float size = fabsf(value);
  if (value != value)
    return {0x7fff};
  if (size >= 65520.0f)
    return {(uint16_t)(sign | 0x7c00)};
  if (size == 0.0f)
    return {sign};
  int exponent;
  frexpf(size, &exponent); // size in [2^(exponent-1), 2^exponent)
  if (exponent < -13)
    exponent = -13;
  const int mantissa = (int)nearbyintf(
      ldexpf(size, 11 - exponent)); // at most 2048, which carries on
  return {(uint16_t)(sign | (((exponent + 13) << 10) + mantissa))};
}

namespace cuda_shim {

constexpr int kWarp = 32;
constexpr size_t kStack = 64 * 1024, kGuard = 64;

enum class Wait { nothing, warp, block, finished };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  Wait wait;
  float exchanged;
};

struct State {
  int64_t bytes_read = 0, bytes_written = 0, launches = 0;
  int shared_limit = 232448;
  bool reversed = false, failed = false;
  std::vector<Fiber> fibers;
  std::vector<char> shared;
  ucontext_t scheduler;
  std::function<void()> body;
  int current = 0;
  dim3 block, grid, block_index;
};

inline State &state() {
  static State one;
  return one;
}

inline void fail(const char *message) {
  if (!state().failed)
    fprintf(stderr, "cuda_shim: %s\n", message);
  state().failed = true;
}

inline char *dynamic_shared() {
  return state().shared.data() + (-(intptr_t)state().shared.data() & 15);
}

inline void pause(Wait wait) {
  State &s = state();
  s.fibers[s.current].wait = wait;
  swapcontext(&s.fibers[s.current].context, &s.scheduler);
}

inline void enter() {
  state().body();
  pause(Wait::finished);
}

inline bool all_wait(int first, int last, Wait wait) {
  for (int i = first; i < last; ++i) {
    if (state().fibers[i].wait != wait)
      return false;
  }
  return true;
}

inline void release(int first, int last) {
  for (int i = first; i < last; ++i)
    state().fibers[i].wait = Wait::nothing;
}

inline void run_block(int threads, size_t shared_bytes) {
  State &s = state();
  s.shared.assign(shared_bytes + 16 + kGuard, (char)0xff);
  if ((int)s.fibers.size() < threads)
    s.fibers.resize(threads);
  for (int i = 0; i < threads; ++i) {
    Fiber &fiber = s.fibers[i];
    fiber.stack.resize(kStack);
    fiber.wait = Wait::nothing;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  while (!all_wait(0, threads, Wait::finished)) {
    for (int n = 0; n < threads; ++n) {
      s.current = s.reversed ? threads - 1 - n : n;
      if (s.fibers[s.current].wait == Wait::nothing)
        swapcontext(&s.scheduler, &s.fibers[s.current].context);
    }
    bool moved = false;
    for (int first = 0; first < threads; first += kWarp) {
      const int last = first + kWarp < threads ? first + kWarp : threads;
      if (all_wait(first, last, Wait::warp)) {
        release(first, last);
        moved = true;
      }
    }
    if (!moved && all_wait(0, threads, Wait::block)) {
      release(0, threads);
      moved = true;
    }
    if (!moved && !all_wait(0, threads, Wait::finished))
      return fail("not every thread reaches a barrier");
  }
  const char *guard = dynamic_shared() + shared_bytes;
  for (int i = 0; i < (int)kGuard - 16; ++i) {
    if (guard[i] != (char)0xff)
      return fail("written past the shared memory");
  }
}

// Counts an access to global memory.
inline void access(int64_t &counter, const void *address, size_t bytes) {
  counter += bytes;
  if ((uintptr_t)address % bytes)
    fail("an access that is not aligned to its size");
}

} // namespace cuda_shim

#define threadIdx (dim3(cuda_shim::state().current, 0, 0))
#define blockIdx (cuda_shim::state().block_index)

inline void __syncthreads() { cuda_shim::pause(cuda_shim::Wait::block); }
inline void __syncwarp() { cuda_shim::pause(cuda_shim::Wait::warp); }

inline float __shfl_xor_sync(unsigned, float value, int lanes) {
  cuda_shim::State &s = cuda_shim::state();
  s.fibers[s.current].exchanged = value;
  __syncwarp();
  const float received = s.fibers[s.current ^ lanes].exchanged;
  __syncwarp();
  return received;
}

inline cudaError_t cudaGetDevice(int *device) {
  return *device = 0, cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int *value, int, int) {
  return *value = cuda_shim::state().shared_limit, cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int bytes) {
  return bytes <= cuda_shim::state().shared_limit ? cudaSuccess
                                                  : cudaErrorInvalidValue;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config,
                               void (*kernel)(Parameters...),
                               const Arguments &...arguments) {
  static_assert((sizeof(Parameters) + ...) <= 4096,
                "kernel parameters take at most 4 KB");
  cuda_shim::State &s = cuda_shim::state();
  s.launches += 1;
  s.block = config->blockDim;
  s.body = [&] { kernel(arguments...); };
  for (unsigned block = 0; block < config->gridDim.x && !s.failed; ++block) {
    s.block_index = dim3(block, 0, 0);
    cuda_shim::run_block(config->blockDim.x, config->dynamicSmemBytes);
  }
  return s.failed ? cudaErrorLaunchFailure : cudaSuccess;
}

// --- What the tests set and read ---
extern "C" inline __attribute__((used)) void shim_reset(int reversed,
                                                        int shared_limit) {
  cuda_shim::State &s = cuda_shim::state();
  s.bytes_read = s.bytes_written = s.launches = 0;
  s.failed = false;
  s.reversed = reversed;
  s.shared_limit = shared_limit;
}
extern "C" inline __attribute__((used)) void shim_counts(int64_t *counts) {
  const cuda_shim::State &s = cuda_shim::state();
  counts[0] = s.bytes_read;
  counts[1] = s.bytes_written;
  counts[2] = s.launches;
}
