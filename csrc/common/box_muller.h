// Standard normals from Philox's words by Box-Muller; the numbers of random_normal in
// mclr_fast/ops/reference/philox.py, which computes them in float64, to 1e-6 max(1, |number|).
#pragma once

#include "interleave.h"
#include "philox.h"

namespace mclr {

MCLR_INLINE Vector square_root(Vector x) {
#if defined(__AVX512F__)
    return (Vector)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (Vector)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < kWidth; ++i) x[i] = std::sqrt(x[i]);
    return x;
#endif
}

// sqrt(-2 ln u) of u = (word / 2^8 + 1) / 2^24, the division rounding down.
MCLR_INLINE Vector normal_radius(Words word) {
    constexpr int32_t kHalfRoot = 0x3f3504f3;  // sqrt(1/2): mantissas lie in [sqrt(1/2), sqrt(2))
    Ints bits = bit_cast<Ints>(__builtin_convertvector(bit_cast<Ints>(word >> 8) + 1, Vector)) - kHalfRoot;
    Vector exponent = __builtin_convertvector((bits >> 23) - 24, Vector);
    Vector f = bit_cast<Vector>((bits & 0x7fffff) + kHalfRoot) - 1.0f;
    // ln(1 + f) = f + f^2 p(f): exact where u nears 1, where the radius nears 0.
    Vector p = fill(8.9795281389e-2f);
    p = p * f - 1.4426879223e-1f;
    p = p * f + 1.4883683301e-1f;
    p = p * f - 1.6551787969e-1f;
    p = p * f + 1.9963477086e-1f;
    p = p * f - 2.5002583696e-1f;
    p = p * f + 3.3333933289e-1f;
    p = p * f - 4.9999983099e-1f;
    Vector log = f + (f * f) * p;
    return square_root(exponent * -1.38629436f - 2.0f * log);
}

// cos and sin of 2 pi (word / 2^8) / 2^24: the nearest quarter turn and what is left of it are exact.
MCLR_INLINE void normal_direction(Words word, Vector& cosine, Vector& sine) {
    constexpr uint32_t kSign = 0x80000000u, kQuarter = 0x40000000u, kEighth = 0x20000000u;
    word &= 0xffffff00u;
    Vector t = __builtin_convertvector(bit_cast<Ints>(word << 2), Vector) * 0x1p-32f;  // quarter turns, |t| <= 1/2
    Vector square = t * t;
    Vector s = fill(-4.6021769967e-3f);
    s = s * square + 7.9680228067e-2f;
    s = s * square - 6.4596347864e-1f;
    s = (s * square + 1.5707963220f) * t;
    Vector c = fill(-2.0426250245e-2f);
    c = c * square + 2.5360636190e-1f;
    c = c * square - 1.2336979540f;
    c = c * square + 1.0f;
    Words quarter = word + kEighth;  // the upper two bits count quarter turns
    Ints odd = (quarter & kQuarter) != 0;
    cosine = bit_cast<Vector>(bit_cast<Words>(odd ? s : c) ^ ((quarter + kQuarter) & kSign));
    sine = bit_cast<Vector>(bit_cast<Words>(odd ? c : s) ^ (quarter & kSign));
}

// The 4 kWidth normals of elements 4 block to 4 (block + kWidth) - 1 of a sample, in order.
MCLR_INLINE void normals(uint32_t block, const PhiloxKey& key, Vector (&z)[4]) {
    FourWords words = philox(lanes() + block, key);
    for (int pair = 0; pair < 4; pair += 2) {
        Vector radius = normal_radius(words.word[pair]), cosine, sine;
        normal_direction(words.word[pair + 1], cosine, sine);
        z[pair] = radius * cosine;
        z[pair + 1] = radius * sine;
    }
    interleave(z);
}

}  // namespace mclr
