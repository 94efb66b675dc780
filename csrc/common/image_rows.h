// Tokens of images: [images, rows, channels] with vectors [images, channels] that all rows of an image share, and sums
// over an image's rows that are the same for any number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "vector.h"

namespace mclr {

constexpr int64_t kChunkRows = 32;  // of an image, handled at a time

struct ImageRows {
    int64_t images, rows, channels;

    int64_t chunks = (rows + kChunkRows - 1) / kChunkRows;
    int64_t stride = (channels + kWidth - 1) / kWidth * kWidth;  // of a sum: whole registers

    int64_t numel() const { return images * rows * channels; }

    // body(image, first, last, item): rows first to last of all images' are chunk `item`, which is of one image.
    template <class Body>
    void for_chunks(Body body) const {
        parallel_for(images * chunks, std::min(kChunkRows, rows) * channels, [&](int64_t begin, int64_t end) {
            for (int64_t item = begin; item < end; ++item) {
                int64_t image = item / chunks, row = item % chunks * kChunkRows;
                body(image, image * rows + row, image * rows + std::min(row + kChunkRows, rows), item);
            }
        });
    }

    // Zeros for `count` sums of every chunk, chunk after chunk.
    std::vector<float> sums(int64_t count) const { return std::vector<float>(images * chunks * count * stride); }

    // to[image] = the sum over the image's chunks of the `which`-th of their `count` sums.
    void add_up(const std::vector<float>& sums, int64_t count, int64_t which, float* to) const {
        std::fill(to, to + images * channels, 0.0f);
        for (int64_t item = 0; item < images * chunks; ++item) {
            const float* from = sums.data() + (item * count + which) * stride;
            float* sum = to + item / chunks * channels;
            for_vectors(channels, [&](int64_t i, auto part) {
                store(sum + i, load(sum + i, part) + load(from + i, part), part);
            });
        }
    }
};

}  // namespace mclr
