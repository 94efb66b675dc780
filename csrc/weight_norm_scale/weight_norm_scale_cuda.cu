// weight_norm_scale of many tensors: a few launches for all of them, each weight read once.
//
// A row [in_channels, taps] is kept in shared memory between the sum of its squares and the transposed result
// [taps, in_channels].

#include "weight_norm_scale.h"

#include "../common/cuda_block.h"
#include "mclr_fast.h"

namespace mclr {
namespace {

struct WeightItem {
    const float* weight;
    const float* gain;
    void* values;  // forward: out; backward: grad_out
    float* grad_weight;
    float* gain_sums;  // backward: one number a row, or NULL
    int row_end, in_channels, taps;
};

using WeightTable = Table<WeightItem, 64>;

// Shared memory holds a row with four numbers of padding after every 32: reads at a stride of 8 taps (eight
// channels a thread) then meet different banks.
__host__ __device__ __forceinline__ int padded(int index) { return index + (index >> 5 << 2); }

__host__ __device__ __forceinline__ int64_t weight_bytes(int64_t row_size) {
    return 4 * (row_size + row_size / 32 * 4 + 4);
}

// A row in shared memory, or where it does not fit in global memory.
template <bool STAGED>
struct WeightRow {
    const float* weight;
    float* stage;

    __device__ __forceinline__ float at(int index) const {
        return STAGED ? stage[padded(index)] : load(weight + index);
    }

    __device__ __forceinline__ Pack<float> pack_at(int index) const {
        return STAGED ? read_pack(stage + padded(index)) : load16(weight + index);
    }

    // Reads the row; the sum of squares of what this thread has read.
    template <int THREADS>
    __device__ __forceinline__ float read(int size) const {
        float sum = 0.0f;
        int first = 0;
        if (aligned16(weight)) {
            first = size & ~3;
#pragma unroll 4
            for (int i = 4 * Group<THREADS>::thread(); i < first; i += 4 * THREADS) {
                const Pack<float> pack = load16(weight + i);
                if (STAGED) write_pack(stage + padded(i), pack);
                for (int j = 0; j < 4; ++j) sum += pack.values[j] * pack.values[j];
            }
        }
        for (int i = first + Group<THREADS>::thread(); i < size; i += THREADS) {
            const float value = load(weight + i);
            if (STAGED) stage[padded(i)] = value;
            sum += value * value;
        }
        return sum;
    }
};

template <Rows ROWS, typename T>
__global__ void __launch_bounds__(kBlockThreads<ROWS>, 3) forward_kernel(const __grid_constant__ WeightTable table) {
    constexpr int kThreads = kRowThreads<ROWS>;
    int row = blockIdx.x * kRowsPerBlock<ROWS> + threadIdx.x / kThreads;
    if (row >= table.num_rows) return;
    char* stage = dynamic_shared() + threadIdx.x / kThreads * table.stage_bytes;
    const WeightItem& item = find_row(table, row);
    const int in_channels = item.in_channels, taps = item.taps, size = in_channels * taps;
    const WeightRow<ROWS != Rows::kUnstaged> weight = {item.weight + (int64_t)row * size,
                                                       reinterpret_cast<float*>(stage)};
    const float sum = Group<kThreads>::sum(weight.template read<kThreads>(size));
    const float factor = weight_factor(sum, size, item.gain ? load(item.gain) : 1.0f);

    T* out = static_cast<T*>(item.values) + (int64_t)row * size;
    if (in_channels % kWidth<T> == 0 && aligned16(out)) {
        const unsigned packs = in_channels / kWidth<T>;  // a tap
        for (unsigned i = Group<kThreads>::thread(); i < packs * taps; i += kThreads) {
            const unsigned tap = i / packs, channel = (i - tap * packs) * kWidth<T>;
            Pack<T> pack;
            for (int j = 0; j < kWidth<T>; ++j) {
                pack.values[j] = from_float<T>(factor * weight.at((channel + j) * taps + tap));
            }
            store16(out + i * kWidth<T>, pack);
        }
    } else {
        for (unsigned i = Group<kThreads>::thread(); i < (unsigned)size; i += kThreads) {
            const unsigned tap = i / in_channels, channel = i - tap * in_channels;
            store(out + i, factor * weight.at(channel * taps + tap));
        }
    }
}

// The row's gradient [taps, in_channels], in shared memory as in global memory but for 16 bytes of padding
// after each tap.
template <bool STAGED, typename T>
struct GradRow {
    const T* grad;
    T* stage;
    int in_channels, taps;

