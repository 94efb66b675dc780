// A network's steps on one image after another: its activations stay in the thread's own cache, and no step
// waits for Python. T is what convolutions multiply; activations are floats.

#include "convolve.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <omp.h>

#include "dtype.h"
#include "functions.h"
#include "mclr_fast.h"
#include "vector.h"

namespace {
using namespace mclr;

constexpr float kEps = 1e-4f;

template <class T>
void pixel_norm_silu(const mclr_step& s, const float* x, float* normalized, float* silu) {
    for (int64_t p = 0; p < s.height * s.width; ++p, x += s.in_channels) {
        Vector squares = fill(0);
        for_vectors(s.in_channels, [&](int64_t c, auto part) {
            Vector value = load(x + c, part);
            squares += value * value;
        });
        float scale = 1 / (kEps + std::sqrt(sum(squares) / s.in_channels));
        for_vectors(s.in_channels, [&](int64_t c, auto part) {
            store(normalized + p * s.in_channels + c, load(x + c, part) * scale, part);
        });
    }
    for_vectors(s.height * s.width * s.in_channels,
                [&](int64_t i, auto part) { store(silu + i, mp_silu<T>(load(normalized + i, part)), part); });
}

// modulation: 1 + emb of the channels.
template <class T>
void modulate_silu(const mclr_step& s, const float* x, const float* emb, float* out, float* scratch) {
    int64_t channels = s.in_channels, row = channels;
    while (row % kWidth) row += channels;
    for (int64_t i = 0; i < row; ++i) scratch[i] = 1 + emb[i % channels];
    int64_t size = s.height * s.width * channels;
    for (int64_t start = 0; start < size; start += row)
        for_vectors(std::min(row, size - start), [&](int64_t i, auto part) {
            Vector value = load(x + start + i, part) * load(scratch + i, All{});
            store(out + start + i, mp_silu<T>(value), part);
        });
}

// silu: NULL for none.
template <class T>
void mp_sum_clip(const mclr_step& s, const float* a, const float* b, float* out, float* silu) {
    for_vectors(s.height * s.width * s.in_channels, [&](int64_t i, auto part) {
        Vector value = s.scale_a * load(a + i, part) + s.scale_b * load(b + i, part);
        value = greater_of(-s.clip, lesser_of(s.clip, value));
        store(out + i, value, part);
        if (silu) store(silu + i, mp_silu<T>(value), part);
    });
}

template <class T>
void mp_cat_silu(const mclr_step& s, const float* a, const float* b, float* cat, float* silu) {
    int64_t channels = s.in_channels + s.out_channels;
    for (int64_t p = 0; p < s.height * s.width; ++p) {
        float* to = cat + p * channels;
        for_vectors(s.in_channels, [&](int64_t c, auto part) {
            store(to + c, s.scale_a * load(a + p * s.in_channels + c, part), part);
        });
        for_vectors(s.out_channels, [&](int64_t c, auto part) {
            store(to + s.in_channels + c, s.scale_b * load(b + p * s.out_channels + c, part), part);
        });
    }
    for_vectors(s.height * s.width * channels,
                [&](int64_t i, auto part) { store(silu + i, mp_silu<T>(load(cat + i, part)), part); });
}

// To height x width, the mean of 2x2 pixels.
void downsample(const mclr_step& s, const float* x, float* out) {
    int64_t channels = s.in_channels, row = 2 * s.width * channels;
    for (int64_t y = 0; y < s.height; ++y)
        for (int64_t p = 0; p < s.width; ++p) {
            const float* from = x + 2 * y * row + 2 * p * channels;
            for_vectors(channels, [&](int64_t c, auto part) {
                Vector above = load(from + c, part) + load(from + channels + c, part);
                Vector below = load(from + row + c, part) + load(from + row + channels + c, part);
                store(out + (y * s.width + p) * channels + c, (above + below) * 0.25f, part);
            });
        }
}

// To height x width, every pixel four times.
void upsample(const mclr_step& s, const float* x, float* out) {
    int64_t channels = s.in_channels;
    for (int64_t y = 0; y < s.height; ++y)
        for (int64_t p = 0; p < s.width; ++p) {
            const float* from = x + (y / 2 * (s.width / 2) + p / 2) * channels;
            std::memcpy(out + (y * s.width + p) * channels, from, channels * sizeof(float));
        }
}

// Cosine attention on x [pixels, heads, depth, 3]. scratch: 3 depth pixels + pixels + kWidth floats.
template <class T>
void attend(const mclr_step& s, const float* x, float* out, float* scratch) {
    int64_t pixels = s.height * s.width, channels = s.out_channels, depth = channels / s.heads;
    float *query = scratch, *key = query + pixels * depth, *value = key + pixels * depth;
    float* logits = value + pixels * depth;
    for (int64_t head = 0; head < s.heads; ++head) {
        for (int64_t p = 0; p < pixels; ++p) {  // keys are transposed: a register holds one channel of many
            const float* from = x + (p * s.heads + head) * depth * 3;
            float squares[3] = {};
            for (int64_t i = 0; i < 3 * depth; ++i) squares[i % 3] += from[i] * from[i];
            for (float& total : squares) total = 1 / (kEps + std::sqrt(total / depth));
            float softness = squares[0] / std::sqrt(static_cast<float>(depth));
            for (int64_t c = 0; c < depth; ++c) {
                query[p * depth + c] = from[3 * c] * softness;
                key[c * pixels + p] = from[3 * c + 1] * squares[1];
                value[p * depth + c] = from[3 * c + 2] * squares[2];
            }
        }
        for (int64_t p = 0; p < pixels; ++p) {
            float most = -INFINITY, total = 0;
            for_vectors(pixels, [&](int64_t j, auto part) {
                Vector dots = fill(0);
                for (int64_t c = 0; c < depth; ++c) dots += query[p * depth + c] * load(key + c * pixels + j, part);
                store(logits + j, dots, part);
            });
            for (int64_t j = 0; j < pixels; ++j) most = std::max(most, logits[j]);
            for_vectors(pixels,
                        [&](int64_t j, auto part) { store(logits + j, exp<T>(load(logits + j, part) - most), part); });
            for (int64_t j = 0; j < pixels; ++j) total += logits[j];
            for_vectors(depth, [&](int64_t c, auto part) {
                Vector mean = fill(0);
                for (int64_t j = 0; j < pixels; ++j) mean += logits[j] * load(value + j * depth + c, part);
                store(out + p * channels + head * depth + c, mean * (1 / total), part);
            });
        }
    }
}

// One step of one image. memory: the thread's; input, output, emb: the image's.
template <class T>
void run(const mclr_step& s, float* memory, const float* input, float* output, const float* emb, float* scratch) {
    auto operand = [&](int64_t place) { return place == MCLR_INPUT ? input : memory + place; };
    const float *a = operand(s.a), *b = operand(s.b);
    auto result = [&](int64_t place) {
        return place == MCLR_NOTHING ? nullptr : place == MCLR_OUTPUT ? output : memory + place;
    };
    float *out = result(s.out), *second = result(s.second);
    switch (s.kind) {
        case MCLR_CONVOLVE:
            return convolve<T>(s, a, out, scratch);
        case MCLR_PIXEL_NORM_SILU:
            return pixel_norm_silu<T>(s, a, out, second);
        case MCLR_MODULATE_SILU:
            return modulate_silu<T>(s, a, emb + s.b, out, scratch);
        case MCLR_MP_SUM_CLIP:
            return mp_sum_clip<T>(s, a, b, out, second);
        case MCLR_MP_CAT_SILU:
            return mp_cat_silu<T>(s, a, b, out, second);
        case MCLR_DOWNSAMPLE:
            return downsample(s, a, out);
        case MCLR_UPSAMPLE:
            return upsample(s, a, out);
        case MCLR_ATTEND:
            return attend<T>(s, a, out, scratch);
    }
}

}  // namespace

