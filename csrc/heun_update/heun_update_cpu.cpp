// One step of EDM's sampler (arXiv 2206.00364, algorithm 2) and the network's next input.

#include <algorithm>
#include <vector>

#include "dtype.h"
#include "interleave.h"
#include "mclr_fast.h"
#include "parallel.h"

namespace {
using namespace mclr;

constexpr int64_t kChunk = 2048;  // elements of an image handled at a time; they stay in the first cache

struct Job {
    int64_t images, channels, pixels;
    bool channels_last;  // pred and guide; for one channel it makes no difference
    float guidance, from_x, from_p, step, c_in;
    const float *x, *x_hat, *slope;
    float *x_next, *d;

    int64_t chunk = std::max(kChunk / std::max(channels, int64_t{1}) / kWidth, int64_t{1}) * kWidth;
    int64_t chunks = channels ? (pixels + chunk - 1) / chunk : 0;
};

template <class T, class Input>
void forward(const Job& job, const T* pred, const T* guide, Input* net_input) {
    int64_t size = job.channels * job.pixels;
    bool large = leaves_caches<float>(job.images * size);
    parallel_for(job.images * job.chunks, job.chunk * job.channels, [&](int64_t first, int64_t last) {
        std::vector<float> planes((job.channels + 1) * job.chunk, 1.0f);
        std::vector<float> output(job.channels_last ? job.channels * job.chunk : 0), guiding(guide ? output.size() : 0);
        for (int64_t item = first; item < last; ++item) {
            int64_t image = item / job.chunks, begin = item % job.chunks * job.chunk;
            int64_t count = std::min(job.chunk, job.pixels - begin);
            auto update = [&](int64_t c, const auto* p, const auto* g) {
                int64_t at = image * size + c * job.pixels + begin;
                with_streaming(large && streamable(job.d + at) && streamable(job.x_next + at), [&](auto whole) {
                    for_registers(count, whole, [&](int64_t i, auto part) {
                        Vector value = load(p + i, part);
                        if (g) {
                            Vector unguided = load(g + i, part);
                            value = unguided + job.guidance * (value - unguided);
                        }
                        Vector d = job.from_x * load(job.x + at + i, part) - job.from_p * value;
                        store(job.d + at + i, d, part);
                        if (job.slope) d = 0.5f * (load(job.slope + at + i, part) + d);
                        Vector next = load(job.x_hat + at + i, part) + job.step * d;
                        store(job.x_next + at + i, next, part);
                        store(planes.data() + c * job.chunk + i, job.c_in * next, All{});
                    });
                });
            };
            int64_t at = image * size + begin * job.channels;
            if (job.channels_last) {
                pixels_to_planes(pred + at, count, job.channels, output.data(), job.chunk);
                if (guide) pixels_to_planes(guide + at, count, job.channels, guiding.data(), job.chunk);
            }
            for (int64_t c = 0; c < job.channels; ++c) {
                int64_t plane = image * size + c * job.pixels + begin;
                if (job.channels_last)
                    update(c, output.data() + c * job.chunk, guide ? guiding.data() + c * job.chunk : nullptr);
                else
                    update(c, pred + plane, guide ? guide + plane : nullptr);
            }
            Input* to = net_input + (image * job.pixels + begin) * (job.channels + 1);
            planes_to_pixels(planes.data(), job.chunk, count, job.channels + 1, to, large);
        }
    });
}

}  // namespace

void mclr_heun_update_forward(int64_t dtype, int64_t input_dtype, const void* pred, const void* guide, float guidance,
                              const float* x, const float* x_hat, const float* slope, float* x_next, float* d,
                              void* net_input, int64_t images, int64_t channels, int64_t pixels, int64_t channels_last,
                              float from_x, float from_p, float step, float c_in) {
    Job job{images, channels, pixels, channels_last && channels > 1, guidance, from_x, from_p, step, c_in, x, x_hat,
            slope,  x_next,   d};
    with_dtype(dtype, [&](auto type) {
        with_dtype(input_dtype, [&](auto input) {
            using T = decltype(type);
            forward(job, static_cast<const T*>(pred), static_cast<const T*>(guide),
                    static_cast<decltype(input)*>(net_input));
        });
    });
}
