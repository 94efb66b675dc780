// Stores past the caches, for results too large to stay in them: a plain store first reads its line.
#pragma once

#include "vector.h"

namespace mclr {

constexpr int64_t kStreamBytes = int64_t{64} << 20;  // results of this size and more leave the caches anyway

// As All, but stores go past the caches; the address is a multiple of the register's size.
struct Streaming : All {};

MCLR_INLINE void store(float* to, Vector x, Streaming) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)x);
#elif defined(__AVX2__)
    _mm256_stream_ps(to, (__m256)x);
#else
    store(to, x, All{});
#endif
}

MCLR_INLINE void store(bfloat16* to, Vector x, Streaming) {
#if defined(__AVX512F__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)narrow(x));
#elif defined(__AVX2__)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)narrow(x));
#else
    store(to, x, All{});
#endif
}

// Whether a result of `count` elements is too large to stay in the caches.
template <class T>
MCLR_INLINE bool leaves_caches(int64_t count) {
    return count * static_cast<int64_t>(sizeof(T)) >= kStreamBytes;
}

template <class T>
MCLR_INLINE bool streamable(const T* to) {
    return reinterpret_cast<uintptr_t>(to) % (kWidth * sizeof(T)) == 0;
}

// body(Streaming) where that is wanted, else body(All).
template <class Body>
MCLR_INLINE void with_streaming(bool stream, Body body) {
    if (stream)
        body(Streaming{});
    else
        body(All{});
}

// for_vectors with body(i, WHOLE) for whole registers.
template <class WHOLE, class Body>
MCLR_INLINE void for_registers(int64_t count, WHOLE whole, Body body) {
    int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth) body(i, whole);
    if (i < count) body(i, First{count - i});
}

// Other threads see what was streamed before this only after it.
MCLR_INLINE void end_streaming() {
#if defined(__AVX512F__) || defined(__AVX2__)
    _mm_sfence();
#endif
}

}  // namespace mclr
