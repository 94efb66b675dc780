// Between planes, as the images' tensors have them, and pixels with their channels side by side, as the
// network's have them; a few channels are interleaved in registers.
#pragma once

#include <utility>

#include "stream.h"

namespace mclr {

// Lane i of the result is element index[i] of a followed by b.
template <int... INDEX>
MCLR_INLINE Vector shuffle(Vector a, Vector b, std::integer_sequence<int, INDEX...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, INDEX...);
#else
    return __builtin_shuffle(a, b, Ints{INDEX...});
#endif
}

// Part OUT of K interleaved planes: plane `in` joins what the planes before it have filled in.
template <int K, int OUT, int IN>
struct Interleaved {
    static constexpr int index(int lane) {
        int place = OUT * kWidth + lane;
        if (place % K == IN) return kWidth + place / K;
        return IN == 1 && place % K == 0 ? place / K : lane;
    }
};

// Plane OUT of K interleaved ones: part `in` joins what the parts before it have filled in.
template <int K, int OUT, int IN>
struct Separated {
    static constexpr int index(int lane) {
        int place = lane * K + OUT;
        if (place / kWidth == IN) return kWidth + place % kWidth;
        return IN == 1 && place / kWidth == 0 ? place % kWidth : lane;
    }
};

template <class Map, int... LANE>
constexpr auto indices(std::integer_sequence<int, LANE...>) {
    return std::integer_sequence<int, Map::index(LANE)...>{};
}

template <template <int, int, int> class Map, int K, int OUT, int... IN>
MCLR_INLINE Vector gather(const Vector (&from)[K], std::integer_sequence<int, IN...>) {
    using Lanes = std::make_integer_sequence<int, kWidth>;
    Vector to = from[0];
    ((to = shuffle(to, from[IN + 1], indices<Map<K, OUT, IN + 1>>(Lanes{}))), ...);
    return to;
}

template <template <int, int, int> class Map, int K, int... OUT>
MCLR_INLINE void rearrange(Vector (&v)[K], std::integer_sequence<int, OUT...>) {
    Vector to[K] = {gather<Map, K, OUT>(v, std::make_integer_sequence<int, K - 1>{})...};
    ((v[OUT] = to[OUT]), ...);
}

// v[c] lane p becomes element p K + c of the registers taken together, and back.
template <int K>
MCLR_INLINE void interleave(Vector (&v)[K]) {
    rearrange<Interleaved>(v, std::make_integer_sequence<int, K>{});
}

template <int K>
MCLR_INLINE void separate(Vector (&v)[K]) {
    rearrange<Separated>(v, std::make_integer_sequence<int, K>{});
}

template <int K, class T, class WHOLE>
inline void planes_to_pixels(const float* planes, int64_t stride, int64_t pixels, T* to, WHOLE whole) {
    int64_t p = 0;
    for (; p + kWidth <= pixels; p += kWidth) {
        Vector v[K];
        for (int c = 0; c < K; ++c) v[c] = load(planes + c * stride + p, All{});
        interleave(v);
        for (int c = 0; c < K; ++c) store(to + p * K + c * kWidth, v[c], whole);
    }
    for (; p < pixels; ++p)
        for (int c = 0; c < K; ++c) store(to + p * K + c, fill(planes[c * stride + p]), First{1});
}

template <int K, class T>
inline void pixels_to_planes(const T* from, int64_t pixels, float* planes, int64_t stride) {
    int64_t p = 0;
    for (; p + kWidth <= pixels; p += kWidth) {
        Vector v[K];
        for (int c = 0; c < K; ++c) v[c] = load(from + p * K + c * kWidth, All{});
        separate(v);
        for (int c = 0; c < K; ++c) store(planes + c * stride + p, v[c], All{});
    }
    for (; p < pixels; ++p)
        for (int c = 0; c < K; ++c) planes[c * stride + p] = load(from + p * K + c, First{1})[0];
}

// planes: rows of `pixels` floats, `stride` apart, one a channel -> to: [pixels, channels], stored past the caches
// if `large`.
template <class T>
MCLR_INLINE void planes_to_pixels(const float* planes, int64_t stride, int64_t pixels, int64_t channels, T* to,
                                  bool large) {
    with_streaming(large && streamable(to), [&](auto whole) {
        if (channels == 1) return planes_to_pixels<1>(planes, stride, pixels, to, whole);
        if (channels == 2) return planes_to_pixels<2>(planes, stride, pixels, to, whole);
        if (channels == 3) return planes_to_pixels<3>(planes, stride, pixels, to, whole);
        if (channels == 4) return planes_to_pixels<4>(planes, stride, pixels, to, whole);
        if (channels == 5) return planes_to_pixels<5>(planes, stride, pixels, to, whole);
        for (int64_t p = 0; p < pixels; ++p)
            for (int64_t c = 0; c < channels; ++c) store(to + p * channels + c, fill(planes[c * stride + p]), First{1});
    });
}

// from: [pixels, channels] -> planes: rows of `pixels` floats, `stride` apart, one a channel.
template <class T>
inline void pixels_to_planes(const T* from, int64_t pixels, int64_t channels, float* planes, int64_t stride) {
    if (channels == 2) return pixels_to_planes<2>(from, pixels, planes, stride);
    if (channels == 3) return pixels_to_planes<3>(from, pixels, planes, stride);
    if (channels == 4) return pixels_to_planes<4>(from, pixels, planes, stride);
    for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < channels; ++c) planes[c * stride + p] = load(from + p * channels + c, First{1})[0];
}

}  // namespace mclr
