// Cosine attention's operands: q, k and v taken out of the joint projection, each divided by (1e-4 + rms over
// its channels) (EDM2, Figure 21). The three alternate along the channels: qkv is [.., heads, depth, 3].

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "dtype.h"
#include "host_device.h"
#include "mclr_fast.h"
#include "parallel.h"
#include "rows.h"

namespace {
using namespace mclr;

constexpr int64_t kBlock = 512;  // elements of q handled at a time; all buffers stay in the first cache

typedef std::array<float*, 3> Three;  // buffers of q, k and v

struct Job {
    int64_t images, heads, pixels, depth;

    int64_t width = heads * depth;
    int64_t block = std::max(kBlock / width, int64_t{1});  // pixels
    int64_t blocks = (pixels + block - 1) / block;

    // body(buffers, image, pixel, count) for every block of every image; `sets` times three buffers a thread.
    template <class Body>
    void for_blocks(int64_t sets, Body body) const {
        parallel_for(images * blocks, std::min(block, pixels) * width * 3, [&](int64_t first, int64_t last) {
            int64_t size = block * width + 3 * kWidth;
            std::vector<float> memory(sets * 3 * size);
            std::vector<Three> buffers(sets);
            for (int64_t i = 0; i < sets * 3; ++i) buffers[i / 3][i % 3] = memory.data() + i * size;
            for (int64_t item = first; item < last; ++item) {
                int64_t pixel = item % blocks * block;
                body(buffers.data(), item / blocks, pixel, std::min(block, pixels - pixel));
            }
        });
    }

