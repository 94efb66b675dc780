// What the CUDA kernels share: 16-byte accesses, sums over a row's threads, tables of tensors.
//
// A kernel reaches global memory through load, store, load16 and store16 alone, so that the tests' host shim
// (cuda_shim.h stands in for CUDA there) can count the bytes.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define MCLR_READS(address, bytes)
#define MCLR_WRITES(address, bytes)
#else
#include "cuda_shim.h"
#endif

#include "host_device.h"

namespace mclr {

constexpr int kWarp = 32;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
    return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
    return __float2bfloat16_rn(value);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
    return __float2half_rn(value);
}

// Numbers of type T in one 16-byte access.
template <typename T>
constexpr int kWidth = 16 / sizeof(T);

template <typename T>
struct alignas(16) Pack {
    T values[kWidth<T>];
};

template <typename T>
__device__ __forceinline__ float load(const T* address) {
    MCLR_READS(address, sizeof(T));
    return to_float(*address);
}

template <typename T>
__device__ __forceinline__ void store(T* address, float value) {
    MCLR_WRITES(address, sizeof(T));
    *address = from_float<T>(value);
}

// One access of 16 bytes, to global or shared memory.
template <typename T>
__device__ __forceinline__ Pack<T> read_pack(const T* address) {
    Pack<T> pack;
    *reinterpret_cast<uint4*>(&pack) = *reinterpret_cast<const uint4*>(address);
    return pack;
}

template <typename T>
__device__ __forceinline__ void write_pack(T* address, const Pack<T>& pack) {
    *reinterpret_cast<uint4*>(address) = *reinterpret_cast<const uint4*>(&pack);
}

template <typename T>
__device__ __forceinline__ Pack<T> load16(const T* address) {
    MCLR_READS(address, 16);
    return read_pack(address);
}

template <typename T>
__device__ __forceinline__ void store16(T* address, const Pack<T>& pack) {
    MCLR_WRITES(address, 16);
    write_pack(address, pack);
}

__device__ __forceinline__ bool aligned16(const void* address) {
    return (reinterpret_cast<uintptr_t>(address) & 15) == 0;
}

// The block's dynamic shared memory.
__device__ __forceinline__ char* dynamic_shared() {
#ifdef __CUDACC__
    extern __shared__ uint4 mclr_dynamic_shared[];
    return reinterpret_cast<char*>(mclr_dynamic_shared);
#else
    return cuda_shim::dynamic_shared();
#endif
}

// The SIZE threads that share one row: a warp, or the whole block.
template <int SIZE>
struct Group {
    static __device__ __forceinline__ int thread() { return threadIdx.x % SIZE; }

    static __device__ __forceinline__ void sync() {
        if constexpr (SIZE == kWarp) {
            __syncwarp();
        } else {
            __syncthreads();
        }
    }

    // The sum over the group, in every thread; always in the same order. Synchronises the group.
    static __device__ __forceinline__ float sum(float value) {
        for (int lane = kWarp / 2; lane > 0; lane /= 2) value += __shfl_xor_sync(0xffffffffu, value, lane);
        if constexpr (SIZE == kWarp) {
            __syncwarp();
            return value;
        } else {
            __shared__ float of_warp[SIZE / kWarp];
            __syncthreads();
            if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
            __syncthreads();
            float total = 0.0f;
            for (int warp = 0; warp < SIZE / kWarp; ++warp) total += of_warp[warp];
            return total;
        }
    }
};

// How the rows of a launch are worked on. By row size: a warp or a block a row, kept in shared memory between
// two passes, or, past what shared memory holds, read twice.
enum class Rows { kWarp, kBlock, kLarge, kUnstaged };

template <Rows ROWS>
constexpr int kRowThreads = ROWS == Rows::kWarp    ? kWarp
                            : ROWS == Rows::kBlock ? 256
                                                   : 384;
template <Rows ROWS>
constexpr int kBlockThreads = ROWS == Rows::kWarp ? 256 : kRowThreads<ROWS>;
template <Rows ROWS>
constexpr int kRowsPerBlock = kBlockThreads<ROWS> / kRowThreads<ROWS>;

// Row sizes are sorted into these classes, so that a small row does not pay for a large one's shared memory.
constexpr int kWarpRow = 1024;
constexpr int kBlockRow[] = {4096, 8192};
constexpr int kLargeRow = 16384;
constexpr int kNumClasses = 6;

inline int row_class(int64_t row_size, int64_t stage_bytes, int64_t shared_limit) {
    if (row_size <= kWarpRow) return 0;
    if (stage_bytes > shared_limit) return 5;
    return row_size <= kBlockRow[0] ? 1 : row_size <= kBlockRow[1] ? 2 : row_size <= kLargeRow ? 3 : 4;
}

// A chunk of a list of tensors, passed to a kernel by value: so a launch reads no host memory and can be
// captured into a CUDA graph. 4 KB is what every CUDA version takes. `row_end` of an item counts the rows of
// the items up to it.
template <typename Item, int CAPACITY>
struct Table {
    Item items[CAPACITY];
    int count, num_rows;
    int stage_bytes;  // of one row
};

// The item that holds `row`; `row` becomes the row within it.
template <typename Item, int CAPACITY>
__device__ __forceinline__ const Item& find_row(const Table<Item, CAPACITY>& table, int& row) {
    int low = 0, high = table.count - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (row < table.items[middle].row_end) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    if (low > 0) row -= table.items[low - 1].row_end;
    return table.items[low];
}

// Shared memory that a block may use, less what the sums take; or minus the error.
inline int64_t shared_memory_limit() {
    int device = 0, bytes = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    }
    return error == cudaSuccess ? bytes - 256 : -(int64_t)error;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int blocks, int threads, int shared_bytes, void* stream,
                   const Arguments&... arguments) {
    if (blocks == 0) return cudaSuccess;
    if (shared_bytes > 48 * 1024) {  // more has to be asked for
        const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
        if (error != cudaSuccess) return error;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Adds an item of `rows` rows to the table, after `flush(table)` where it would not fit.
template <typename Item, int CAPACITY, typename Flush>
cudaError_t append(Table<Item, CAPACITY>& table, Item item, int64_t rows, int64_t stage_bytes, const Flush& flush) {
    if (rows == 0) return cudaSuccess;
    cudaError_t error = cudaSuccess;
    if (table.count == CAPACITY || table.num_rows + rows > (1 << 30)) {
        error = flush(table);
        table.count = table.num_rows = table.stage_bytes = 0;
    }
    table.num_rows += (int)rows;
    item.row_end = table.num_rows;
    table.items[table.count++] = item;
    if (stage_bytes > table.stage_bytes) table.stage_bytes = (int)stage_bytes;
    return error;
}

}  // namespace mclr
