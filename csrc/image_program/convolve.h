// A direct convolution of one image, a register of output channels at a time, and its weights' layout.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "mclr_fast.h"
#include "vector.h"

namespace mclr {

constexpr int kPositions = 8;  // outputs of a convolution computed at once

// How a convolution fills registers: several neighbouring pixels of one where it has few output channels. A
// position's input is then wider, and the weights are zero where a pixel has no tap.
struct Packing {
    int64_t pixels, registers, columns;  // pixels in a register; registers a position; columns of the input it reads

    Packing(int64_t out_channels, int64_t kernel, int64_t width) {
        pixels = std::max<int64_t>(kWidth / out_channels, 1);
        while (width % pixels) --pixels;
        registers = (out_channels + kWidth - 1) / kWidth;
        columns = kernel - 1 + pixels;
    }
};

// What a convolution multiplies: float32, or bfloat16 with sums in float32. kTaps of its taps are one product; sums of
// kPositions kChains products hide a multiply-add's latency. A processor without products of bfloat16 takes the same
// values as floats.
template <class T>
struct Operand {
    using Element = float;
    static constexpr int64_t kTaps = 1, kChains = 1;

    static MCLR_INLINE void convert(const float* from, float* to, int64_t count) {
        if (std::is_same<T, float>::value) {
            std::memcpy(to, from, count * sizeof(float));
        } else {
            for_vectors(count, [&](int64_t i, auto part) { store(to + i, widen(narrow(load(from + i, part))), part); });
        }
    }
    static MCLR_INLINE Vector multiply_add(Vector total, Vector weight, const float* x) { return total + weight * *x; }
};

#if defined(__AVX512BF16__)
template <>
struct Operand<bfloat16> {
    using Element = bfloat16;
    static constexpr int64_t kTaps = 2, kChains = 2;

    static MCLR_INLINE void convert(const float* from, bfloat16* to, int64_t count) {
        for_vectors(count, [&](int64_t i, auto part) { store(to + i, load(from + i, part), part); });
    }
    static MCLR_INLINE Vector multiply_add(Vector total, Vector weight, const bfloat16* x) {
        int32_t pair;
        std::memcpy(&pair, x, sizeof(pair));
        return (Vector)_mm512_dpbf16_ps((__m512)total, (__m512bh)weight, (__m512bh)_mm512_set1_epi32(pair));
    }
};
#endif

template <class T>
using Element = typename Operand<T>::Element;

// How many taps are multiplied of a kernel's row: whole groups, the last one's weights 0 where there are no more.
template <class T>
int64_t taps_of_row(const Packing& packing, int64_t in_channels) {
    constexpr int64_t kGroup = Operand<T>::kTaps * Operand<T>::kChains;
    return (packing.columns * in_channels + kGroup - 1) / kGroup * kGroup;
}

// scratch = x with a border of zeros, [height + 2 border, width + 2 border, channels], and a group's zeros behind it.
template <class T>
void pad(const float* x, const mclr_step& s, int64_t border, Element<T>* scratch) {
    constexpr int64_t kGroup = Operand<T>::kTaps * Operand<T>::kChains;
    int64_t row = s.width * s.in_channels, side = border * s.in_channels, padded = row + 2 * side;
    std::fill(scratch, scratch + border * padded, Element<T>{});
    for (int64_t y = 0; y < s.height; ++y) {
        Element<T>* to = scratch + (y + border) * padded;
        std::fill(to, to + side, Element<T>{});
        Operand<T>::convert(x + y * row, to + side, row);
        std::fill(to + side + row, to + padded, Element<T>{});
    }
    int64_t end = (s.height + 2 * border) * padded;
    std::fill(scratch + end - border * padded, scratch + end + kGroup - 1, Element<T>{});
}

template <class T>
void convolve(const mclr_step& s, const float* image, float* out, float* scratch) {
    constexpr int64_t kTaps = Operand<T>::kTaps, kChains = Operand<T>::kChains;
    const Packing packing(s.out_channels, s.kernel, s.width);
    int64_t border = s.kernel - 1;
    const auto* x = reinterpret_cast<const Element<T>*>(image);
    if (border || !std::is_same<T, float>::value) {
        pad<T>(image, s, border / 2, reinterpret_cast<Element<T>*>(scratch));
        x = reinterpret_cast<const Element<T>*>(scratch);
    }
    int64_t row = (s.width + border) * s.in_channels, taps = taps_of_row<T>(packing, s.in_channels);
    int64_t across = s.width / packing.pixels, positions = s.height * across;
    for (int64_t first = 0; first < positions; first += kPositions) {
        const Element<T>* from[kPositions];
        for (int p = 0; p < kPositions; ++p) {  // past the end: the last one again
            int64_t at = std::min(first + p, positions - 1);
            from[p] = x + at / across * row + at % across * packing.pixels * s.in_channels;
        }
        int64_t count = std::min<int64_t>(kPositions, positions - first);
        const auto* weight = static_cast<const float*>(s.weight);
        for (int64_t v = 0; v < packing.registers; ++v) {
            Vector sums[kChains][kPositions] = {};
            for (int64_t y = 0; y < s.kernel; ++y)
                for (int64_t i = 0; i < taps; i += kTaps * kChains, weight += kWidth * kChains)
                    for (int chain = 0; chain < kChains; ++chain) {
                        Vector w = load(weight + chain * kWidth, All{});
                        for (int p = 0; p < kPositions; ++p)
                            sums[chain][p] =
                                Operand<T>::multiply_add(sums[chain][p], w, from[p] + y * row + i + chain * kTaps);
                    }
            Vector total[kPositions];
            for (int p = 0; p < kPositions; ++p) {
                total[p] = sums[0][p];
                for (int chain = 1; chain < kChains; ++chain) total[p] += sums[chain][p];
            }
            int64_t stride = packing.pixels * s.out_channels;
            float* to = out + first * stride + v * kWidth;
            int64_t lanes = std::min<int64_t>(stride - v * kWidth, kWidth);
            for (int64_t p = 0; p < count; ++p) {
                if (lanes == kWidth)
                    store(to + p * stride, total[p], All{});
                else
                    store(to + p * stride, total[p], First{lanes});
            }
        }
    }
}

// Weights of a row's taps, in groups: those that one product takes lie beside one another in a lane.
template <class T>
void pack(const float* weight, Element<T>* packed, int64_t out_channels, int64_t in_channels, int64_t kernel,
          int64_t width) {
    constexpr int64_t kTaps = Operand<T>::kTaps;
    Packing packing(out_channels, kernel, width);
    int64_t taps = taps_of_row<T>(packing, in_channels);
    for (int64_t v = 0; v < packing.registers; ++v)
        for (int64_t y = 0; y < kernel; ++y, packed += taps * kWidth)
            for (int64_t i = 0; i < taps; ++i)
                for (int64_t lane = 0; lane < kWidth; ++lane) {
                    int64_t at = v * kWidth + lane, pixel = at / out_channels, o = at % out_channels;
                    int64_t x = i / in_channels - pixel, c = i % in_channels;
                    bool inside = pixel < packing.pixels && x >= 0 && x < kernel;
                    float value = inside ? weight[((o * kernel + y) * kernel + x) * in_channels + c] : 0;
                    Operand<T>::convert(&value, packed + (i / kTaps * kWidth + lane) * kTaps + i % kTaps, 1);
                }
}

}  // namespace mclr
