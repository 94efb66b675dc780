// Effective weights of many layers at once, and the gradient back to the weights (EDM2, eq. 47).

#include "weight_norm_scale.h"

#include <vector>

#include "dtype.h"
#include "mclr_fast.h"
#include "stream.h"
#include "tensor_rows.h"

namespace {
using namespace mclr;

// x[i] = from[i stride], and back.
template <class Part>
Vector load_strided(const float* from, int64_t stride, Part part) {
    if (stride == 1) return load(from, part);
#if defined(__AVX512F__)
    __m512i places = _mm512_mullo_epi32((__m512i)lanes(), _mm512_set1_epi32(static_cast<int>(stride)));
    return (Vector)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), first_lanes(part), places, from, 4);
#else
    float x[kWidth] = {};
    for (int64_t i = 0; i < length(part); ++i) x[i] = from[i * stride];
    return load(x, All{});
#endif
}

template <class Part>
void store_strided(float* to, int64_t stride, Vector x, Part part) {
    if (stride == 1) return store(to, x, part);
#if defined(__AVX512F__)
    __m512i places = _mm512_mullo_epi32((__m512i)lanes(), _mm512_set1_epi32(static_cast<int>(stride)));
    _mm512_mask_i32scatter_ps(to, first_lanes(part), places, (__m512)x, 4);
#else
    for (int64_t i = 0; i < length(part); ++i) to[i * stride] = x[i];
#endif
}

float sum_of_squares(const float* row, int64_t size) {
    Vector total{};
    for_vectors(size, [&](int64_t i, auto part) {
        Vector x = load(row + i, part);
        total += x * x;
    });
    return sum(total);
}

// body(weight, row, large) for every row; large: whether the weights leave the caches.
template <class Body>
void for_weights(const mclr_weight* weights, int64_t count, Body body) {
    auto size_of = [&](int64_t i) { return weights[i].in_channels * weights[i].taps; };
    int64_t elements = 0;
    for (int64_t i = 0; i < count; ++i) elements += weights[i].rows * size_of(i);
    bool large = leaves_caches<float>(elements);
    for_tensor_rows(
        count, [&](int64_t i) { return weights[i].rows; }, size_of,
        [&](int64_t i, int64_t row) { body(i, row, large); });
}

template <class T>
void forward_row(const mclr_weight& w, int64_t row, bool large) {
    int64_t size = w.in_channels * w.taps;
    const float* from = w.weight + row * size;
    float factor = weight_factor(sum_of_squares(from, size), size, w.gain ? *w.gain : 1.0f);
    T* to = static_cast<T*>(w.out) + row * size;
    // [in, taps] -> [taps, in].
    for (int64_t tap = 0; tap < w.taps; ++tap, to += w.in_channels)
        with_streaming(large && streamable(to), [&](auto whole) {
            for_registers(w.in_channels, whole, [&](int64_t i, auto part) {
                // The next row is fetched meanwhile: this one lies in the first cache, and leaves memory idle.
                __builtin_prefetch(from + size + tap * w.in_channels + i);
                store(to + i, load_strided(from + i * w.taps + tap, w.taps, part) * factor, part);
            });
        });
}

// Returns the row's share of the gain's gradient.
template <class T>
float backward_row(const mclr_weight& w, int64_t row, std::vector<float>& buffer, bool large) {
    int64_t size = w.in_channels * w.taps;
    const float* weight = w.weight + row * size;
    const T* grad_out = static_cast<const T*>(w.grad_out) + row * size;
    buffer.resize(size);
    float* grad = buffer.data();  // grad_out in the weight's order
    for (int64_t tap = 0; tap < w.taps; ++tap)
        for_vectors(w.in_channels, [&](int64_t i, auto part) {
            Vector x = load(grad_out + tap * w.in_channels + i, part);
            store_strided(grad + i * w.taps + tap, w.taps, x, part);
        });
    Vector products{};
    for_vectors(size, [&](int64_t i, auto part) { products += load(grad + i, part) * load(weight + i, part); });
    WeightGradient gradient =
        weight_gradient(sum_of_squares(weight, size), sum(products), size, w.gain ? *w.gain : 1.0f);
    float* to = w.grad_weight + row * size;
    with_streaming(large && streamable(to), [&](auto whole) {
        for_registers(size, whole, [&](int64_t i, auto part) {
            store(to + i, load(grad + i, part) * gradient.of_grad - load(weight + i, part) * gradient.of_weight, part);
        });
    });
    return gradient.grad_gain;
}

}  // namespace

void mclr_weight_norm_scale_forward(const mclr_weight* weights, int64_t count) {
    for_weights(weights, count, [&](int64_t i, int64_t row, bool large) {
        with_dtype(weights[i].dtype, [&](auto type) { forward_row<decltype(type)>(weights[i], row, large); });
    });
}

void mclr_weight_norm_scale_backward(const mclr_weight* weights, int64_t count) {
    std::vector<std::vector<float>> shares(count);
    for (int64_t i = 0; i < count; ++i)
        if (weights[i].grad_gain) shares[i].resize(weights[i].rows);
    for_weights(weights, count, [&](int64_t i, int64_t row, bool large) {
        thread_local std::vector<float> buffer;
        with_dtype(weights[i].dtype, [&](auto type) {
            float share = backward_row<decltype(type)>(weights[i], row, buffer, large);
            if (weights[i].grad_gain) shares[i][row] = share;
        });
    });
    for (int64_t i = 0; i < count; ++i) {
        if (!weights[i].grad_gain) continue;
        double total = 0;
        for (float share : shares[i]) total += share;
        *weights[i].grad_gain = static_cast<float>(total);
    }
}
