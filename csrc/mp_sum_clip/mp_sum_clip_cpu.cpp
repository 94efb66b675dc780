// out = clamp(weight_a a + weight_b b, -clip, clip), and mp_silu of it where the next block wants that
// (EDM2, eq. 88 and Figure 21).

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "dtype.h"
#include "functions.h"
#include "mclr_fast.h"
#include "parallel.h"

namespace {
using namespace mclr;

constexpr int64_t kChunk = 4096;  // elements of an image handled at a time; they stay in the first cache

struct Job {
    int64_t images, columns, size;
    bool a_shared, b_shared;
    float weight_a, weight_b, clip;
    int64_t chunks;

    Job(int64_t num_images, int64_t num_columns, int64_t image_size, int64_t shared_a, int64_t shared_b, float wa,
        float wb, float limit)
        : images(num_images),
          columns(num_columns),
          size(image_size),
          a_shared(shared_a),
          b_shared(shared_b),
          weight_a(wa),
          weight_b(wb),
          clip(limit) {
        if (columns == 1) {  // nothing is shared: one long image has no rests of registers inside
            size *= images;
            images = 1;
        }
        chunks = (size + kChunk - 1) / kChunk;
    }

    // body(image, begin, count) for every chunk.
    template <class Body>
    void for_chunks(Body body) const {
        parallel_for(images * chunks, std::min(kChunk, size) * columns, [&](int64_t first, int64_t last) {
            for (int64_t item = first; item < last; ++item) {
                int64_t begin = item % chunks * kChunk;
                body(item / chunks, begin, std::min(kChunk, size - begin));
            }
        });
    }
};

// body(true_type or false_type): a loop compiled for each.
template <class Body>
void with_flag(bool flag, Body body) {
    if (flag)
        body(std::true_type{});
    else
        body(std::false_type{});
}

template <class T, class WithSilu>
void forward(const Job& job, const T* a, const T* b, T* out, T* silu, WithSilu) {
    job.for_chunks([&](int64_t image, int64_t begin, int64_t count) {
        for (int64_t r = 0; r < job.columns; ++r) {
            int64_t evaluation = image * job.columns + r, at = evaluation * job.size + begin;
            const T* from_a = a + (job.a_shared ? image : evaluation) * job.size + begin;
            const T* from_b = b + (job.b_shared ? image : evaluation) * job.size + begin;
            for_vectors(count, [&](int64_t i, auto part) {
                Vector x = job.weight_a * load(from_a + i, part) + job.weight_b * load(from_b + i, part);
                x = greater_of(-job.clip, lesser_of(job.clip, x));
                store(out + at + i, x, part);
                if (WithSilu::value) store(silu + at + i, mp_silu<T>(x), part);
            });
        }
    });
}

template <class T, class WithSilu, class WithClip>
void backward(const Job& job, const T* grad, const T* grad_silu, const T* out, T* grad_a, T* grad_b, WithSilu,
              WithClip) {
    bool shared = job.a_shared || job.b_shared;
    float shared_weight = job.a_shared ? job.weight_a : job.weight_b;
    float own_weight = job.a_shared ? job.weight_b : job.weight_a;
    T *grad_shared = job.a_shared ? grad_a : grad_b, *grad_own = job.a_shared ? grad_b : grad_a;
    job.for_chunks([&](int64_t image, int64_t begin, int64_t count) {
        float total[kChunk];
        if (shared) std::fill(total, total + count, 0.0f);
        for (int64_t r = 0; r < job.columns; ++r) {
            int64_t at = (image * job.columns + r) * job.size + begin;
            for_vectors(count, [&](int64_t i, auto part) {
                Vector g = load(grad + at + i, part), x = fill(0);
                if (WithSilu::value || WithClip::value) x = load(out + at + i, part);
                if (WithSilu::value) g += load(grad_silu + at + i, part) * mp_silu_slope<T>(x);
                if (WithClip::value) g = (x < job.clip) & (x > -job.clip) ? g : fill(0);
                store(grad_own + at + i, g * own_weight, part);
                if (shared)
                    store(total + i, load(total + i, part) + g, part);
                else
                    store(grad_shared + at + i, g * shared_weight, part);
            });
        }
        if (shared)
            for_vectors(count, [&](int64_t i, auto part) {
                store(grad_shared + image * job.size + begin + i, load(total + i, part) * shared_weight, part);
            });
    });
}

}  // namespace

void mclr_mp_sum_clip_forward(int64_t dtype, const void* a, const void* b, void* out, void* silu, int64_t images,
                              int64_t columns, int64_t size, int64_t a_shared, int64_t b_shared, float weight_a,
                              float weight_b, float clip) {
    Job job(images, columns, size, a_shared, b_shared, weight_a, weight_b, clip);
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        with_flag(silu, [&](auto with_silu) {
            forward(job, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(out),
                    static_cast<T*>(silu), with_silu);
        });
    });
}

void mclr_mp_sum_clip_backward(int64_t dtype, const void* grad, const void* grad_silu, const void* out, void* grad_a,
                               void* grad_b, int64_t images, int64_t columns, int64_t size, int64_t a_shared,
                               int64_t b_shared, float weight_a, float weight_b, float clip) {
    Job job(images, columns, size, a_shared, b_shared, weight_a, weight_b, clip);
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        with_flag(grad_silu, [&](auto with_silu) {
            with_flag(clip < INFINITY, [&](auto with_clip) {
                backward(job, static_cast<const T*>(grad), static_cast<const T*>(grad_silu), static_cast<const T*>(out),
                         static_cast<T*>(grad_a), static_cast<T*>(grad_b), with_silu, with_clip);
            });
        });
    });
}
