// The error D - x of a minibatch of evaluations, its square's sum and its gradient, a chunk at a time; shared by
// weighted_sq_error and contrast_loss.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "dtype.h"
#include "interleave.h"
#include "parallel.h"

namespace mclr {

// The operands, images flat. Row b of `pred` is column b % columns of image b / columns; x and x_noisy have one
// image for all columns of an image (x_columns = 1) or one each.
struct Evaluations {
    const float *x, *x_noisy, *sigma, *c_skip, *c_out, *weight;  // sigma is NULL where the scalings are given
    int64_t images, columns, size, x_columns, noisy_columns, planes;
    float sigma_data;
    int64_t network;  // pred is the network's output F, else the denoised image D

    // Elements of an image handled at a time: they stay in the first cache, and are whole pixels.
    static constexpr int64_t kChunk = 4096;
    int64_t chunk = kChunk / (planes * kWidth) * planes * kWidth;
    int64_t chunks = (size + chunk - 1) / chunk;
};

// What belongs to an image's noise level: the scalings given, or those of sigma (EDM, Table 1).
struct Level {
    float c_skip = 0, c_out = 1, weight = 1;

    MCLR_INLINE Level(const Evaluations& e, int64_t image) : weight(e.weight[image]) {
        if (!e.network) return;
        if (!e.sigma) {
            c_skip = e.c_skip[image];
            c_out = e.c_out[image];
            return;
        }
        double sigma = e.sigma[image], data = e.sigma_data, total = sigma * sigma + data * data;
        c_skip = static_cast<float>(data * data / total);
        c_out = static_cast<float>(sigma * data / std::sqrt(total));
    }
};

// c_skip x_noisy - x: with c_out pred, the error D - x. In pred's order.
MCLR_INLINE void fill_target(const Evaluations& e, float c_skip, int64_t image, int64_t column, int64_t begin,
                             int64_t count, float* target) {
    const float* x = e.x + (image * e.x_columns + (e.x_columns > 1 ? column : 0)) * e.size;
    const float* noisy = e.x_noisy + (image * e.noisy_columns + (e.noisy_columns > 1 ? column : 0)) * e.size;
    auto fill_row = [&](int64_t from, int64_t length, float* row) {
        for_vectors(length, [&](int64_t i, auto part) {
            Vector value = -load(x + from + i, part);
            if (e.network) value += c_skip * load(noisy + from + i, part);
            store(row + i, value, part);
        });
    };
    if (e.planes == 1) return fill_row(begin, count, target);
    alignas(64) float rows[Evaluations::kChunk];
    int64_t pixels = count / e.planes, plane = e.size / e.planes;
    for (int64_t c = 0; c < e.planes; ++c) fill_row(c * plane + begin / e.planes, pixels, rows + c * pixels);
    planes_to_pixels(rows, pixels, pixels, e.planes, target, false);
}

// body(evaluation, chunk, offset in pred, elements, level, target) for all chunks of all evaluations; the target
// is made once for the columns of an image that share it.
template <class Body>
inline void for_chunks(const Evaluations& e, Body body) {
    bool shared = e.x_columns == 1 && (e.noisy_columns == 1 || !e.network);
    parallel_for(e.images * e.chunks, e.chunk * e.columns, [&](int64_t first, int64_t last) {
        alignas(64) float target[Evaluations::kChunk];
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / e.chunks, chunk = item % e.chunks, begin = chunk * e.chunk;
            int64_t count = std::min(e.chunk, e.size - begin);
            Level level(e, image);
            for (int64_t column = 0; column < e.columns; ++column) {
                if (column == 0 || !shared) fill_target(e, level.c_skip, image, column, begin, count, target);
                int64_t evaluation = image * e.columns + column;
                body(evaluation, chunk, evaluation * e.size + begin, count, level, target);
            }
        }
    });
}

// The sum of (c_out pred + target)^2 over a chunk; unless grad is NULL also grad = factor (c_out pred + target).
// `whole` is how grad is stored: All or Streaming.
template <class T, class WHOLE>
MCLR_INLINE float square_error(const T* pred, const float* target, int64_t count, float c_out, float factor, T* grad,
                               WHOLE whole) {
    constexpr int kSums = 4;  // independent sums: as accurate as a pairwise one, and no waiting for the adder
    Vector sums[kSums] = {};
    auto add = [&](int64_t i, int k, auto part) {
        Vector error = c_out * load(pred + i, part) + load(target + i, part);
        sums[k] += error * error;
        if (grad) store(grad + i, factor * error, part);
    };
    int64_t i = 0;
    for (; i + kSums * kWidth <= count; i += kSums * kWidth)
        for (int k = 0; k < kSums; ++k) add(i + k * kWidth, k, whole);
    int64_t done = i;
    for_registers(count - done, whole, [&](int64_t j, auto part) { add(done + j, 0, part); });
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// energy = weight times the sum over its chunks, in float64 and in a fixed order; partial: [evaluations, chunks].
inline void sum_chunks(const Evaluations& e, const std::vector<float>& partial, float* energy) {
    for (int64_t evaluation = 0; evaluation < e.images * e.columns; ++evaluation) {
        double total = 0;
        for (int64_t chunk = 0; chunk < e.chunks; ++chunk) total += partial[evaluation * e.chunks + chunk];
        energy[evaluation] = static_cast<float>(total * e.weight[evaluation / e.columns]);
    }
}

}  // namespace mclr
