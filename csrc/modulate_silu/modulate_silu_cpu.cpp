// out = mp_silu(y (1 + emb)) keep / (1 - dropout), one y for all labels of an image (EDM2, Figure 21).

#include <algorithm>
#include <vector>

#include "dtype.h"
#include "functions.h"
#include "mclr_fast.h"
#include "parallel.h"
#include "philox.h"

namespace {
using namespace mclr;

constexpr int64_t kChunk = 8192;  // elements of an image handled at a time; they stay in the first cache

struct Job {
    int64_t images, columns, pixels, channels, emb_rows;
    const float* emb;
    float dropout;
    int64_t seed, stream;
    const int64_t* position;

    int64_t row = whole_registers(channels);  // channels, repeated until they fill registers
    int64_t size = pixels * channels;
    int64_t chunk = std::max(kChunk / (4 * row), int64_t{1}) * 4 * row;
    int64_t chunks = size ? (size + chunk - 1) / chunk : 0;

    // 1 + emb of an evaluation, repeated.
    void scale(int64_t evaluation, float* to) const {
        const float* from = emb + (emb_rows == 1 ? 0 : evaluation) * channels;
        for (int64_t start = 0; start < row; start += channels)
            for (int64_t c = 0; c < channels; ++c) to[start + c] = 1 + from[c];
    }

    // keep / (1 - dropout) of elements begin to end of an image, in memory order; begin is a multiple of
    // four pixels. Blocks of four words run along the pixels of a channel.
    void mask(int64_t evaluation, int64_t begin, int64_t end, float* to) const {
        PhiloxKey key = philox_key(seed, stream, position[evaluation]);
        bool aligned = pixels % 4 == 0;  // a block then holds four pixels of one channel
        float kept = 1 / (1 - dropout);
        for (int64_t pixel = begin / channels; pixel * channels < end; pixel += aligned ? 4 : 1) {
            for (int64_t c = 0; c < channels; c += kWidth) {
                Words index =
                    (lanes() + static_cast<uint32_t>(c)) * static_cast<uint32_t>(pixels) + static_cast<uint32_t>(pixel);
                FourWords words = philox(index >> 2, key);
                for (int64_t i = 0; i < (aligned ? 4 : 1); ++i) {
                    Words word = words.word[i];
                    if (!aligned) {
                        Words place = index & 3;
                        for (uint32_t k = 1; k < 4; ++k) word = place == k ? words.word[k] : word;
                    }
                    Vector keep = uniform(word) >= dropout ? fill(kept) : fill(0);
                    int64_t at = (pixel + i) * channels + c - begin;
                    store(to + at, keep, First{std::min<int64_t>(kWidth, channels - c)});
                }
            }
        }
    }
};

template <class T>
void forward(const Job& job, const T* y, T* out) {
    bool large = leaves_caches<T>(job.images * job.columns * job.size);
    parallel_for(job.images * job.chunks, job.chunk * job.columns, [&](int64_t first, int64_t last) {
        std::vector<float> scale(job.row), mask(job.dropout > 0 ? job.chunk + 4 * job.row : 0);
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / job.chunks, begin = item % job.chunks * job.chunk;
            int64_t end = std::min(begin + job.chunk, job.size);
            const T* from = y + image * job.size;
            for (int64_t r = 0; r < job.columns; ++r) {
                int64_t evaluation = image * job.columns + r;
                T* to = out + evaluation * job.size;
                job.scale(evaluation, scale.data());
                if (job.dropout > 0) job.mask(evaluation, begin, end, mask.data());
                with_streaming(large && streamable(to + begin), [&](auto whole) {
                    for (int64_t at = begin; at < end; at += job.row)
                        for_registers(std::min(job.row, end - at), whole, [&](int64_t i, auto part) {
                            Vector z = load(from + at + i, part) * load(scale.data() + i, All{});
                            Vector value = mp_silu<T>(z);
                            if (job.dropout > 0) value *= load(mask.data() + at - begin + i, part);
                            store(to + at + i, value, part);
                        });
                });
            }
        }
    });
}

