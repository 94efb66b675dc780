// adam_norm_ema_ of many tensors: a few launches for all of them, each state read and written once.
//
// A normalised row's new numbers stay in shared memory between the update and the division by their norm.

#include "adam_norm_ema_.h"

#include "../common/cuda_block.h"
#include "../weight_norm_scale/weight_norm_scale.h"

namespace mclr {
namespace {

struct AdamItem {
    float* param;
    const float* grad;
    float* exp_avg;
    float* exp_avg_sq;
    float* average[2];
    int64_t size;  // numbers in all; only the last row of a parameter that is not normalised may be short
    int row_end, row_size;
};

using AdamTable = Table<AdamItem, 56>;

// Blocks at once on a multiprocessor, which bounds the registers: few, for a thread has up to six loads under way.
template <Rows ROWS>
constexpr int kMinBlocks = kBlockThreads<ROWS> == 256 ? 3 : 2;

constexpr int kPiece = 4096;  // a "row" of a parameter that is not normalised

// Rows::kUnstaged with NORMALIZED writes the parameter twice.
template <Rows ROWS, bool NORMALIZED, int AVERAGES>
__global__ void __launch_bounds__(kBlockThreads<ROWS>, kMinBlocks<ROWS>)
    adam_kernel(const __grid_constant__ AdamTable table, const __grid_constant__ AdamStep step) {
    constexpr int kThreads = kRowThreads<ROWS>;
    constexpr bool kStaged = NORMALIZED && ROWS != Rows::kUnstaged;
    int row = blockIdx.x * kRowsPerBlock<ROWS> + threadIdx.x / kThreads;
    if (row >= table.num_rows) return;
    float* stage = reinterpret_cast<float*>(dynamic_shared() + threadIdx.x / kThreads * table.stage_bytes);
    const AdamItem& item = find_row(table, row);
    const int64_t offset = (int64_t)row * item.row_size;
    const int size = item.size - offset < item.row_size ? (int)(item.size - offset) : item.row_size;
    float* const param = item.param + offset;
    const float* const grad = item.grad + offset;
    float* const exp_avg = item.exp_avg + offset;
    float* const exp_avg_sq = item.exp_avg_sq + offset;
    float* average[AVERAGES + 1];
    bool aligned = aligned16(param) && aligned16(grad) && aligned16(exp_avg) && aligned16(exp_avg_sq);
#pragma unroll
    for (int k = 0; k < AVERAGES; ++k) {
        average[k] = item.average[k] + offset;
        aligned = aligned && aligned16(average[k]);
    }

    float sum = 0.0f;
    const int first = aligned ? size & ~3 : 0;
    for (int i = 4 * Group<kThreads>::thread(); i < first; i += 4 * kThreads) {
        Pack<float> p = load16(param + i), m = load16(exp_avg + i), v = load16(exp_avg_sq + i);
        const Pack<float> g = load16(grad + i);
        Pack<float> kept[AVERAGES + 1];
#pragma unroll
        for (int k = 0; k < AVERAGES; ++k) kept[k] = load16(average[k] + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            p.values[j] = adam_element(step, p.values[j], g.values[j], m.values[j], v.values[j]);
            sum += p.values[j] * p.values[j];
#pragma unroll
            for (int k = 0; k < AVERAGES; ++k) {
                kept[k].values[j] = lerp(kept[k].values[j], p.values[j], step.average_weight[k]);
            }
        }
        store16(exp_avg + i, m);
        store16(exp_avg_sq + i, v);
#pragma unroll
        for (int k = 0; k < AVERAGES; ++k) store16(average[k] + i, kept[k]);
        if (kStaged) {
            write_pack(stage + i, p);
        } else {
            store16(param + i, p);
        }
    }
    for (int i = first + Group<kThreads>::thread(); i < size; i += kThreads) {
        float m = load(exp_avg + i), v = load(exp_avg_sq + i);
        const float p = adam_element(step, load(param + i), load(grad + i), m, v);
        sum += p * p;
        store(exp_avg + i, m);
        store(exp_avg_sq + i, v);
#pragma unroll
        for (int k = 0; k < AVERAGES; ++k) {
            store(average[k] + i, lerp(load(average[k] + i), p, step.average_weight[k]));
        }
        if (kStaged) {
            stage[i] = p;
        } else {
            store(param + i, p);
        }
    }
    if (!NORMALIZED) return;

    // Every thread reads back what it wrote itself, so that the sum needs no barrier for them.
    const float scale = 1.0f / row_norm(Group<kThreads>::sum(sum), size);
    for (int i = 4 * Group<kThreads>::thread(); i < first; i += 4 * kThreads) {
        Pack<float> p = kStaged ? read_pack(stage + i) : load16(param + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) p.values[j] *= scale;
        store16(param + i, p);
    }
    for (int i = first + Group<kThreads>::thread(); i < size; i += kThreads) {
        store(param + i, (kStaged ? stage[i] : load(param + i)) * scale);
    }
}

template <Rows ROWS, bool NORMALIZED, int AVERAGES>
cudaError_t launch_rows(const AdamTable& table, const AdamStep& step, void* stream) {
    const int blocks = (table.num_rows + kRowsPerBlock<ROWS> - 1) / kRowsPerBlock<ROWS>;
    const int shared = NORMALIZED && ROWS != Rows::kUnstaged ? table.stage_bytes * kRowsPerBlock<ROWS> : 0;
    return launch(adam_kernel<ROWS, NORMALIZED, AVERAGES>, blocks, kBlockThreads<ROWS>, shared, stream, table, step);
}

// All parameters with AVERAGES averages, a table at a time for each class of row sizes.
template <int AVERAGES>
cudaError_t launch_all(const mclr_parameter* parameters, int64_t count, const AdamStep& step, int64_t limit,
                       void* stream) {
    constexpr int kNotNormalized = kNumClasses;
    for (int row_class_now = 0; row_class_now <= kNotNormalized; ++row_class_now) {
        AdamTable table = {};
        const auto flush = [&](const AdamTable& full) {
            switch (row_class_now) {
                case 0:
                    return launch_rows<Rows::kWarp, true, AVERAGES>(full, step, stream);
                case 1:
                case 2:
                    return launch_rows<Rows::kBlock, true, AVERAGES>(full, step, stream);
                case 5:
                    return launch_rows<Rows::kUnstaged, true, AVERAGES>(full, step, stream);
                case kNotNormalized:
                    return launch_rows<Rows::kBlock, false, AVERAGES>(full, step, stream);
                default:
                    return launch_rows<Rows::kLarge, true, AVERAGES>(full, step, stream);
            }
        };
        cudaError_t error = cudaSuccess;
        for (int64_t i = 0; i < count && error == cudaSuccess; ++i) {
            const mclr_parameter& p = parameters[i];
            if ((p.average[0] != nullptr) + (p.average[1] != nullptr) != AVERAGES) continue;
            const int64_t size = p.rows * p.row_size, row_size = p.normalized ? p.row_size : kPiece;
            const int64_t stage_bytes = (4 * row_size + 15) / 16 * 16;
            const int its_class = p.normalized ? row_class(row_size, stage_bytes, limit) : kNotNormalized;
            if (its_class != row_class_now) continue;
            const AdamItem item = {p.param, p.grad, p.exp_avg,    p.exp_avg_sq, {p.average[0], p.average[1]},
                                   size,    0,      (int)row_size};
            error = append(table, item, size ? (size + row_size - 1) / row_size : 0, stage_bytes, flush);
        }
        if (error == cudaSuccess) error = flush(table);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

}  // namespace
}  // namespace mclr

extern "C" int64_t mclr_adam_norm_ema_cuda(const mclr_parameter* parameters, int64_t count, const mclr_adam* adam,
                                           void* stream) {
    using namespace mclr;
    const AdamStep step = adam_step(*adam);
    const int64_t limit = shared_memory_limit();
    if (limit < 0) return -limit;
    cudaError_t error = launch_all<0>(parameters, count, step, limit, stream);
    if (error == cudaSuccess) error = launch_all<1>(parameters, count, step, limit, stream);
    if (error == cudaSuccess) error = launch_all<2>(parameters, count, step, limit, stream);
    return error;
}
