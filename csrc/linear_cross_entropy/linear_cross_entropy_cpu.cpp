// -log softmax(logits)[target] of a chunk of rows, and the logits' gradient in their own place.

#include "dtype.h"
#include "functions.h"
#include "mclr_fast.h"
#include "parallel.h"

namespace {
using namespace mclr;

constexpr float kNan = __builtin_nanf("");

template <class T>
MCLR_INLINE float element(const T* row, int64_t i) {
    return load(row + i, First{1})[0];
}

template <class T, class Part>
MCLR_INLINE Vector logits_at(const T* row, const float* bias, int64_t i, Part part) {
    Vector x = load(row + i, part);
    return bias ? x + load(bias + i, part) : x;
}

MCLR_INLINE float largest(Vector x, int64_t count) {
    float found = x[0];
    for (int64_t i = 1; i < count; ++i) found = x[i] > found ? x[i] : found;
    return found;
}

// A row's maximum and the sum of exp(logit - maximum).
struct Level {
    float peak, total;
};

template <class T>
Level level_of(const T* row, const float* bias, int64_t vocab) {
    Vector top = fill(-INFINITY), rest = top;
    float peak = -INFINITY;
    for_vectors(vocab, [&](int64_t i, auto part) {
        Vector x = logits_at(row, bias, i, part);
        if (length(part) < kWidth) {
            peak = largest(x, length(part));
        } else if (i / kWidth % 2) {
            top = x > top ? x : top;
        } else {
            rest = x > rest ? x : rest;
        }
    });
    float whole = largest(top > rest ? top : rest, kWidth);
    peak = whole > peak ? whole : peak;

    Vector sums[2] = {fill(0), fill(0)};
    float last = 0;
    for_vectors(vocab, [&](int64_t i, auto part) {
        // As exact as float32 is: over a thousand tokens the short exponential's errors add up.
        Vector e = exp<float>(logits_at(row, bias, i, part) - peak);
        if (length(part) < kWidth) {
            for (int64_t j = 0; j < length(part); ++j) last += e[j];
        } else {
            sums[i / kWidth % 2] += e;
        }
    });
    return {peak, sum(sums[0] + sums[1]) + last};
}

// row = (softmax(row) - one at target) * grad.
template <class T>
void gradient_of(T* row, const float* bias, int64_t target, Level level, float grad, int64_t vocab) {
    const bool known = target >= 0 && target < vocab;
    const float factor = known ? grad / level.total : kNan;
    Vector own = fill(0);
    if (known) own = exp<float>(element(row, target) + (bias ? bias[target] : 0.0f) - fill(level.peak)) * factor - grad;
    for_vectors(vocab, [&](int64_t i, auto part) {
        store(row + i, exp<T>(logits_at(row, bias, i, part) - level.peak) * factor, part);
    });
    if (known) store(row + target, own, First{1});
}

template <class T>
void forward(T* logits, const float* bias, const int64_t* targets, const float* coefficients, float* nll, float* peak,
             float* total, int64_t rows, int64_t vocab) {
    parallel_for(rows, vocab, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
            T* row = logits + r * vocab;
            const int64_t target = targets[r];
            const Level level = level_of(row, bias, vocab);
            peak[r] = level.peak;
            total[r] = level.total;
            nll[r] = kNan;
            if (target >= 0 && target < vocab)
                nll[r] = level.peak - (element(row, target) + (bias ? bias[target] : 0.0f)) + std::log(level.total);
            if (coefficients) gradient_of(row, bias, target, level, coefficients[r], vocab);
        }
    });
}

template <class T>
void backward(T* logits, const float* bias, const int64_t* targets, const float* peak, const float* total,
              const float* grad, int64_t rows, int64_t vocab) {
    parallel_for(rows, vocab, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            gradient_of(logits + r * vocab, bias, targets[r], Level{peak[r], total[r]}, grad[r], vocab);
    });
}

// A block of columns at a time, in the first cache; rows in groups, whose sums are added up, which rounds less than
// adding row by row.
template <class T>
void add_rows(const T* x, float* sums, bool adds, int64_t rows, int64_t width) {
    constexpr int64_t kBlock = 512, kGroup = 32;
    parallel_for((width + kBlock - 1) / kBlock, rows * kBlock, [&](int64_t begin, int64_t end) {
        float group[kBlock];
        for (int64_t block = begin; block < end; ++block) {
            const int64_t first = block * kBlock, count = first + kBlock < width ? kBlock : width - first;
            for (int64_t r = 0; r < rows; ++r) {
                const T* from = x + r * width + first;
                const bool opens = r % kGroup == 0, closes = r % kGroup == kGroup - 1 || r == rows - 1;
                for_vectors(count, [&](int64_t i, auto part) {
                    Vector value = load(from + i, part);
                    if (!opens) value += load(group + i, part);
                    float* sum = sums + first + i;
                    if (!closes)
                        store(group + i, value, part);
                    else if (adds || r >= kGroup)
                        store(sum, load(sum, part) + value, part);
                    else
                        store(sum, value, part);
                });
            }
        }
    });
}

}  // namespace

void mclr_linear_cross_entropy_forward(int64_t dtype, void* logits, const float* bias, const int64_t* targets,
                                       const float* coefficients, float* nll, float* peak, float* total, int64_t rows,
                                       int64_t vocab) {
    with_dtype(dtype, [&](auto type) {
        forward(static_cast<decltype(type)*>(logits), bias, targets, coefficients, nll, peak, total, rows, vocab);
    });
}

void mclr_linear_cross_entropy_backward(int64_t dtype, void* logits, const float* bias, const int64_t* targets,
                                        const float* peak, const float* total, const float* grad, int64_t rows,
                                        int64_t vocab) {
    with_dtype(dtype, [&](auto type) {
        backward(static_cast<decltype(type)*>(logits), bias, targets, peak, total, grad, rows, vocab);
    });
}

void mclr_linear_cross_entropy_add_rows(int64_t dtype, const void* x, float* sums, int64_t adds, int64_t rows,
                                        int64_t width) {
    with_dtype(dtype, [&](auto type) { add_rows(static_cast<const decltype(type)*>(x), sums, adds, rows, width); });
}