    __device__ __forceinline__ float at(int channel, int tap) const {
        return STAGED ? to_float(stage[tap * (in_channels + kWidth<T>)+channel])
                      : load(grad + tap * in_channels + channel);
    }

    // Reads the row; this thread's part of sum(grad weight).
    template <int THREADS>
    __device__ __forceinline__ float read(const WeightRow<STAGED>& weight) const {
        float dot = 0.0f;
        if (in_channels % kWidth<T> == 0 && aligned16(grad)) {
            const unsigned packs = in_channels / kWidth<T>;
#pragma unroll 2
            for (unsigned i = Group<THREADS>::thread(); i < packs * taps; i += THREADS) {
                const unsigned tap = i / packs, channel = (i - tap * packs) * kWidth<T>;
                const Pack<T> pack = load16(grad + i * kWidth<T>);
                if (STAGED) write_pack(stage + tap * (in_channels + kWidth<T>)+channel, pack);
                for (int j = 0; j < kWidth<T>; ++j) {
                    dot += to_float(pack.values[j]) * weight.at((channel + j) * taps + tap);
                }
            }
        } else {
            const unsigned size = in_channels * taps;
            for (unsigned i = Group<THREADS>::thread(); i < size; i += THREADS) {
                const unsigned tap = i / in_channels, channel = i - tap * in_channels;
                const float value = load(grad + i);
                if (STAGED) stage[tap * (in_channels + kWidth<T>)+channel] = from_float<T>(value);
                dot += value * weight.at(channel * taps + tap);
            }
        }
        return dot;
    }
};

template <Rows ROWS, typename T>
__global__ void __launch_bounds__(kBlockThreads<ROWS>, 3) backward_kernel(const __grid_constant__ WeightTable table) {
    constexpr int kThreads = kRowThreads<ROWS>;
    constexpr bool kStaged = ROWS != Rows::kUnstaged;
    int row = blockIdx.x * kRowsPerBlock<ROWS> + threadIdx.x / kThreads;
    if (row >= table.num_rows) return;
    char* stage = dynamic_shared() + threadIdx.x / kThreads * table.stage_bytes;
    const WeightItem& item = find_row(table, row);
    const int taps = item.taps, size = item.in_channels * taps;
    const int64_t offset = (int64_t)row * size;
    const WeightRow<kStaged> weight = {item.weight + offset, reinterpret_cast<float*>(stage)};
    const GradRow<kStaged, T> grad = {static_cast<const T*>(item.values) + offset,
                                      reinterpret_cast<T*>(stage + weight_bytes(size) / 16 * 16), item.in_channels,
                                      taps};

    const float sum = Group<kThreads>::sum(weight.template read<kThreads>(size));
    const float dot = Group<kThreads>::sum(grad.template read<kThreads>(weight));
    const WeightGradient gradient = weight_gradient(sum, dot, size, item.gain ? load(item.gain) : 1.0f);
    if (item.gain_sums && Group<kThreads>::thread() == 0) store(item.gain_sums + row, gradient.grad_gain);

    float* grad_weight = item.grad_weight + offset;
    int first = 0;
    if (aligned16(grad_weight) && aligned16(weight.weight)) {
        first = size & ~3;
        for (int i = 4 * Group<kThreads>::thread(); i < first; i += 4 * kThreads) {
            Pack<float> pack = weight.pack_at(i);
            int channel = (unsigned)i / (unsigned)taps, tap = i - channel * taps;
            for (int j = 0; j < 4; ++j) {
                pack.values[j] = gradient.of_grad * grad.at(channel, tap) - gradient.of_weight * pack.values[j];
                if (++tap == taps) {
                    tap = 0;
                    ++channel;
                }
            }
            store16(grad_weight + i, pack);
        }
    }
    for (int i = first + Group<kThreads>::thread(); i < size; i += kThreads) {
        const int channel = (unsigned)i / (unsigned)taps, tap = i - channel * taps;
        store(grad_weight + i, gradient.of_grad * grad.at(channel, tap) - gradient.of_weight * weight.at(i));
    }
}

struct GainItem {
    const float* gain_sums;
    float* grad_gain;
    int row_end, num_sums;  // row_end: of find_row, one row an item
};

using GainTable = Table<GainItem, 128>;

// grad_gain = sum over a tensor's rows, one block a tensor: no atomics, so always the same number.
__global__ void __launch_bounds__(256) gain_kernel(const __grid_constant__ GainTable table) {
    const GainItem& item = table.items[blockIdx.x];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < item.num_sums; i += 256) sum += load(item.gain_sums + i);
    sum = Group<256>::sum(sum);
    if (threadIdx.x == 0) store(item.grad_gain, sum);
}

template <Rows ROWS, bool BACKWARD, typename T>
cudaError_t launch_rows(const WeightTable& table, void* stream) {
    const int blocks = (table.num_rows + kRowsPerBlock<ROWS> - 1) / kRowsPerBlock<ROWS>;
    const int shared = ROWS == Rows::kUnstaged ? 0 : table.stage_bytes * kRowsPerBlock<ROWS>;
    return launch(BACKWARD ? backward_kernel<ROWS, T> : forward_kernel<ROWS, T>, blocks, kBlockThreads<ROWS>, shared,
                  stream, table);
}

// All tensors of one dtype, a table at a time for each class of row sizes.
template <bool BACKWARD, typename T>
cudaError_t launch_all(const mclr_weight* weights, int64_t count, int64_t dtype, float* workspace, int64_t limit,
                       void* stream) {
    for (int row_class_now = 0; row_class_now < kNumClasses; ++row_class_now) {
        WeightTable table = {};
        const auto flush = [&](const WeightTable& full) {
            switch (row_class_now) {
                case 0:
                    return launch_rows<Rows::kWarp, BACKWARD, T>(full, stream);
                case 1:
                case 2:
                    return launch_rows<Rows::kBlock, BACKWARD, T>(full, stream);
                case 5:
                    return launch_rows<Rows::kUnstaged, BACKWARD, T>(full, stream);
                default:
                    return launch_rows<Rows::kLarge, BACKWARD, T>(full, stream);
            }
        };
        cudaError_t error = cudaSuccess;
        float* gain_sums = workspace;
        for (int64_t i = 0; i < count && error == cudaSuccess; ++i) {
            const mclr_weight& weight = weights[i];
            const int64_t row_size = weight.in_channels * weight.taps;
            WeightItem item = {weight.weight,           weight.gain,     weight.out, nullptr, nullptr, 0,
                               (int)weight.in_channels, (int)weight.taps};
            int64_t stage_bytes = weight_bytes(row_size);
            if (BACKWARD) {
                item.values = const_cast<void*>(weight.grad_out);
                item.grad_weight = weight.grad_weight;
                item.gain_sums = weight.grad_gain ? gain_sums : nullptr;
                if (weight.grad_gain) gain_sums += weight.rows;
                stage_bytes += weight.taps * (weight.in_channels + kWidth<T>)*sizeof(T) + 16;
            }
            stage_bytes = (stage_bytes + 15) / 16 * 16;
            if (weight.dtype != dtype || row_class(row_size, stage_bytes, limit) != row_class_now) continue;
            error = append(table, item, row_size ? weight.rows : 0, stage_bytes, flush);
        }
        if (error == cudaSuccess) error = flush(table);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

template <bool BACKWARD>
cudaError_t launch_dtypes(const mclr_weight* weights, int64_t count, float* workspace, void* stream) {
    const int64_t limit = shared_memory_limit();
    if (limit < 0) return (cudaError_t)-limit;
    cudaError_t error = launch_all<BACKWARD, float>(weights, count, MCLR_FLOAT32, workspace, limit, stream);
    if (error == cudaSuccess) {
        error = launch_all<BACKWARD, __nv_bfloat16>(weights, count, MCLR_BFLOAT16, workspace, limit, stream);
    }
    if (error == cudaSuccess) {
        error = launch_all<BACKWARD, __half>(weights, count, MCLR_FLOAT16, workspace, limit, stream);
    }
    return error;
}

}  // namespace
}  // namespace mclr

extern "C" int64_t mclr_weight_norm_scale_forward_cuda(const mclr_weight* weights, int64_t count, void* stream) {
    return mclr::launch_dtypes<false>(weights, count, nullptr, stream);
}

extern "C" int64_t mclr_weight_norm_scale_backward_cuda(const mclr_weight* weights, int64_t count, float* workspace,
                                                        void* stream) {
    using namespace mclr;
    cudaError_t error = launch_dtypes<true>(weights, count, workspace, stream);
    GainTable table = {};
    const auto flush = [&](const GainTable& full) { return launch(gain_kernel, full.count, 256, 0, stream, full); };
    for (int64_t i = 0; i < count && error == cudaSuccess; ++i) {
        if (!weights[i].grad_gain) continue;
        const int num_sums = weights[i].in_channels * weights[i].taps > 0 ? (int)weights[i].rows : 0;
        error = append(table, GainItem{workspace, weights[i].grad_gain, 0, num_sums}, 1, 0, flush);
        workspace += weights[i].rows;
    }
    return error == cudaSuccess ? flush(table) : error;
}