void mclr_image_program_packed_size(int64_t dtype, int64_t* size, int64_t out_channels, int64_t in_channels,
                                    int64_t kernel, int64_t width) {
    Packing packing(out_channels, kernel, width);
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        *size = packing.registers * kernel * taps_of_row<T>(packing, in_channels) * kWidth * sizeof(Element<T>);
    });
}

void mclr_image_program_pack(int64_t dtype, const float* weight, void* packed, int64_t out_channels,
                             int64_t in_channels, int64_t kernel, int64_t width) {
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        pack<T>(weight, static_cast<Element<T>*>(packed), out_channels, in_channels, kernel, width);
    });
}

void mclr_image_program_run(int64_t dtype, const mclr_step* steps, int64_t count, int64_t shared, const float* input,
                            float* output, const float* emb, float* memory, int64_t images, int64_t columns,
                            int64_t input_size, int64_t output_size, int64_t emb_size, int64_t memory_size,
                            int64_t scratch_at, int64_t threads) {
    const auto step = dtype == MCLR_FLOAT32 ? run<float> : run<bfloat16>;
    // All threads or one, as in parallel.h. With few images a thread takes an image's columns one by one.
    bool by_image = images >= threads || columns == 1;
    int64_t items = by_image ? images : images * columns, each = by_image ? columns : 1;
    auto work = [&](int64_t rank, int64_t size) {
        float* own = memory + rank * memory_size;
        for (int64_t item = items * rank / size; item < items * (rank + 1) / size; ++item) {
            int64_t row = item * each, image = row / columns;
            for (int64_t i = 0; i < shared; ++i)
                step(steps[i], own, input + image * input_size, nullptr, nullptr, own + scratch_at);
            for (int64_t r = row; r < row + each; ++r)
                for (int64_t i = shared; i < count; ++i)
                    step(steps[i], own, input + image * input_size, output + r * output_size, emb + r * emb_size,
                         own + scratch_at);
        }
    };
    if (threads == 1 || items == 1) return work(0, 1);
#pragma omp parallel num_threads(static_cast<int>(threads))
    work(omp_get_thread_num(), omp_get_num_threads());
}
