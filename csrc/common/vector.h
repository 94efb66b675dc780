// A register of floats as a type, the same source for every instruction set: GCC's and clang's vector
// extensions, with the width of the set this file is compiled for.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mclr {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Words __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));

#define MCLR_INLINE inline __attribute__((always_inline))

struct bfloat16 {
    uint16_t bits;
};

template <class To, class From>
MCLR_INLINE To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

MCLR_INLINE Vector fill(float value) { return Vector{} + value; }

// GCC 12 converts between 16 and 32 bits in halves of a register, which takes thrice as long.
MCLR_INLINE Words to_words(Halves bits) {
#if defined(__AVX512F__)
    return (Words)_mm512_cvtepu16_epi32((__m256i)bits);
#elif defined(__AVX2__)
    return (Words)_mm256_cvtepu16_epi32((__m128i)bits);
#else
    return __builtin_convertvector(bits, Words);
#endif
}

MCLR_INLINE Halves to_halves(Words words) {
#if defined(__AVX512F__)
    return (Halves)_mm512_cvtepi32_epi16((__m512i)words);
#elif defined(__AVX2__)
    __m256i packed = _mm256_packus_epi32((__m256i)words, (__m256i)words);
    return (Halves)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
    return __builtin_convertvector(words, Halves);
#endif
}

MCLR_INLINE Vector widen(Halves bits) { return bit_cast<Vector>(to_words(bits) << 16); }

// Round to nearest, ties to even; a NaN stays one.
MCLR_INLINE Halves narrow(Vector x) {
#if defined(__AVX512BF16__)
    return (Halves)_mm512_cvtneps_pbh((__m512)x);
#else
    Words bits = bit_cast<Words>(x);
    Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    rounded = x == x ? rounded : Words{} + 0x7fc0;
    return to_halves(rounded);
#endif
}

// How many elements of a register a loop's body handles: all, or the last few.
struct All {};
struct First {
    int64_t count;
};

MCLR_INLINE int64_t length(All) { return kWidth; }
MCLR_INLINE int64_t length(First part) { return part.count; }

#if defined(__AVX512F__)
MCLR_INLINE __mmask16 first_lanes(All) { return 0xffff; }
MCLR_INLINE __mmask16 first_lanes(First part) { return static_cast<__mmask16>((1u << part.count) - 1); }
#endif

MCLR_INLINE Vector load(const float* from, All) {
    Vector x;
    std::memcpy(&x, from, sizeof(x));
    return x;
}

MCLR_INLINE Vector load(const bfloat16* from, All) {
    Halves bits;
    std::memcpy(&bits, from, sizeof(bits));
    return widen(bits);
}

MCLR_INLINE void store(float* to, Vector x, All) { std::memcpy(to, &x, sizeof(x)); }

MCLR_INLINE void store(bfloat16* to, Vector x, All) {
    Halves bits = narrow(x);
    std::memcpy(to, &bits, sizeof(bits));
}

// The rest of a row: elements past it read as 0.
#if defined(__AVX512F__)
MCLR_INLINE Vector load(const float* from, First part) {
    return (Vector)_mm512_maskz_loadu_ps(first_lanes(part), from);
}

MCLR_INLINE Vector load(const bfloat16* from, First part) {
    return widen((Halves)_mm256_maskz_loadu_epi16(first_lanes(part), from));
}

MCLR_INLINE void store(float* to, Vector x, First part) { _mm512_mask_storeu_ps(to, first_lanes(part), (__m512)x); }

MCLR_INLINE void store(bfloat16* to, Vector x, First part) {
    _mm256_mask_storeu_epi16(to, first_lanes(part), (__m256i)narrow(x));
}
#else
template <class T>
MCLR_INLINE Vector load(const T* from, First part) {
    T buffer[kWidth] = {};
    for (int64_t i = 0; i < part.count; ++i) buffer[i] = from[i];
    return load(buffer, All{});
}

template <class T>
MCLR_INLINE void store(T* to, Vector x, First part) {
    T buffer[kWidth];
    store(buffer, x, All{});
    for (int64_t i = 0; i < part.count; ++i) to[i] = buffer[i];
}
#endif

// body(i, All) for whole registers from i on, then body(i, First) for what is left of `count`.
template <class Body>
MCLR_INLINE void for_vectors(int64_t count, Body body) {
    int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) body(i, All{});
    if (i < count) body(i, First{count - i});
}

// 0, 1, 2 .. in the lanes.
MCLR_INLINE Words lanes() {
    Words index;
    for (int i = 0; i < kWidth; ++i) index[i] = static_cast<uint32_t>(i);
    return index;
}

typedef float Four __attribute__((vector_size(16)));

// Halves are added until four lanes are left, which have registers of their own on every processor.
MCLR_INLINE float sum(Vector x) {
    Four parts[kWidth / 4];
    std::memcpy(parts, &x, sizeof(x));
#pragma GCC unroll 2
    for (int step = kWidth / 8; step > 0; step /= 2)
#pragma GCC unroll 2
        for (int i = 0; i < step; ++i) parts[i] += parts[i + step];
    return (parts[0][0] + parts[0][2]) + (parts[0][1] + parts[0][3]);
}

// 1 / x to 14 bits, or exactly where that is as fast.
MCLR_INLINE Vector short_reciprocal(Vector x) {
#if defined(__AVX512F__)
    return (Vector)_mm512_rcp14_ps((__m512)x);
#else
    return 1.0f / x;
#endif
}

// 1 / x.
MCLR_INLINE Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
    Vector y = short_reciprocal(x);
    return y + y * (1.0f - x * y);
#else
    return 1.0f / x;
#endif
}

// min(bound, x) and max(bound, x); a NaN in x stays one.
MCLR_INLINE Vector lesser_of(float bound, Vector x) {
#if defined(__AVX512F__)
    return (Vector)_mm512_min_ps((__m512)fill(bound), (__m512)x);
#elif defined(__AVX2__)
    return (Vector)_mm256_min_ps((__m256)fill(bound), (__m256)x);
#else
    return x > bound ? fill(bound) : x;
#endif
}

MCLR_INLINE Vector greater_of(float bound, Vector x) {
#if defined(__AVX512F__)
    return (Vector)_mm512_max_ps((__m512)fill(bound), (__m512)x);
#elif defined(__AVX2__)
    return (Vector)_mm256_max_ps((__m256)fill(bound), (__m256)x);
#else
    return x < bound ? fill(bound) : x;
#endif
}

}  // namespace mclr
