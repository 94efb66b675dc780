// energy = weight |D - x|^2, D from the network's output, and its gradient.

#include "weighted_sq_error.h"

#include "mclr_fast.h"

namespace {
using namespace mclr;

template <class T>
void forward(const Evaluations& e, const T* pred, float* energy) {
    std::vector<float> partial(e.images * e.columns * e.chunks);
    for_chunks(e, [&](int64_t evaluation, int64_t chunk, int64_t offset, int64_t count, const Level& level,
                      const float* target) {
        partial[evaluation * e.chunks + chunk] =
            square_error<T>(pred + offset, target, count, level.c_out, 0, nullptr, All{});
    });
    sum_chunks(e, partial, energy);
}

template <class T>
void backward(const Evaluations& e, const float* grad_energy, const T* pred, T* grad_pred) {
    bool large = leaves_caches<T>(e.images * e.columns * e.size);
    for_chunks(
        e, [&](int64_t evaluation, int64_t, int64_t offset, int64_t count, const Level& level, const float* target) {
            float factor = 2 * level.weight * level.c_out * grad_energy[evaluation];
            with_streaming(large && streamable(grad_pred + offset), [&](auto whole) {
                for_registers(count, whole, [&](int64_t i, auto part) {
                    Vector error = level.c_out * load(pred + offset + i, part) + load(target + i, part);
                    store(grad_pred + offset + i, factor * error, part);
                });
            });
        });
}

}  // namespace

void mclr_weighted_sq_error_forward(int64_t dtype, const void* pred, const float* x, const float* x_noisy,
                                    const float* sigma, const float* c_skip, const float* c_out, const float* weight,
                                    float* energy, int64_t images, int64_t columns, int64_t size, int64_t x_columns,
                                    int64_t noisy_columns, int64_t planes, float sigma_data, int64_t network) {
    Evaluations e{x,       x_noisy, sigma,     c_skip,        c_out,  weight,     images,
                  columns, size,    x_columns, noisy_columns, planes, sigma_data, network};
    with_dtype(dtype, [&](auto type) { forward(e, static_cast<const decltype(type)*>(pred), energy); });
}

void mclr_weighted_sq_error_backward(int64_t dtype, const float* grad_energy, const void* pred, const float* x,
                                     const float* x_noisy, const float* sigma, const float* c_skip, const float* c_out,
                                     const float* weight, void* grad_pred, int64_t images, int64_t columns,
                                     int64_t size, int64_t x_columns, int64_t noisy_columns, int64_t planes,
                                     float sigma_data, int64_t network) {
    Evaluations e{x,       x_noisy, sigma,     c_skip,        c_out,  weight,     images,
                  columns, size,    x_columns, noisy_columns, planes, sigma_data, network};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        backward(e, grad_energy, static_cast<const T*>(pred), static_cast<T*>(grad_pred));
    });
}
