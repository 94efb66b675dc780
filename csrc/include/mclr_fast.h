// The whole C interface of the kernels: plain pointers and sizes, no torch. Every function runs on the
// caller's thread (CPU, with OpenMP inside) or on the given CUDA stream, allocates nothing and keeps nothing.
//
// Every argument is a pointer, an int64_t or a float: setup.py reads them here and writes them into build.json, which
// Python's declarations are made of.
//
// Activations are channels_last: [images, pixels, channels]. An operand marked "shared" may hold one image
// for every `columns` images of the result. Tensors of type `const void*` or `void*` have the dtype given.

#ifndef MCLR_FAST_H
#define MCLR_FAST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mclr_dtype { MCLR_FLOAT32 = 0, MCLR_BFLOAT16 = 1, MCLR_FLOAT16 = 2 };

// One weight of weight_norm_scale. Rows are output channels.
typedef struct {
    const float* weight;   // [rows, in_channels, taps]
    const float* gain;     // one number; NULL = 1
    void* out;             // forward: [rows, taps, in_channels] of `dtype`
    const void* grad_out;  // backward: as `out`
    float* grad_weight;    // backward: [rows, in_channels, taps]
    float* grad_gain;      // backward: one number, set; NULL where gain is
    int64_t rows, in_channels, taps;
    int64_t dtype;  // enum mclr_dtype
} mclr_weight;

// One parameter of adam_norm_ema_: `rows` rows of `row_size` numbers.
typedef struct {
    float* param;
    const float* grad;
    float* exp_avg;
    float* exp_avg_sq;
    float* average[2];  // NULL where there are fewer averages
    int64_t rows, row_size;
    int64_t normalized;  // 1: every row is normalised after the averages
} mclr_parameter;

// Adam's numbers of one step: bias1 = 1 - beta1^step, bias2_sqrt = sqrt(1 - beta2^step).
typedef struct {
    double lr, beta1, beta2, eps, bias1, bias2_sqrt;
    double average_beta[2];
} mclr_adam;

// --- Activations: CPU. `dtype` is MCLR_FLOAT32 or MCLR_BFLOAT16. ---------------------------------

// out = mp_silu(y (1 + emb)) keep / (1 - dropout).
// y: [images, pixels, channels]; emb: [emb_rows, channels], emb_rows = images columns or 1; out and grad:
// [images columns, pixels, channels]; position: one an evaluation, unused without dropout.
void mclr_modulate_silu_forward(int64_t dtype, const void* y, const float* emb, void* out, int64_t images,
                                int64_t columns, int64_t pixels, int64_t channels, int64_t emb_rows, float dropout,
                                int64_t seed, int64_t stream, const int64_t* position);
void mclr_modulate_silu_backward(int64_t dtype, const void* grad, const void* y, const float* emb, void* grad_y,
                                 float* grad_emb, int64_t images, int64_t columns, int64_t pixels, int64_t channels,
                                 int64_t emb_rows, float dropout, int64_t seed, int64_t stream,
                                 const int64_t* position);

// out = clamp(weight_a a + weight_b b, -clip, clip), clip may be infinite; silu = mp_silu(out), NULL for none.
// a: [images, size] if a_shared (0 or 1), else [images columns, size], as the results; b likewise. Not both are
// shared. Backward: `out` is read, and may only be NULL otherwise, if clip is finite or grad_silu is not NULL.
void mclr_mp_sum_clip_forward(int64_t dtype, const void* a, const void* b, void* out, void* silu, int64_t images,
                              int64_t columns, int64_t size, int64_t a_shared, int64_t b_shared, float weight_a,
                              float weight_b, float clip);
void mclr_mp_sum_clip_backward(int64_t dtype, const void* grad, const void* grad_silu, const void* out, void* grad_a,
                               void* grad_b, int64_t images, int64_t columns, int64_t size, int64_t a_shared,
                               int64_t b_shared, float weight_a, float weight_b, float clip);

