// exp, sigmoid and mp_silu of a register of floats, as exactly as a result of element type T can show: for
// bfloat16 shorter polynomials and no Newton step, with errors below 1e-4 where its half step is 2e-3.
#pragma once

#include <type_traits>

#include "vector.h"

namespace mclr {

// exp(x) for x in [-87, 88], clamped to it; a NaN stays one. Float32: error below 2 units in the last place.
template <class T>
MCLR_INLINE Vector exp(Vector x) {
    x = greater_of(-87.0f, lesser_of(88.0f, x));
    const float shift = 12582912.0f;  // 1.5 2^23: adding it rounds to an integer, held in the low bits
    Vector shifted = x * 1.44269504f + shift;
    Vector n = shifted - shift;
    Vector p, r = x - n * 0.693359375f;  // x - n ln 2, in two steps
    r = r + n * 2.12194440e-4f;
    if (std::is_same<T, float>::value) {
        p = r * 0x1.6a2432p-10f + 0x1.1239e2p-7f;
        p = p * r + 0x1.5558f2p-5f;
        p = p * r + 0x1.555492p-3f;
        p = p * r + 0x1.fffffcp-2f;
    } else {
        p = r * 0x1.52258cp-5f + 0x1.571cc2p-3f;
        p = p * r + 0x1.0006b6p-1f;
    }
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return bit_cast<Vector>(bit_cast<Ints>(p) + (bit_cast<Ints>(shifted) << 23));
}

// 1 / (1 + exp(-x)).
template <class T>
MCLR_INLINE Vector sigmoid(Vector x) {
    Vector y = 1.0f + exp<T>(-x);
    return std::is_same<T, float>::value ? reciprocal(y) : short_reciprocal(y);
}

constexpr float kSiluScale = 1.0f / 0.596f;  // EDM2, eq. 81

template <class T>
MCLR_INLINE Vector mp_silu(Vector x) {
    return x * kSiluScale * sigmoid<T>(x);
}

// d mp_silu / dx.
template <class T>
MCLR_INLINE Vector mp_silu_slope(Vector x) {
    Vector s = sigmoid<T>(x);
    return (s + x * s * (1.0f - s)) * kSiluScale;
}

}  // namespace mclr
