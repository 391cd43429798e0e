/* What lies between the convolutions of a training step, in one pass over memory each.
 *
 * Plain C; loops are written so that a compiler turns them into vector instructions. Threads are OpenMP's, those of
 * torch on Linux. Sizes are checked by the caller (samgan.kernels).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLOPE 0.2      /* of leaky ReLU */
#define BLOCK 4096     /* numbers that a thread takes at once */
#define SMALL 32768    /* numbers; below, waking a second thread takes longer than the work */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ZERO(p, count) memset((p), 0, sizeof(*(p)) * (size_t)(count))
#define ROW A __attribute__((aligned(64))) /* numbers on the stack, from a cache line on */
#define DO_PRAGMA(x) _Pragma(#x)
#define PARALLEL(size) DO_PRAGMA(omp parallel for schedule(static) if ((size) >= SMALL))

typedef uint16_t bf16;

static inline float load_bf16(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Round to the nearest, ties to even; NaN stays NaN. */
static inline bf16 store_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bf16)(value != value ? 0x7fc0 : rounded);
}

#define JOIN_(name, suffix) name##_##suffix
#define JOIN(name, suffix) JOIN_(name, suffix)
#define FN(name) JOIN(name, SUFFIX)

#define T float
#define A float
#define SUFFIX f32
#define FLOOR floorf
#define SQRT sqrtf
#define LOAD(x) (x)
#define STORE(x) (x)
#include "typed.h"

#define T double
#define A double
#define SUFFIX f64
#define FLOOR floor
#define SQRT sqrt
#define LOAD(x) (x)
#define STORE(x) (x)
#include "typed.h"

#define T bf16
#define A float
#define SUFFIX bf16
#define FLOOR floorf
#define SQRT sqrtf
#define LOAD(x) load_bf16(x)
#define STORE(x) store_bf16(x)
#include "typed.h"

/* ---- Attention, which computes in single or double precision. ---- */

#define LOG2_E 1.4426950408889634
#define LARGEST_SCORE 64.0 /* up to it, 2^x keeps all its digits, and no sum overflows */
#define QUERIES 32
#define KEYS 64
/* A vector of the processor's own width, and how many rows and vectors of sums fit its registers. */
#if defined(__AVX512F__)
#define WIDTH 64
#define ROWS 8
#elif defined(__AVX2__)
#define WIDTH 32
#define ROWS 4
#else
#define WIDTH 16
#define ROWS 4
#endif
#define VECTORS 2

/* 2^x to the last digit or two, for x up to 126; at least 2^-126. The nearest whole number goes into the exponent. */
static inline float power_f32(float x) {
    float large = x < -126.0f ? -126.0f : x, rounded = large + 12582912.0f, rest = large - (rounded - 12582912.0f);
    float y = 1.5252733804e-5f; /* ln(2)^k / k! */
    y = y * rest + 1.5403530393e-4f;
    y = y * rest + 1.3333558146e-3f;
    y = y * rest + 9.6181291076e-3f;
    y = y * rest + 5.5504108664e-2f;
    y = y * rest + 2.4022650696e-1f;
    y = y * rest + 6.9314718056e-1f;
    y = y * rest + 1.0f;
    uint32_t bits, whole;
    memcpy(&bits, &y, 4);
    memcpy(&whole, &rounded, 4);
    bits += whole << 23;
    memcpy(&y, &bits, 4);
    return y;
}

#define T float
#define SUFFIX f32
#define POWER(x) power_f32(x)
#define LOG2 log2f
#include "attention.h"

#define T double
#define SUFFIX f64
#define POWER(x) exp2(x)
#define LOG2 log2
#include "attention.h"
