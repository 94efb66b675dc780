// One element of adam_norm_ema_: Adam (Kingma & Ba 2015, Algorithm 1), then the averages of its result. The
// normalisation that follows (EDM2, eq. 66) divides by mclr::row_norm of ../weight_norm_scale/weight_norm_scale.h.
#pragma once

#include <math.h>

#include "../common/host_device.h"
#include "mclr_fast.h"

namespace mclr {

// The numbers of one step as the elements need them: 1 - beta is taken before it is rounded to float32.
struct AdamStep {
    float grad_weight, beta2, square_weight, root_scale, eps, step_size, average_weight[2];
};

inline AdamStep adam_step(const mclr_adam& adam) {
    AdamStep step;
    step.grad_weight = (float)(1.0 - (double)adam.beta1);
    step.beta2 = (float)adam.beta2;
    step.square_weight = (float)(1.0 - (double)adam.beta2);
    step.root_scale = (float)(1.0 / (double)adam.bias2_sqrt);
    step.eps = (float)adam.eps;
    step.step_size = (float)((double)adam.lr / (double)adam.bias1);
    for (int i = 0; i < 2; ++i) step.average_weight[i] = (float)(1.0 - (double)adam.average_beta[i]);
    return step;
}

// On the GPU to 2 units in the last place: the exact forms call subroutines there, which costs the registers of
// a whole row's loads.
MCLR_HD float adam_sqrt(float x) {
#ifdef __CUDA_ARCH__
    float root;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
#else
    return sqrtf(x);
#endif
}

MCLR_HD float adam_divide(float x, float y) {
#ifdef __CUDA_ARCH__
    return __fdividef(x, y);
#else
    return x / y;
#endif
}

// a + weight (b - a); exactly b for weight 1, as torch.lerp.
MCLR_HD float lerp(float a, float b, float weight) {
    return weight < 0.5f ? a + weight * (b - a) : b - (b - a) * (1.0f - weight);
}

// Updates both moments; returns the new parameter.
MCLR_HD float adam_element(const AdamStep& step, float param, float grad, float& exp_avg, float& exp_avg_sq) {
    exp_avg = lerp(exp_avg, grad, step.grad_weight);
    exp_avg_sq = step.beta2 * exp_avg_sq + step.square_weight * (grad * grad);
    const float denominator = adam_sqrt(exp_avg_sq) * step.root_scale + step.eps;
    return param - step.step_size * adam_divide(exp_avg, denominator);
}

}  // namespace mclr
