// weight_norm_scale of one row (output channel) of K weights: w / (eps + rms(w)) gain / sqrt(K). EDM2, eq. 47.
#pragma once

#include <math.h>

#include "../common/host_device.h"

namespace mclr {

// eps + rms of a row, from the sum of its squares.
MCLR_HD float row_norm(float sum_of_squares, float row_size) { return kEps + sqrtf(sum_of_squares / row_size); }

// Forward: out = factor w.
MCLR_HD float weight_factor(float sum_of_squares, float row_size, float gain) {
    return gain / sqrtf(row_size) / row_norm(sum_of_squares, row_size);
}

// Backward, G = gradient of the row's result, dot = sum(G w): grad_weight = of_grad G - of_weight w, and the
// row's share of the gain's gradient.
struct WeightGradient {
    float of_grad, of_weight, grad_gain;
};

MCLR_HD WeightGradient weight_gradient(float sum_of_squares, float dot, float row_size, float gain) {
    const float rms = sqrtf(sum_of_squares / row_size);
    const float per_norm = 1.0f / (sqrtf(row_size) * (kEps + rms));
    const float of_grad = gain * per_norm;
    // The norm has no gradient where the row is zero, as torch's.
    const float of_weight = rms > 0.0f ? of_grad * dot / ((kEps + rms) * row_size * rms) : 0.0f;
    return {of_grad, of_weight, dot * per_norm};
}

}  // namespace mclr
