// n = x / (1e-4 + rms over channels), and mp_silu of it (EDM2, eq. 47 and 81).

#include <algorithm>
#include <cmath>
#include <vector>

#include "dtype.h"
#include "functions.h"
#include "host_device.h"
#include "mclr_fast.h"
#include "parallel.h"
#include "rows.h"

namespace {
using namespace mclr;

constexpr int64_t kBlock = 1024;  // elements handled at a time; all buffers stay in the first cache

struct Job {
    int64_t pixels, channels;

    int64_t block = std::max(kBlock / channels, int64_t{1});  // pixels
    int64_t blocks = (pixels + block - 1) / block;

    std::vector<float> buffer() const { return std::vector<float>(block * channels + kWidth); }

    // body(begin, end) on each thread's blocks.
    template <class Body>
    void for_blocks(Body body) const {
        parallel_for(blocks, std::min(block, pixels) * channels, body);
    }
};

template <class T>
void forward(const Job& job, const T* x, T* n, T* y) {
    job.for_blocks([&](int64_t first, int64_t last) {
        std::vector<float> value = job.buffer(), scale = job.buffer(), scales(job.block);
        for (int64_t item = first; item < last; ++item) {
            int64_t rows = std::min(job.block, job.pixels - item * job.block);
            int64_t at = item * job.block * job.channels, count = rows * job.channels;
            for_vectors(count, [&](int64_t i, auto part) { store(value.data() + i, load(x + at + i, part), All{}); });
            row_dots(value.data(), value.data(), scales.data(), rows, job.channels);
            for (int64_t r = 0; r < rows; ++r) scales[r] = 1 / (kEps + std::sqrt(scales[r] / job.channels));
            spread(scales.data(), scale.data(), rows, job.channels);
            for_vectors(count, [&](int64_t i, auto part) {
                Vector normalized = load(value.data() + i, All{}) * load(scale.data() + i, All{});
                store(n + at + i, normalized, part);
                store(y + at + i, mp_silu<T>(normalized), part);
            });
        }
    });
}

// grad_x = g / s - x sum(g x) / (s^2 C rms), s = 1e-4 + rms, g = grad_n + grad_y mp_silu'(n).
template <class T>
void backward(const Job& job, const T* grad_n, const T* grad_y, const T* x, T* grad_x) {
    job.for_blocks([&](int64_t first, int64_t last) {
        std::vector<float> value = job.buffer(), scale = job.buffer(), grad = job.buffer(), along = job.buffer();
        std::vector<float> rms(job.block), scales(job.block), dots(job.block);
        for (int64_t item = first; item < last; ++item) {
            int64_t rows = std::min(job.block, job.pixels - item * job.block);
            int64_t at = item * job.block * job.channels, count = rows * job.channels;
            for_vectors(count, [&](int64_t i, auto part) { store(value.data() + i, load(x + at + i, part), All{}); });
            row_dots(value.data(), value.data(), rms.data(), rows, job.channels);
            for (int64_t r = 0; r < rows; ++r) {
                rms[r] = std::sqrt(rms[r] / job.channels);
                scales[r] = 1 / (kEps + rms[r]);
            }
            spread(scales.data(), scale.data(), rows, job.channels);
            for_vectors(count, [&](int64_t i, auto part) {
                Vector slope = mp_silu_slope<T>(load(value.data() + i, All{}) * load(scale.data() + i, All{}));
                Vector g = load(grad_n + at + i, part) + load(grad_y + at + i, part) * slope;
                store(grad.data() + i, g, All{});
            });
            row_dots(grad.data(), value.data(), dots.data(), rows, job.channels);
            for (int64_t r = 0; r < rows; ++r)
                dots[r] = rms[r] > 0 ? dots[r] * scales[r] * scales[r] / (job.channels * rms[r]) : 0;
            spread(dots.data(), along.data(), rows, job.channels);
            for_vectors(count, [&](int64_t i, auto part) {
                Vector g = load(grad.data() + i, All{}) * load(scale.data() + i, All{});
                store(grad_x + at + i, g - load(value.data() + i, All{}) * load(along.data() + i, All{}), part);
            });
        }
    });
}

}  // namespace

void mclr_pixel_norm_silu_forward(int64_t dtype, const void* x, void* n, void* y, int64_t pixels, int64_t channels) {
    Job job{pixels, channels};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        forward(job, static_cast<const T*>(x), static_cast<T*>(n), static_cast<T*>(y));
    });
}

void mclr_pixel_norm_silu_backward(int64_t dtype, const void* grad_n, const void* grad_y, const void* x, void* grad_x,
                                   int64_t pixels, int64_t channels) {
    Job job{pixels, channels};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        backward(job, static_cast<const T*>(grad_n), static_cast<const T*>(grad_y), static_cast<const T*>(x),
                 static_cast<T*>(grad_x));
    });
}