// cat = (scale_a a, scale_b b) along channels, y = mp_silu(cat).
// a: [images or images columns, pixels, channels_a], b: [.., pixels, channels_b], shared as in mp_sum_clip;
// cat, y and their gradients: [images columns, pixels, channels_a + channels_b].
void mclr_mp_cat_silu_forward(int64_t dtype, const void* a, const void* b, void* cat, void* y, int64_t images,
                              int64_t columns, int64_t pixels, int64_t channels_a, int64_t channels_b, int64_t a_shared,
                              int64_t b_shared, float scale_a, float scale_b);
void mclr_mp_cat_silu_backward(int64_t dtype, const void* grad_cat, const void* grad_y, const void* cat, void* grad_a,
                               void* grad_b, int64_t images, int64_t columns, int64_t pixels, int64_t channels_a,
                               int64_t channels_b, int64_t a_shared, int64_t b_shared, float scale_a, float scale_b);

// n = x / (1e-4 + rms over channels), y = mp_silu(n); all [pixels, channels], pixels of all images.
void mclr_pixel_norm_silu_forward(int64_t dtype, const void* x, void* n, void* y, int64_t pixels, int64_t channels);
void mclr_pixel_norm_silu_backward(int64_t dtype, const void* grad_n, const void* grad_y, const void* x, void* grad_x,
                                   int64_t pixels, int64_t channels);

// out: [images, 2 height, 2 width, channels], pixel (2h + i, 2w + j) being pixel (h, w) of x [images, height, width,
// channels]; or, if `phases` is 1 and not 0, phase 2i + j of window (h + i, w + j) of x [images, height + 1, width + 1,
// 4, channels]. All times `scale`; backward alone with `phases` 0 is the sum of every four pixels, times `scale`.
void mclr_double_pixels_forward(int64_t dtype, const void* x, void* out, int64_t images, int64_t height, int64_t width,
                                int64_t channels, int64_t phases, float scale);
void mclr_double_pixels_backward(int64_t dtype, const void* grad, void* grad_x, int64_t images, int64_t height,
                                 int64_t width, int64_t channels, int64_t phases, float scale);

// q, k, v: [images, heads, pixels, depth], each pixel's channels divided by (1e-4 + their rms).
// qkv: [images, pixels, heads, depth, 3].
void mclr_qkv_norm_forward(int64_t dtype, const void* qkv, void* q, void* k, void* v, int64_t images, int64_t heads,
                           int64_t pixels, int64_t depth);
void mclr_qkv_norm_backward(int64_t dtype, const void* grad_q, const void* grad_k, const void* grad_v, const void* qkv,
                            void* grad_qkv, int64_t images, int64_t heads, int64_t pixels, int64_t depth);

// energy = weight |D - x|^2 summed over an image; D = c_skip x_noisy + c_out pred if `network`, else pred. The two
// factors are EDM's (Table 1) of sigma and sigma_data; or, if sigma is NULL, c_skip and c_out, which else are not read.
// Images are flat, `size` elements; x and x_noisy in pred's order, or, if `planes` is not 1, as that many planes where
// pred has them as pixels. pred, grad_pred: [images, columns, size]; x and x_noisy: [images, x_columns or
// noisy_columns, size], these being 1 (shared) or columns; sigma, c_skip, c_out, weight: [images]; energy, grad_energy:
// [images, columns].
void mclr_weighted_sq_error_forward(int64_t dtype, const void* pred, const float* x, const float* x_noisy,
                                    const float* sigma, const float* c_skip, const float* c_out, const float* weight,
                                    float* energy, int64_t images, int64_t columns, int64_t size, int64_t x_columns,
                                    int64_t noisy_columns, int64_t planes, float sigma_data, int64_t network);
void mclr_weighted_sq_error_backward(int64_t dtype, const float* grad_energy, const void* pred, const float* x,
                                     const float* x_noisy, const float* sigma, const float* c_skip, const float* c_out,
                                     const float* weight, void* grad_pred, int64_t images, int64_t columns,
                                     int64_t size, int64_t x_columns, int64_t noisy_columns, int64_t planes,
                                     float sigma_data, int64_t network);

