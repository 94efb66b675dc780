// x_noisy = x + sigma eps, and the network's input: c_in x_noisy, and a channel of ones behind it where that is wanted.

#include <algorithm>
#include <cmath>
#include <vector>

#include "box_muller.h"
#include "dtype.h"
#include "interleave.h"
#include "mclr_fast.h"
#include "parallel.h"

namespace {
using namespace mclr;

constexpr int64_t kChunk = 4096;          // elements of an image that a thread takes at a time
constexpr int64_t kNumbers = 4 * kWidth;  // normals are made this many at a time

struct Job {
    int64_t images, columns, channels, pixels;
    const float *x, *sigma, *c_in, *eps;
    float* x_noisy;
    int64_t ones;
    float sigma_data;
    int64_t seed, stream;
    const int64_t* position;

    int64_t size = channels * pixels, input_channels = channels + ones;
    int64_t chunk = size <= kChunk ? pixels : std::max(kChunk / channels / kNumbers, int64_t{1}) * kNumbers;
    int64_t chunks = size ? (pixels + chunk - 1) / chunk : 0;
    // Pixels between two visits to memory: as few as go, so that it works while normals are made, but whole
    // chunks where channels begin inside a group of normals, part of which is then made twice.
    int64_t tile = pixels % kNumbers == 0 && !eps ? kNumbers : chunk;
    int64_t stride = (tile + 2 * kNumbers) / kNumbers * kNumbers;  // between the channels of a tile

    // Room for the normals of a tile; `planes` holds its c_in x_noisy, and ones behind where they are wanted.
    struct Room {
        std::vector<float> normals, planes;
        std::vector<const float*> eps;
    };
    Room room() const {
        return {std::vector<float>(eps ? 0 : channels * stride + kNumbers),
                std::vector<float>(input_channels * stride, 1.0f), std::vector<const float*>(channels)};
    }

    // Points room.eps at the noise of each channel of `count` pixels from `begin` on.
    void fill_noise(int64_t image, int64_t begin, int64_t count, Room& room) const {
        if (eps) {
            for (int64_t c = 0; c < channels; ++c) room.eps[c] = eps + image * size + c * pixels + begin;
            return;
        }
        PhiloxKey key = philox_key(seed, stream, position[image]);
        bool whole = count == pixels;  // then the channels follow one another
        for (int64_t c = 0; c < channels; ++c) {
            int64_t from = c * pixels + begin, first = from / 4 * 4;
            float* to = room.normals.data() + c * (whole ? pixels : stride);
            room.eps[c] = whole ? to : to + from - first;
            if (whole && c > 0) continue;
            for (int64_t i = first; i < (whole ? size : from + count); i += kNumbers, to += kNumbers) {
                Vector z[4];
                normals(static_cast<uint32_t>(i / 4), key, z);
                for (int k = 0; k < 4; ++k) store(to + k * kWidth, z[k], All{});
            }
        }
    }
};

template <class T>
void forward(const Job& job, T* net_input) {
    bool large = leaves_caches<float>(job.images * job.columns * job.size);
    parallel_for(job.images * job.chunks, job.chunk * job.channels * job.columns, [&](int64_t first, int64_t last) {
        Job::Room room = job.room();
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / job.chunks, start = item % job.chunks * job.chunk;
            int64_t end = std::min(start + job.chunk, job.pixels);
            float sigma = job.sigma[image];
            float c_in = job.c_in ? job.c_in[image] : 1 / std::sqrt(sigma * sigma + job.sigma_data * job.sigma_data);
            for (int64_t begin = start; begin < end; begin += job.tile) {
                int64_t count = std::min(job.tile, end - begin);
                job.fill_noise(image, begin, count, room);
                for (int64_t column = 0; column < job.columns; ++column) {
                    int64_t evaluation = image * job.columns + column;
                    for (int64_t c = 0; c < job.channels; ++c) {
                        int64_t at = evaluation * job.size + c * job.pixels + begin;
                        const float* eps = room.eps[c];
                        float* plane = room.planes.data() + c * job.stride;
                        with_streaming(large && streamable(job.x_noisy + at), [&](auto whole) {
                            for_registers(count, whole, [&](int64_t i, auto part) {
                                Vector noisy = load(job.x + at + i, part) + sigma * load(eps + i, part);
                                store(job.x_noisy + at + i, noisy, part);
                                store(plane + i, c_in * noisy, All{});
                            });
                        });
                    }
                    T* to = net_input + (evaluation * job.pixels + begin) * job.input_channels;
                    planes_to_pixels(room.planes.data(), job.stride, count, job.input_channels, to, large);
                }
            }
        }
    });
}

}  // namespace

void mclr_noisy_input_forward(int64_t dtype, const float* x, const float* sigma, const float* c_in, const float* eps,
                              float* x_noisy, void* net_input, int64_t images, int64_t columns, int64_t channels,
                              int64_t pixels, int64_t ones, float sigma_data, int64_t seed, int64_t stream,
                              const int64_t* position) {
    Job job{images, columns, channels, pixels, x, sigma, c_in, eps, x_noisy, ones, sigma_data, seed, stream, position};
    with_dtype(dtype, [&](auto type) { forward(job, static_cast<decltype(type)*>(net_input)); });
}