template <class T>
void backward(const Job& job, const T* grad, const T* y, T* grad_y, float* grad_emb) {
    // Sums over pixels are kept per chunk and added up afterwards: the same for any number of threads.
    std::vector<float> sums(job.images * job.chunks * job.columns * job.channels);
    bool large = leaves_caches<T>(job.images * job.size);
    parallel_for(job.images * job.chunks, job.chunk * job.columns, [&](int64_t first, int64_t last) {
        std::vector<float> scale(job.row), mask(job.dropout > 0 ? job.chunk + 4 * job.row : 0);
        std::vector<float> total(job.columns > 1 ? job.chunk : 0), sum(job.row);
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / job.chunks, begin = item % job.chunks * job.chunk;
            int64_t end = std::min(begin + job.chunk, job.size);
            const T* from = y + image * job.size;
            T* to = grad_y + image * job.size;
            for (int64_t r = 0; r < job.columns; ++r) {
                int64_t evaluation = image * job.columns + r;
                const T* up = grad + evaluation * job.size;
                job.scale(evaluation, scale.data());
                if (job.dropout > 0) job.mask(evaluation, begin, end, mask.data());
                std::fill(sum.begin(), sum.end(), 0.0f);
                bool last_column = r + 1 == job.columns;
                with_streaming(last_column && large && streamable(to + begin), [&](auto whole) {
                    for (int64_t at = begin; at < end; at += job.row)
                        for_registers(std::min(job.row, end - at), whole, [&](int64_t i, auto part) {
                            Vector s = load(scale.data() + i, All{}), x = load(from + at + i, part);
                            Vector g = load(up + at + i, part) * mp_silu_slope<T>(x * s);
                            if (job.dropout > 0) g *= load(mask.data() + at - begin + i, part);
                            store(sum.data() + i, load(sum.data() + i, All{}) + g * x, All{});
                            g *= s;
                            if (r > 0) g += load(total.data() + at - begin + i, part);
                            if (last_column)
                                store(to + at + i, g, part);
                            else
                                store(total.data() + at - begin + i, g, part);
                        });
                });
                float* kept = sums.data() + (item * job.columns + r) * job.channels;
                for (int64_t start = 0; start < job.row; start += job.channels)
                    for (int64_t c = 0; c < job.channels; ++c) kept[c] += sum[start + c];
            }
        }
    });
    std::fill(grad_emb, grad_emb + job.emb_rows * job.channels, 0.0f);
    for (int64_t image = 0; image < job.images; ++image)
        for (int64_t chunk = 0; chunk < job.chunks; ++chunk)
            for (int64_t r = 0; r < job.columns; ++r) {
                const float* from = sums.data() + ((image * job.chunks + chunk) * job.columns + r) * job.channels;
                float* to = grad_emb + (job.emb_rows == 1 ? 0 : image * job.columns + r) * job.channels;
                for (int64_t c = 0; c < job.channels; ++c) to[c] += from[c];
            }
}

}  // namespace

void mclr_modulate_silu_forward(int64_t dtype, const void* y, const float* emb, void* out, int64_t images,
                                int64_t columns, int64_t pixels, int64_t channels, int64_t emb_rows, float dropout,
                                int64_t seed, int64_t stream, const int64_t* position) {
    Job job{images, columns, pixels, channels, emb_rows, emb, dropout, seed, stream, position};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        forward(job, static_cast<const T*>(y), static_cast<T*>(out));
    });
}

void mclr_modulate_silu_backward(int64_t dtype, const void* grad, const void* y, const float* emb, void* grad_y,
                                 float* grad_emb, int64_t images, int64_t columns, int64_t pixels, int64_t channels,
                                 int64_t emb_rows, float dropout, int64_t seed, int64_t stream,
                                 const int64_t* position) {
    Job job{images, columns, pixels, channels, emb_rows, emb, dropout, seed, stream, position};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        backward(job, static_cast<const T*>(grad), static_cast<const T*>(y), static_cast<T*>(grad_y), grad_emb);
    });
}