// The same with loss = sum of coefficients [images, columns] times energy, and grad_pred = d loss / d pred.
void mclr_contrast_loss_forward(int64_t dtype, const void* pred, const float* x, const float* x_noisy,
                                const float* sigma, const float* c_skip, const float* c_out, const float* weight,
                                const float* coefficients, float* loss, float* energy, void* grad_pred, int64_t images,
                                int64_t columns, int64_t size, int64_t x_columns, int64_t noisy_columns, int64_t planes,
                                float sigma_data, int64_t network);

// out = n (1 + scale) + shift, n = (x - mean) / sqrt(variance + eps) over channels. x, grad_x: [images, rows, channels];
// out and grad: the same, of `dtype`; scale, shift and their gradients: [images, channels], shared by an image's rows.
void mclr_modulate_layer_norm_forward(int64_t dtype, const float* x, const float* scale, const float* shift, void* out,
                                      int64_t images, int64_t rows, int64_t channels, float eps);
void mclr_modulate_layer_norm_backward(int64_t dtype, const void* grad, const float* x, const float* scale,
                                       float* grad_x, float* grad_scale, float* grad_shift, int64_t images,
                                       int64_t rows, int64_t channels, float eps);

// out = x + gate y. x, out, grad: [images, rows, channels]; y and grad_y: the same, of `dtype`; gate, grad_gate: [images,
// channels]. x's gradient is out's.
void mclr_gated_add_forward(int64_t dtype, const float* x, const void* y, const float* gate, float* out, int64_t images,
                            int64_t rows, int64_t channels);
void mclr_gated_add_backward(int64_t dtype, const float* grad, const void* y, const float* gate, void* grad_y,
                             float* grad_gate, int64_t images, int64_t rows, int64_t channels);

// A chunk of a language head's logits (+ bias, [vocab] or NULL), [rows, vocab] without it, and each row's target. Forward:
// nll = -log softmax(row)[target], peak = the row's maximum, total = the sum of exp(logit - peak); and, if coefficients
// [rows] is not NULL, the row becomes coefficient * d nll / d row. Backward: it becomes grad * d nll / d row. A target
// that is no token makes NaN. add_rows: sums [width] += the sum of x [rows, width] over its rows, or = if not `adds`.
void mclr_linear_cross_entropy_forward(int64_t dtype, void* logits, const float* bias, const int64_t* targets,
                                       const float* coefficients, float* nll, float* peak, float* total, int64_t rows,
                                       int64_t vocab);
void mclr_linear_cross_entropy_backward(int64_t dtype, void* logits, const float* bias, const int64_t* targets,
                                        const float* peak, const float* total, const float* grad, int64_t rows,
                                        int64_t vocab);
void mclr_linear_cross_entropy_add_rows(int64_t dtype, const void* x, float* sums, int64_t adds, int64_t rows,
                                        int64_t width);

// x_noisy = x + sigma eps, and net_input = (c_in x_noisy, 1) in `dtype`, without the 1 if `ones` is 0. x, x_noisy:
// [images, columns, channels, pixels]; sigma: [images]; c_in: [images], NULL = 1 / sqrt(sigma^2 + sigma_data^2); eps:
// [images, channels, pixels], NULL = Philox's normals at position [images]; net_input: [images columns, pixels,
// channels + ones].
void mclr_noisy_input_forward(int64_t dtype, const float* x, const float* sigma, const float* c_in, const float* eps,
                              float* x_noisy, void* net_input, int64_t images, int64_t columns, int64_t channels,
                              int64_t pixels, int64_t ones, float sigma_data, int64_t seed, int64_t stream,
                              const int64_t* position);

// One step of EDM's sampler: p = guide + guidance (pred - guide), or pred if guide is NULL; d = from_x x - from_p p;
// x_next = x_hat + step d, or x_hat + step (slope + d) / 2 if slope is not NULL; net_input = (c_in x_next, 1) of
// input_dtype. All float32 [images, channels, pixels]; pred and guide, of `dtype`, [images, pixels, channels] if
// channels_last, else as x; net_input: [images, pixels, channels + 1].
void mclr_heun_update_forward(int64_t dtype, int64_t input_dtype, const void* pred, const void* guide, float guidance,
                              const float* x, const float* x_hat, const float* slope, float* x_next, float* d,
                              void* net_input, int64_t images, int64_t channels, int64_t pixels, int64_t channels_last,
                              float from_x, float from_p, float step, float c_in);