    // Where the channels of a row (head of a pixel) of the block lie in q, k and v.
    int64_t place(int64_t image, int64_t pixel, int64_t row) const {
        return ((image * heads + row % heads) * pixels + pixel + row / heads) * depth;
    }
};

// Element i of the result is element index(i) of x, y joined.
#define MCLR_SHUFFLE(x, y, index) shuffle(x, y, [](int i) constexpr { return index; }, Lanes{})
typedef std::make_integer_sequence<int, kWidth> Lanes;

template <class Index, int... I>
MCLR_INLINE Vector shuffle(Vector x, Vector y, Index index, std::integer_sequence<int, I...>) {
    return __builtin_shuffle(x, y, Ints{index(I)...});
}

// to[part][i] = from[3 i + part], i < count.
template <class T>
void separate(const T* from, const Three& to, int64_t count) {
    constexpr int w = kWidth;
    int64_t i = 0;
    for (; i + w <= count; i += w) {
        Vector a = load(from + 3 * i, All{}), b = load(from + 3 * i + w, All{}), c = load(from + 3 * i + 2 * w, All{});
        // What a and b hold of a part comes first, then what c does.
        Vector q = MCLR_SHUFFLE(a, b, 3 * i % (2 * w)), k = MCLR_SHUFFLE(a, b, (3 * i + 1) % (2 * w));
        Vector v = MCLR_SHUFFLE(a, b, (3 * i + 2) % (2 * w));
        store(to[0] + i, MCLR_SHUFFLE(q, c, 3 * i < 2 * w ? i : 3 * i - w), All{});
        store(to[1] + i, MCLR_SHUFFLE(k, c, 3 * i + 1 < 2 * w ? i : 3 * i + 1 - w), All{});
        store(to[2] + i, MCLR_SHUFFLE(v, c, 3 * i + 2 < 2 * w ? i : 3 * i + 2 - w), All{});
    }
    for (; i < count; ++i)
        for (int part = 0; part < 3; ++part) {
            Vector one = load(from + 3 * i + part, First{1});
            to[part][i] = one[0];
        }
}

// to[3 i + part] = from[part][i], i < count.
template <class T>
void join(const Three& from, T* to, int64_t count) {
    constexpr int w = kWidth;
    int64_t i = 0;
    for (; i + w <= count; i += w) {
        Vector q = load(from[0] + i, All{}), k = load(from[1] + i, All{}), v = load(from[2] + i, All{});
        // Element j of register `part` is element j + part w of the sequence q0 k0 v0 q1 ..
        Vector a = MCLR_SHUFFLE(q, k, i / 3 + i % 3 % 2 * w), b = MCLR_SHUFFLE(q, k, (i + w) / 3 + (i + w) % 3 % 2 * w);
        Vector c = MCLR_SHUFFLE(q, k, (i + 2 * w) / 3 + (i + 2 * w) % 3 % 2 * w);
        store(to + 3 * i, MCLR_SHUFFLE(a, v, i % 3 < 2 ? i : i / 3 + w), All{});
        store(to + 3 * i + w, MCLR_SHUFFLE(b, v, (i + w) % 3 < 2 ? i : (i + w) / 3 + w), All{});
        store(to + 3 * i + 2 * w, MCLR_SHUFFLE(c, v, (i + 2 * w) % 3 < 2 ? i : (i + 2 * w) / 3 + w), All{});
    }
    for (; i < count; ++i)
        for (int part = 0; part < 3; ++part) store(to + 3 * i + part, fill(from[part][i]), First{1});
}

template <class T>
void forward(const Job& job, const T* qkv, const std::array<T*, 3>& out) {
    bool large = leaves_caches<T>(job.images * job.pixels * job.width * 3);
    job.for_blocks(1, [&](const Three* buffers, int64_t image, int64_t pixel, int64_t count) {
        const Three& value = buffers[0];
        separate(qkv + (image * job.pixels + pixel) * job.width * 3, value, count * job.width);
        for (int part = 0; part < 3; ++part)
            for (int64_t row = 0; row < count * job.heads; ++row) {
                const float* x = value[part] + row * job.depth;
                float square;
                row_dots(x, x, &square, 1, job.depth);
                float scale = 1 / (kEps + std::sqrt(square / job.depth));
                T* to = out[part] + job.place(image, pixel, row);
                with_streaming(large && streamable(to), [&](auto whole) {
                    for_registers(job.depth, whole,
                                  [&](int64_t i, auto part) { store(to + i, load(x + i, All{}) * scale, part); });
                });
            }
    });
}

// grad_x = g / s - x sum(g x) / (s^2 depth rms), s = 1e-4 + rms, for each of q, k and v.
template <class T>
void backward(const Job& job, const std::array<const T*, 3>& grad, const T* qkv, T* grad_qkv) {
    job.for_blocks(2, [&](const Three* buffers, int64_t image, int64_t pixel, int64_t count) {
        const Three &value = buffers[0], &result = buffers[1];
        int64_t at = (image * job.pixels + pixel) * job.width * 3;
        separate(qkv + at, value, count * job.width);
        for (int part = 0; part < 3; ++part)
            for (int64_t row = 0; row < count * job.heads; ++row) {
                const float* x = value[part] + row * job.depth;
                float* to = result[part] + row * job.depth;  // holds g first; the next row overwrites what is over
                const T* g = grad[part] + job.place(image, pixel, row);
                for_vectors(job.depth, [&](int64_t i, auto rest) { store(to + i, load(g + i, rest), All{}); });
                float square, dot;
                row_dots(x, x, &square, 1, job.depth);
                row_dots(to, x, &dot, 1, job.depth);
                float rms = std::sqrt(square / job.depth), scale = 1 / (kEps + rms);
                float along = rms > 0 ? dot * scale * scale / (job.depth * rms) : 0;
                for (int64_t i = 0; i < job.depth; i += kWidth)
                    store(to + i, load(to + i, All{}) * scale - load(x + i, All{}) * along, All{});
            }
        join(result, grad_qkv + at, count * job.width);
    });
}

}  // namespace

void mclr_qkv_norm_forward(int64_t dtype, const void* qkv, void* q, void* k, void* v, int64_t images, int64_t heads,
                           int64_t pixels, int64_t depth) {
    Job job{images, heads, pixels, depth};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        forward<T>(job, static_cast<const T*>(qkv), {static_cast<T*>(q), static_cast<T*>(k), static_cast<T*>(v)});
    });
}

void mclr_qkv_norm_backward(int64_t dtype, const void* grad_q, const void* grad_k, const void* grad_v, const void* qkv,
                            void* grad_qkv, int64_t images, int64_t heads, int64_t pixels, int64_t depth) {
    Job job{images, heads, pixels, depth};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        backward<T>(job, {static_cast<const T*>(grad_q), static_cast<const T*>(grad_k), static_cast<const T*>(grad_v)},
                    static_cast<const T*>(qkv), static_cast<T*>(grad_qkv));
    });
}
