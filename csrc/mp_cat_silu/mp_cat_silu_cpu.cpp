// cat = (scale_a a, scale_b b) along channels, and mp_silu of it (EDM2, eq. 103 and 81).

#include <algorithm>
#include <vector>

#include "dtype.h"
#include "functions.h"
#include "mclr_fast.h"
#include "parallel.h"
#include "rows.h"

namespace {
using namespace mclr;

constexpr int64_t kBlock = 1024;  // elements of the result handled at a time; all buffers stay in the first cache

struct Job {
    int64_t images, columns, pixels, channels_a, channels_b, a_shared, b_shared;
    float scale_a, scale_b;

    int64_t channels = channels_a + channels_b;
    int64_t block = std::max(kBlock / channels, int64_t{1});  // pixels
    int64_t blocks = (pixels + block - 1) / block;

    std::vector<float> buffer(int64_t width) const { return std::vector<float>(block * width + kWidth); }

    // body(begin, end) on each thread's blocks of all images.
    template <class Body>
    void for_blocks(Body body) const {
        parallel_for(images * blocks, std::min(block, pixels) * channels * columns, body);
    }

    // Where block `item` lies: its image, first pixel and number of pixels.
    struct Place {
        int64_t image, pixel, count;
    };
    Place place(int64_t item) const {
        int64_t pixel = item % blocks * block;
        return {item / blocks, pixel, std::min(block, pixels - pixel)};
    }
};

template <class T>
void read_scaled(const T* from, float scale, float* to, int64_t count) {
    for_vectors(count, [&](int64_t i, auto part) { store(to + i, load(from + i, part) * scale, All{}); });
}

template <class T>
void write_scaled(const float* from, float scale, T* to, int64_t count) {
    for_vectors(count, [&](int64_t i, auto part) { store(to + i, load(from + i, All{}) * scale, part); });
}

// rows[p] = a[p], b[p] of every pixel p.
void concatenate(const Job& job, const float* a, const float* b, float* rows, int64_t count) {
    for (int64_t p = 0; p < count; ++p) {
        copy_rows(a + p * job.channels_a, 0, rows + p * job.channels, 0, 1, job.channels_a);
        copy_rows(b + p * job.channels_b, 0, rows + p * job.channels + job.channels_a, 0, 1, job.channels_b);
    }
}

template <class T>
void forward(const Job& job, const T* a, const T* b, T* cat, T* y) {
    job.for_blocks([&](int64_t first, int64_t last) {
        std::vector<float> rows_a = job.buffer(job.channels_a), rows_b = job.buffer(job.channels_b);
        std::vector<float> rows = job.buffer(job.channels);
        for (int64_t item = first; item < last; ++item) {
            auto [image, pixel, count] = job.place(item);
            for (int64_t r = 0; r < job.columns; ++r) {
                int64_t evaluation = image * job.columns + r;
                if (r == 0 || !job.a_shared) {
                    int64_t at = (job.a_shared ? image : evaluation) * job.pixels + pixel;
                    read_scaled(a + at * job.channels_a, job.scale_a, rows_a.data(), count * job.channels_a);
                }
                if (r == 0 || !job.b_shared) {
                    int64_t at = (job.b_shared ? image : evaluation) * job.pixels + pixel;
                    read_scaled(b + at * job.channels_b, job.scale_b, rows_b.data(), count * job.channels_b);
                }
                concatenate(job, rows_a.data(), rows_b.data(), rows.data(), count);
                int64_t at = (evaluation * job.pixels + pixel) * job.channels;
                for_vectors(count * job.channels, [&](int64_t i, auto part) {
                    Vector x = load(rows.data() + i, All{});
                    store(cat + at + i, x, part);
                    store(y + at + i, mp_silu<T>(x), part);
                });
            }
        }
    });
}

template <class T>
void backward(const Job& job, const T* grad_cat, const T* grad_y, const T* cat, T* grad_a, T* grad_b) {
    job.for_blocks([&](int64_t first, int64_t last) {
        std::vector<float> rows_a = job.buffer(job.channels_a), rows_b = job.buffer(job.channels_b);
        std::vector<float> rows = job.buffer(job.channels), total = job.buffer(job.channels);
        auto write_a = [&](const std::vector<float>& from, int64_t at, int64_t count) {
            copy_rows(from.data(), job.channels, rows_a.data(), job.channels_a, count, job.channels_a);
            write_scaled(rows_a.data(), job.scale_a, grad_a + at * job.channels_a, count * job.channels_a);
        };
        auto write_b = [&](const std::vector<float>& from, int64_t at, int64_t count) {
            copy_rows(from.data() + job.channels_a, job.channels, rows_b.data(), job.channels_b, count, job.channels_b);
            write_scaled(rows_b.data(), job.scale_b, grad_b + at * job.channels_b, count * job.channels_b);
        };
        for (int64_t item = first; item < last; ++item) {
            auto [image, pixel, count] = job.place(item);
            for (int64_t r = 0; r < job.columns; ++r) {
                int64_t row = (image * job.columns + r) * job.pixels + pixel;
                int64_t at = row * job.channels;
                for_vectors(count * job.channels, [&](int64_t i, auto part) {
                    Vector slope = mp_silu_slope<T>(load(cat + at + i, part));
                    Vector g = load(grad_cat + at + i, part) + load(grad_y + at + i, part) * slope;
                    store(rows.data() + i, g, All{});
                    if (job.columns > 1) store(total.data() + i, r ? load(total.data() + i, All{}) + g : g, All{});
                });
                if (!job.a_shared) write_a(rows, row, count);
                if (!job.b_shared) write_b(rows, row, count);
            }
            if (job.a_shared) write_a(total, image * job.pixels + pixel, count);
            if (job.b_shared) write_b(total, image * job.pixels + pixel, count);
        }
    });
}

}  // namespace

void mclr_mp_cat_silu_forward(int64_t dtype, const void* a, const void* b, void* cat, void* y, int64_t images,
                              int64_t columns, int64_t pixels, int64_t channels_a, int64_t channels_b, int64_t a_shared,
                              int64_t b_shared, float scale_a, float scale_b) {
    Job job{images, columns, pixels, channels_a, channels_b, a_shared, b_shared, scale_a, scale_b};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        forward(job, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(cat), static_cast<T*>(y));
    });
}

void mclr_mp_cat_silu_backward(int64_t dtype, const void* grad_cat, const void* grad_y, const void* cat, void* grad_a,
                               void* grad_b, int64_t images, int64_t columns, int64_t pixels, int64_t channels_a,
                               int64_t channels_b, int64_t a_shared, int64_t b_shared, float scale_a, float scale_b) {
    Job job{images, columns, pixels, channels_a, channels_b, a_shared, b_shared, scale_a, scale_b};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        backward(job, static_cast<const T*>(grad_cat), static_cast<const T*>(grad_y), static_cast<const T*>(cat),
                 static_cast<T*>(grad_a), static_cast<T*>(grad_b));
    });
}
