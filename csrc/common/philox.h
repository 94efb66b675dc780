// Philox4x32-10 (Salmon et al., SC 2011), a register of counters at a time; the numbers of
// mclr_fast/ops/reference/philox.py.
#pragma once

#include "vector.h"

namespace mclr {

// What keys a sample's numbers, split into 32-bit words.
struct PhiloxKey {
    uint32_t seed[2];
    uint32_t stream;
    uint32_t position[2];
};

MCLR_INLINE PhiloxKey philox_key(int64_t seed, int64_t stream, int64_t position) {
    return {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
            static_cast<uint32_t>(stream),
            {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32)}};
}

// High words of the 64-bit products a * factor; `low` gets their low words.
MCLR_INLINE Words multiply(Words a, uint32_t factor, Words& low) {
#if defined(__AVX512F__)
    __m512i x = (__m512i)a, f = _mm512_set1_epi64(factor);
    __m512i even = _mm512_mul_epu32(x, f), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), f);
    low = (Words)_mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
    return (Words)_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
#elif defined(__AVX2__)
    __m256i x = (__m256i)a, f = _mm256_set1_epi64x(factor);
    __m256i even = _mm256_mul_epu32(x, f), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), f);
    low = (Words)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    return (Words)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#else
    Words high;
    for (int i = 0; i < kWidth; ++i) {
        uint64_t product = static_cast<uint64_t>(a[i]) * factor;
        low[i] = static_cast<uint32_t>(product);
        high[i] = static_cast<uint32_t>(product >> 32);
    }
    return high;
#endif
}

struct FourWords {
    Words word[4];
};

// The four words of each block (four consecutive elements of a sample).
MCLR_INLINE FourWords philox(Words block, const PhiloxKey& key) {
    Words c0 = block, c1 = Words{} + key.stream, c2 = Words{} + key.position[0], c3 = Words{} + key.position[1];
    uint32_t k0 = key.seed[0], k1 = key.seed[1];
    for (int round = 0; round < 10; ++round) {
        Words low0, low1;
        Words high0 = multiply(c0, 0xD2511F53u, low0), high1 = multiply(c2, 0xCD9E8D57u, low1);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// Uniform numbers in [0, 1) with 24 bits.
MCLR_INLINE Vector uniform(Words words) {
    return __builtin_convertvector(bit_cast<Ints>(words >> 8), Vector) * 0x1p-24f;
}

}  // namespace mclr
