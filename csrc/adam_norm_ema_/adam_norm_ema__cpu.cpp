// Adam, the averages of its result, then forced weight normalisation (EDM2, eq. 66), over all parameters.

#include "adam_norm_ema_.h"

#include "../weight_norm_scale/weight_norm_scale.h"
#include "mclr_fast.h"
#include "tensor_rows.h"

namespace {
using namespace mclr;

void update_row(const mclr_parameter& p, int64_t row, const AdamStep& step) {
    int64_t size = p.row_size, at = row * size;
    float* __restrict param = p.param + at;
    const float* __restrict grad = p.grad + at;
    float* __restrict exp_avg = p.exp_avg + at;
    float* __restrict exp_avg_sq = p.exp_avg_sq + at;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; ++i) {
        float value = adam_element(step, param[i], grad[i], exp_avg[i], exp_avg_sq[i]);
        param[i] = value;
        squares += value * value;
    }
    for (int k = 0; k < 2; ++k) {
        if (!p.average[k]) continue;
        float* __restrict average = p.average[k] + at;
        float weight = step.average_weight[k];
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) average[i] = lerp(average[i], param[i], weight);
    }
    if (!p.normalized) return;
    float factor = 1 / row_norm(squares, static_cast<float>(size));
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) param[i] *= factor;
}

}  // namespace

void mclr_adam_norm_ema(const mclr_parameter* parameters, int64_t count, const mclr_adam* adam) {
    AdamStep step = adam_step(*adam);
    for_tensor_rows(
        count, [&](int64_t i) { return parameters[i].rows; }, [&](int64_t i) { return parameters[i].row_size; },
        [&](int64_t i, int64_t row) { update_row(parameters[i], row, step); });
}