// --- A whole network on images, one after another: CPU, float32, no gradient. ---------------------

enum mclr_step_kind {
    MCLR_CONVOLVE = 0,         // a * weight -> out; [height, width, in_channels] -> [height, width, out_channels]
    MCLR_PIXEL_NORM_SILU = 1,  // a -> out, second
    MCLR_MODULATE_SILU = 2,    // a, emb from its b-th number on -> out
    MCLR_MP_SUM_CLIP = 3,      // scale_a a + scale_b b, clipped -> out, and mp_silu of it -> second
    MCLR_MP_CAT_SILU = 4,      // a of in_channels, b of out_channels -> out, second
    MCLR_DOWNSAMPLE = 5,       // a -> out of height x width
    MCLR_UPSAMPLE = 6,         // a -> out of height x width
    MCLR_ATTEND = 7            // a [pixels, heads, depth, 3] -> out [pixels, out_channels]
};
enum mclr_place { MCLR_NOTHING = -1, MCLR_INPUT = -2, MCLR_OUTPUT = -3 };

// One step. a, b, out, second: where activations lie in a thread's memory, in floats, or mclr_place.
typedef struct {
    int64_t kind;  // enum mclr_step_kind
    int64_t a, b, out, second;
    const void* weight;  // as image_program_pack lays it out
    int64_t height, width, in_channels, out_channels, kernel, heads;
    float scale_a, scale_b, clip, unused;
} mclr_step;

// weight: [out_channels, kernel, kernel, in_channels] -> packed: as many bytes as packed_size sets. width: the image's.
void mclr_image_program_packed_size(int64_t dtype, int64_t* size, int64_t out_channels, int64_t in_channels,
                                    int64_t kernel, int64_t width);
void mclr_image_program_pack(int64_t dtype, const float* weight, void* packed, int64_t out_channels,
                             int64_t in_channels, int64_t kernel, int64_t width);

// dtype: of what convolutions multiply. input: [images, input_size], output: [images columns, output_size], emb:
// [images columns, emb_size]; the first `shared` steps, which read no emb, serve all columns of an image. memory:
// [threads, memory_size], of which the part from scratch_at on is for the steps themselves.
void mclr_image_program_run(int64_t dtype, const mclr_step* steps, int64_t count, int64_t shared, const float* input,
                            float* output, const float* emb, float* memory, int64_t images, int64_t columns,
                            int64_t input_size, int64_t output_size, int64_t emb_size, int64_t memory_size,
                            int64_t scratch_at, int64_t threads);

// --- All parameters at once: CPU. ---------------------------------------------------------------

void mclr_weight_norm_scale_forward(const mclr_weight* weights, int64_t count);
void mclr_weight_norm_scale_backward(const mclr_weight* weights, int64_t count);
void mclr_adam_norm_ema(const mclr_parameter* parameters, int64_t count, const mclr_adam* adam);

// --- All parameters at once: CUDA. The tables are in host memory, what they point to on the device. Launches on
// `stream` (a cudaStream_t) without copies or synchronisation, so they can be captured into a graph. Returns 0 or
// a cudaError_t. ---------------------------------------------------------------------------------

int64_t mclr_weight_norm_scale_forward_cuda(const mclr_weight* weights, int64_t count, void* stream);
// workspace: device memory, one float for every row of the weights that have a grad_gain.
int64_t mclr_weight_norm_scale_backward_cuda(const mclr_weight* weights, int64_t count, float* workspace, void* stream);
int64_t mclr_adam_norm_ema_cuda(const mclr_parameter* parameters, int64_t count, const mclr_adam* adam, void* stream);

#ifdef __cplusplus
}
#endif

#endif
