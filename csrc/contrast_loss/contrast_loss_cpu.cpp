// Loss, energies and the gradient of pred in one pass, for coefficients known beforehand (eq. 22).

#include "mclr_fast.h"
#include "weighted_sq_error/weighted_sq_error.h"

namespace {
using namespace mclr;

template <class T>
void forward(const Evaluations& e, const float* coefficients, const T* pred, float* loss, float* energy, T* grad_pred) {
    std::vector<float> partial(e.images * e.columns * e.chunks);
    bool large = leaves_caches<T>(e.images * e.columns * e.size);
    for_chunks(e, [&](int64_t evaluation, int64_t chunk, int64_t offset, int64_t count, const Level& level,
                      const float* target) {
        float factor = 2 * level.weight * level.c_out * coefficients[evaluation];
        with_streaming(large && streamable(grad_pred + offset), [&](auto whole) {
            partial[evaluation * e.chunks + chunk] =
                square_error(pred + offset, target, count, level.c_out, factor, grad_pred + offset, whole);
        });
    });
    sum_chunks(e, partial, energy);
    double total = 0;
    for (int64_t i = 0; i < e.images * e.columns; ++i) total += static_cast<double>(coefficients[i]) * energy[i];
    *loss = static_cast<float>(total);
}

}  // namespace

void mclr_contrast_loss_forward(int64_t dtype, const void* pred, const float* x, const float* x_noisy,
                                const float* sigma, const float* c_skip, const float* c_out, const float* weight,
                                const float* coefficients, float* loss, float* energy, void* grad_pred, int64_t images,
                                int64_t columns, int64_t size, int64_t x_columns, int64_t noisy_columns, int64_t planes,
                                float sigma_data, int64_t network) {
    Evaluations e{x,       x_noisy, sigma,     c_skip,        c_out,  weight,     images,
                  columns, size,    x_columns, noisy_columns, planes, sigma_data, network};
    with_dtype(dtype, [&](auto type) {
        using T = decltype(type);
        forward(e, coefficients, static_cast<const T*>(pred), loss, energy, static_cast<T*>(grad_pred));
    });
}
