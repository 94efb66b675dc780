// out = x + gate y: a branch's way back into the residual stream (DiT, arXiv 2212.09748, section 3.2).

#include "dtype.h"
#include "image_rows.h"
#include "mclr_fast.h"

namespace {
using namespace mclr;

template <class T>
void forward(const ImageRows& job, const float* x, const T* y, const float* gate, float* out) {
    bool large = leaves_caches<float>(job.numel());
    job.for_chunks([&](int64_t image, int64_t first, int64_t last, int64_t) {
        const float* factor = gate + image * job.channels;
        for (int64_t row = first; row < last; ++row) {
            int64_t at = row * job.channels;
            with_streaming(large && streamable(out + at), [&](auto whole) {
                for_registers(job.channels, whole, [&](int64_t i, auto part) {
                    store(out + at + i, load(x + at + i, part) + load(factor + i, part) * load(y + at + i, part), part);
                });
            });
        }
    });
}

template <class T>
void backward(const ImageRows& job, const float* grad, const T* y, const float* gate, T* grad_y, float* grad_gate) {
    std::vector<float> sums = job.sums(1);
    bool large = leaves_caches<T>(job.numel());
    job.for_chunks([&](int64_t image, int64_t first, int64_t last, int64_t item) {
        const float* factor = gate + image * job.channels;
        float* sum = sums.data() + item * job.stride;
        for (int64_t row = first; row < last; ++row) {
            int64_t at = row * job.channels;
            with_streaming(large && streamable(grad_y + at), [&](auto whole) {
                for_registers(job.channels, whole, [&](int64_t i, auto part) {
                    Vector g = load(grad + at + i, part);
                    store(sum + i, load(sum + i, All{}) + g * load(y + at + i, part), All{});
                    store(grad_y + at + i, g * load(factor + i, part), part);
                });
            });
        }
    });
    job.add_up(sums, 1, 0, grad_gate);
}

}  // namespace

void mclr_gated_add_forward(int64_t dtype, const float* x, const void* y, const float* gate, float* out,
                            int64_t images, int64_t rows, int64_t channels) {
    ImageRows job{images, rows, channels};
    with_dtype(dtype, [&](auto type) { forward(job, x, static_cast<const decltype(type)*>(y), gate, out); });
}

void mclr_gated_add_backward(int64_t dtype, const float* grad, const void* y, const float* gate, void* grad_y,
                             float* grad_gate, int64_t images, int64_t rows, int64_t channels) {
    ImageRows job{images, rows, channels};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        backward(job, grad, static_cast<const T*>(y), gate, static_cast<T*>(grad_y), grad_gate);
    });
}
