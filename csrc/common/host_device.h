// The math of an op is written once, for the host compiler and for nvcc.
#pragma once

#ifdef __CUDACC__
#define MCLR_HD __host__ __device__ __forceinline__
#else
#define MCLR_HD inline __attribute__((always_inline))
#endif

namespace mclr {
constexpr float kEps = 1e-4f;  // EDM2's epsilon of every normalisation (eq. 47, 66)
}
