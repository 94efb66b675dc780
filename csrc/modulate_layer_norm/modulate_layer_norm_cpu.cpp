// out = n (1 + scale) + shift with n = (x - mean) / sqrt(variance + eps) over channels (DiT, arXiv 2212.09748,
// section 3.2, adaLN).

#include <cmath>

#include "dtype.h"
#include "image_rows.h"
#include "mclr_fast.h"
#include "rows.h"

namespace {
using namespace mclr;

// x in the lanes that a row has, 0 in the others.
MCLR_INLINE Vector inside(Vector x, All) { return x; }
MCLR_INLINE Vector inside(Vector x, First part) { return keep_first(x, part.count); }

// Of a row: n = (x - mean) rstd.
struct Norm {
    float mean, rstd;

    Norm(const float* x, int64_t channels, float eps) {
        Vector total = fill(0), squares = fill(0);
        for_vectors(channels, [&](int64_t i, auto part) { total += load(x + i, part); });
        mean = sum(total) / channels;
        for_vectors(channels, [&](int64_t i, auto part) {
            Vector d = inside(load(x + i, part) - mean, part);
            squares += d * d;
        });
        rstd = 1 / std::sqrt(sum(squares) / channels + eps);
    }

    MCLR_INLINE Vector operator()(Vector x) const { return (x - mean) * rstd; }
};

template <class T>
void forward(const ImageRows& job, const float* x, const float* scale, const float* shift, T* out, float eps) {
    bool large = leaves_caches<T>(job.numel());
    job.for_chunks([&](int64_t image, int64_t first, int64_t last, int64_t) {
        const float *factor = scale + image * job.channels, *offset = shift + image * job.channels;
        for (int64_t row = first; row < last; ++row) {
            const float* from = x + row * job.channels;
            T* to = out + row * job.channels;
            const Norm norm(from, job.channels, eps);
            with_streaming(large && streamable(to), [&](auto whole) {
                for_registers(job.channels, whole, [&](int64_t i, auto part) {
                    Vector n = norm(load(from + i, part));
                    store(to + i, n * (1.0f + load(factor + i, part)) + load(offset + i, part), part);
                });
            });
        }
    });
}

// grad_x = rstd (h - mean(h) - n mean(h n)), h = grad (1 + scale); the vectors' gradients are sums over rows.
template <class T>
void backward(const ImageRows& job, const T* grad, const float* x, const float* scale, float* grad_x,
              float* grad_scale, float* grad_shift, float eps) {
    std::vector<float> sums = job.sums(2);
    bool large = leaves_caches<float>(job.numel());
    job.for_chunks([&](int64_t image, int64_t first, int64_t last, int64_t item) {
        const float* factor = scale + image * job.channels;
        float *of_scale = sums.data() + item * 2 * job.stride, *of_shift = of_scale + job.stride;
        for (int64_t row = first; row < last; ++row) {
            const float* from = x + row * job.channels;
            const T* up = grad + row * job.channels;
            float* to = grad_x + row * job.channels;
            const Norm norm(from, job.channels, eps);
            Vector along = fill(0), total = fill(0);
            for_vectors(job.channels, [&](int64_t i, auto part) {
                Vector n = norm(load(from + i, part)), g = load(up + i, part), h = g * (1.0f + load(factor + i, part));
                store(of_scale + i, load(of_scale + i, All{}) + g * n, All{});
                store(of_shift + i, load(of_shift + i, All{}) + g, All{});
                total += h;
                along += h * n;
            });
            const float mean = sum(total) / job.channels, slope = sum(along) / job.channels;
            with_streaming(large && streamable(to), [&](auto whole) {
                for_registers(job.channels, whole, [&](int64_t i, auto part) {
                    Vector h = load(up + i, part) * (1.0f + load(factor + i, part));
                    store(to + i, norm.rstd * (h - mean - norm(load(from + i, part)) * slope), part);
                });
            });
        }
    });
    job.add_up(sums, 2, 0, grad_scale);
    job.add_up(sums, 2, 1, grad_shift);
}

}  // namespace

void mclr_modulate_layer_norm_forward(int64_t dtype, const float* x, const float* scale, const float* shift, void* out,
                                      int64_t images, int64_t rows, int64_t channels, float eps) {
    ImageRows job{images, rows, channels};
    with_dtype(dtype, [&](auto type) { forward(job, x, scale, shift, static_cast<decltype(type)*>(out), eps); });
}

void mclr_modulate_layer_norm_backward(int64_t dtype, const void* grad, const float* x, const float* scale,
                                       float* grad_x, float* grad_scale, float* grad_shift, int64_t images,
                                       int64_t rows, int64_t channels, float eps) {
    ImageRows job{images, rows, channels};
    with_dtype(dtype, [&](auto type) {
        backward(job, static_cast<const decltype(type)*>(grad), x, scale, grad_x, grad_scale, grad_shift, eps);
    });
}
