// Twice the height and width: every pixel four times, or four phases of a convolution's windows joined (EDM2,
// Figure 21); and the other way: sums of four. All times a scale, and channels next to each other.

#include <algorithm>

#include "dtype.h"
#include "mclr_fast.h"
#include "parallel.h"

namespace {
using namespace mclr;

struct Job {
    int64_t images, height, width, channels, phases;  // of the small image; phases: 0 or 1
    float scale;

    // The small image's rows, or the windows', and where a pixel's four values, phases (i, j), lie in them.
    int64_t rows = height + phases, columns = width + phases;
    int64_t stride = phases ? 4 * channels : channels;
    int64_t at(int64_t image, int64_t row, int64_t column, int64_t phase) const {
        return ((image * rows + row) * columns + column) * stride + (phases ? phase * channels : 0);
    }

    int64_t large(int64_t image, int64_t row, int64_t column) const {
        return ((image * 2 * height + row) * 2 * width + column) * channels;
    }

    template <class T>
    void move(const T* from, T* to) const {
        if (scale == 1) {
            std::copy_n(from, channels, to);
            return;
        }
        for_vectors(channels, [&](int64_t c, auto part) { store(to + c, scale * load(from + c, part), part); });
    }
};

template <class T>
void forward(const Job& job, const T* x, T* out) {
    parallel_for(job.images * 2 * job.height, 2 * job.width * job.channels, [&](int64_t first, int64_t last) {
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / (2 * job.height), row = item % (2 * job.height), i = row % 2;
            T* to = out + job.large(image, row, 0);
            for (int64_t column = 0; column < 2 * job.width; ++column, to += job.channels) {
                int64_t j = column % 2;
                int64_t from = job.at(image, row / 2 + i * job.phases, column / 2 + j * job.phases, 2 * i + j);
                job.move(x + from, to);
            }
        }
    });
}

// The windows' gradient: what joined them, and zeros in the phases that no pixel reads.
template <class T>
void backward_phases(const Job& job, const T* grad, T* grad_x) {
    parallel_for(job.images * job.rows, job.columns * job.stride, [&](int64_t first, int64_t last) {
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / job.rows, row = item % job.rows;
            for (int64_t column = 0; column < job.columns; ++column)
                for (int64_t phase = 0; phase < 4; ++phase) {
                    int64_t h = row - phase / 2, w = column - phase % 2;
                    T* to = grad_x + job.at(image, row, column, phase);
                    if (h >= 0 && h < job.height && w >= 0 && w < job.width)
                        job.move(grad + job.large(image, 2 * h + phase / 2, 2 * w + phase % 2), to);
                    else
                        std::fill_n(to, job.channels, T{});
                }
        }
    });
}

template <class T>
void backward_pixels(const Job& job, const T* grad, T* grad_x) {
    parallel_for(job.images * job.height, 4 * job.width * job.channels, [&](int64_t first, int64_t last) {
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / job.height, row = item % job.height;
            for (int64_t column = 0; column < job.width; ++column) {
                const T* upper = grad + job.large(image, 2 * row, 2 * column);
                const T* lower = grad + job.large(image, 2 * row + 1, 2 * column);
                T* to = grad_x + job.at(image, row, column, 0);
                for_vectors(job.channels, [&](int64_t c, auto part) {
                    Vector left = load(upper + c, part) + load(lower + c, part);
                    Vector right = load(upper + job.channels + c, part) + load(lower + job.channels + c, part);
                    store(to + c, job.scale * (left + right), part);
                });
            }
        }
    });
}

}  // namespace

void mclr_double_pixels_forward(int64_t dtype, const void* x, void* out, int64_t images, int64_t height, int64_t width,
                                int64_t channels, int64_t phases, float scale) {
    Job job{images, height, width, channels, phases, scale};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        forward(job, static_cast<const T*>(x), static_cast<T*>(out));
    });
}

void mclr_double_pixels_backward(int64_t dtype, const void* grad, void* grad_x, int64_t images, int64_t height,
                                 int64_t width, int64_t channels, int64_t phases, float scale) {
    Job job{images, height, width, channels, phases, scale};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        auto body = phases ? backward_phases<T> : backward_pixels<T>;
        body(job, static_cast<const T*>(grad), static_cast<T*>(grad_x));
    });
}
