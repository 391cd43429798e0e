/* The kernels for one type of numbers. kernels.c includes this file once for each, after it has defined
 *
 *   T      what is stored, A  what is computed in, FN(name)  the name with the type's suffix,
 *   LOAD(x) and STORE(x)  between the two.
 *
 * Features lie channels last: [n, h, w, c]. A row of an image is w * c numbers side by side, and most loops run over
 * such a row, so that 4 channels cost no more than 128. What belongs to a channel (a bias, a style) is repeated w times
 * for that. Sums are taken for each image on its own and then added in order, so they do not depend on threads.
 */

/* Leaky ReLU, and its slope where the OUTPUT is y. */
static inline A FN(act)(A x) { return x > 0 ? x : x * (A)SLOPE; }
static inline A FN(slope)(A y) { return y > 0 ? (A)1 : (A)SLOPE; }

/* Repeat the c numbers of `from` along a row. */
static void FN(along)(const T *from, A *row, long w, long c) {
    for (long x = 0; x < w; x++)
        for (long k = 0; k < c; k++) row[x * c + k] = LOAD(from[k]);
}

/* Repeat each of w numbers c times. */
static void FN(repeat)(const A *from, A *row, long w, long c) {
    switch (c) {
#define CASE(C) \
    case C: \
        for (long x = 0; x < w; x++) \
            for (long k = 0; k < C; k++) row[x * C + k] = from[x]; \
        break;
        CASE(4) CASE(8) CASE(16) CASE(32)
#undef CASE
    default:
        for (long x = 0; x < w; x++)
            for (long k = 0; k < c; k++) row[x * c + k] = from[x];
    }
}

static void FN(wide)(const T *from, A *row, long w, long c) {
    A numbers[w];
    for (long x = 0; x < w; x++) numbers[x] = LOAD(from[x]);
    FN(repeat)(numbers, row, w, c);
}

/* Add up a row by channels, to what `sums` has. */
static void FN(add_up)(const A *row, A *sums, long w, long c) {
    for (long x = 0; x < w; x++)
        for (long k = 0; k < c; k++) sums[k] += row[x * c + k];
}

/* Add up the sums of n images, in order. */
static void FN(gather)(const A *of_images, T *total, long n, long count) {
    for (long k = 0; k < count; k++) {
        A sum = 0;
        for (long image = 0; image < n; image++) sum += of_images[image * count + k];
        total[k] = STORE(sum);
    }
}

/* Means of two rows of 2 * w pixels, in squares of 2x2; `sum` has the sum of both rows. */
static inline void FN(pairs)(const A *sum, T *half, long w, long c) {
    switch (c) {
#define CASE(C) \
    case C: \
        for (long x = 0; x < w; x++) \
            for (long k = 0; k < C; k++) \
                half[x * C + k] = STORE((A)0.25 * (sum[2 * x * C + k] + sum[2 * x * C + C + k])); \
        break;
        CASE(4) CASE(8) CASE(16) CASE(32)
#undef CASE
    default:
        for (long x = 0; x < w; x++)
            for (long k = 0; k < c; k++)
                half[x * c + k] = STORE((A)0.25 * (sum[2 * x * c + k] + sum[2 * x * c + c + k]));
    }
}

/* Repeat w pixels along a row of 2 * w, times a quarter. */
static inline void FN(twice)(const T *half, A *row, long w, long c) {
    switch (c) {
#define CASE(C) \
    case C: \
        for (long x = 0; x < w; x++) \
            for (long k = 0; k < C; k++) \
                row[2 * x * C + k] = row[2 * x * C + C + k] = (A)0.25 * LOAD(half[x * C + k]); \
        break;
        CASE(4) CASE(8) CASE(16) CASE(32)
#undef CASE
    default:
        for (long x = 0; x < w; x++)
            for (long k = 0; k < c; k++)
                row[2 * x * c + k] = row[2 * x * c + c + k] = (A)0.25 * LOAD(half[x * c + k]);
    }
}

/* y = act(y), and half = the mean of each 2x2 pixels of it. */
void FN(activate_and_halve)(T *y, T *half, long n, long h, long w, long c) {
    PARALLEL(n * h * w * c)
    for (long pair = 0; pair < n * (h / 2); pair++) {
        ROW sum[w * c];
        T *above = y + 2 * pair * w * c, *below = above + w * c;
        for (long j = 0; j < w * c; j++) {
            A a = FN(act)(LOAD(above[j])), b = FN(act)(LOAD(below[j]));
            above[j] = STORE(a), below[j] = STORE(b);
            sum[j] = a + b;
        }
        FN(pairs)(sum, half + pair * (w / 2) * c, w / 2, c);
    }
}

/* half = the mean of each 2x2 pixels of v * slope(y). */
void FN(slope_and_halve)(const T *v, const T *y, T *half, long n, long h, long w, long c) {
    PARALLEL(n * h * w * c)
    for (long pair = 0; pair < n * (h / 2); pair++) {
        ROW sum[w * c];
        const T *v0 = v + 2 * pair * w * c, *v1 = v0 + w * c, *y0 = y + 2 * pair * w * c, *y1 = y0 + w * c;
        for (long j = 0; j < w * c; j++)
            sum[j] = LOAD(v0[j]) * FN(slope)(LOAD(y0[j])) + LOAD(v1[j]) * FN(slope)(LOAD(y1[j]));
        FN(pairs)(sum, half + pair * (w / 2) * c, w / 2, c);
    }
}

/* y = act(y), out += y. */
void FN(activate_and_add)(T *y, T *out, long size) {
    PARALLEL(size)
    for (long block = 0; block < size; block += BLOCK)
        for (long j = block; j < MIN(block + BLOCK, size); j++) {
            A value = FN(act)(LOAD(y[j]));
            y[j] = STORE(value);
            out[j] = STORE(LOAD(out[j]) + value);
        }
}

/* out += v * slope(y). */
void FN(slope_and_add)(const T *v, const T *y, T *out, long size) {
    PARALLEL(size)
    for (long block = 0; block < size; block += BLOCK)
        for (long j = block; j < MIN(block + BLOCK, size); j++)
            out[j] = STORE(LOAD(out[j]) + LOAD(v[j]) * FN(slope)(LOAD(y[j])));
}

/* out = g * slope(y); bias = the sums of out by channels, unless NULL. */
void FN(activate_backward)(const T *g, const T *y, T *out, T *bias, long n, long h, long w, long c) {
    ROW of_images[n * c];
    PARALLEL(n * h * w * c)
    for (long image = 0; image < n; image++) {
        ROW sums[w * c];
        ZERO(sums, w * c);
        for (long row = image * h; row < (image + 1) * h; row++)
            for (long j = 0; j < w * c; j++) {
                A value = LOAD(g[row * w * c + j]) * FN(slope)(LOAD(y[row * w * c + j]));
                out[row * w * c + j] = STORE(value);
                sums[j] += value;
            }
        ZERO(of_images + image * c, c);
        FN(add_up)(sums, of_images + image * c, w, c);
    }
    if (bias) FN(gather)(of_images, bias, n, c);
}

/* The same for the gradient of `activate_and_halve`: g_half is of half the sides. */
void FN(activate_and_halve_backward)(const T *g_half, const T *y, T *out, T *bias, long n, long h, long w, long c) {
    ROW of_images[n * c];
    PARALLEL(n * h * w * c)
    for (long image = 0; image < n; image++) {
        ROW sums[w * c], g[w * c];
        ZERO(sums, w * c);
        for (long row = image * h; row < (image + 1) * h; row++) {
            if (row % 2 == 0) FN(twice)(g_half + (row / 2) * (w / 2) * c, g, w / 2, c);
            for (long j = 0; j < w * c; j++) {
                A value = g[j] * FN(slope)(LOAD(y[row * w * c + j]));
                out[row * w * c + j] = STORE(value);
                sums[j] += value;
            }
        }
        ZERO(of_images + image * c, c);
        FN(add_up)(sums, of_images + image * c, w, c);
    }
    if (bias) FN(gather)(of_images, bias, n, c);
}

/* ---- An image's features: act(W image + b), with a 3x3 kernel. ----
 *
 * Each pixel of a row of the image is repeated c times, with a pixel of zeros on either side; then each of the nine
 * places of the kernel is one product of rows. Lanes: 16 channels, or as many times the c as 16 holds.
 */

/* Weights [c, i, 3, 3], channels last, as 9 * i rows of p = max(c, 16) numbers; then the bias. */
static void FN(lanes)(const T *weight, const T *bias, A *lanes, long c, long i) {
    long p = c < 16 ? 16 : c;
    for (long place = 0; place < 9 * i; place++)
        for (long k = 0; k < p; k++) lanes[place * p + k] = LOAD(weight[(k % c) * 9 * i + place]);
    for (long k = 0; k < p; k++) lanes[9 * i * p + k] = LOAD(bias[k % c]);
}

/* Row y of an image, or zeros outside of it, each pixel c times: row[i][(w + 2) * c]. */
static void FN(spread)(const T *image, A *row, long y, long h, long w, long c, long i) {
    long length = (w + 2) * c;
    for (long channel = 0; channel < i; channel++, row += length) {
        if (y < 0 || y >= h) {
            ZERO(row, length);
            continue;
        }
        T line[w];
        for (long x = 0; x < w; x++) line[x] = image[(y * w + x) * i + channel];
        ZERO(row, c);
        FN(wide)(line, row + c, w, c);
        ZERO(row + (w + 1) * c, c);
    }
}

typedef A FN(lane) __attribute__((vector_size(16 * sizeof(A))));

static inline FN(lane) FN(get)(const A *from) {
    FN(lane) value;
    memcpy(&value, from, sizeof(value));
    return value;
}

/* out = b + W * rows, or without b, for the three rows around row y, which the ring has at their number modulo 3. */
static void FN(convolve)(const A *lanes, const A *ring, A *out, long y, long w, long c, long i, int with_bias) {
    long p = c < 16 ? 16 : c, length = (w + 2) * c;
    const A *rows[3];
    for (long dy = 0; dy < 3; dy++) rows[dy] = ring + (y + dy) % 3 * i * length;
    for (long k = 0; k < p; k += 16) {
        FN(lane) weight[9], start = FN(get)(lanes + 9 * i * p + k);
        if (!with_bias) start -= start;
        for (long channel = 0; channel < i; channel++) {
            for (long place = 0; place < 9; place++) weight[place] = FN(get)(lanes + (place * i + channel) * p + k);
            for (long j = k; j < w * c; j += p) {
                FN(lane) sum = channel ? FN(get)(out + j) : start;
                for (long dy = 0; dy < 3; dy++)
                    for (long dx = 0; dx < 3; dx++)
                        sum += weight[dy * 3 + dx] * FN(get)(rows[dy] + channel * length + j + dx * c);
                memcpy(out + j, &sum, sizeof(sum));
            }
        }
    }
}

/* sums[9 * i + 1][p] += what f gives for the weights and the bias of `convolve`. */
static void FN(correlate)(const A *f, const A *ring, A *sums, long y, long w, long c, long i) {
    long p = c < 16 ? 16 : c, length = (w + 2) * c;
    const A *rows[3];
    for (long dy = 0; dy < 3; dy++) rows[dy] = ring + (y + dy) % 3 * i * length;
    for (long k = 0; k < p; k += 16) {
        FN(lane) of_bias = FN(get)(sums + 9 * i * p + k);
        for (long channel = 0; channel < i; channel++) {
            FN(lane) own[9];
            for (long place = 0; place < 9; place++) own[place] = FN(get)(sums + (place * i + channel) * p + k);
            for (long j = k; j < w * c; j += p) {
                FN(lane) value = FN(get)(f + j);
                for (long dy = 0; dy < 3; dy++)
                    for (long dx = 0; dx < 3; dx++)
                        own[dy * 3 + dx] += value * FN(get)(rows[dy] + channel * length + j + dx * c);
                if (channel == 0) of_bias += value;
            }
            for (long place = 0; place < 9; place++)
                memcpy(sums + (place * i + channel) * p + k, &own[place], sizeof(of_bias));
        }
        memcpy(sums + 9 * i * p + k, &of_bias, sizeof(of_bias));
    }
}

/* joined = x + act(W image + b); or, with `change`, x + slope * (W change). x may be NULL. half = its 2x2 means. */
void FN(image_forward)(const T *image, const T *change, const T *weight, const T *bias, const T *x, T *joined, T *half,
                       long n, long h, long w, long c, long i) {
    long p = c < 16 ? 16 : c, length = (w + 2) * c;
    ROW lanes[(9 * i + 1) * p];
    FN(lanes)(weight, bias, lanes, c, i);
    PARALLEL(n * h * w * c)
    for (long at = 0; at < n; at++) {
        ROW ring[3 * i * length], changed[3 * i * length], before[w * c], value[w * c], sum[w * c];
        const T *own = image + at * h * w * i, *own_change = change ? change + at * h * w * i : NULL;
        FN(spread)(own, ring, -1, h, w, c, i);
        FN(spread)(own, ring + i * length, 0, h, w, c, i);
        if (change) {
            FN(spread)(own_change, changed, -1, h, w, c, i);
            FN(spread)(own_change, changed + i * length, 0, h, w, c, i);
        }
        for (long y = 0; y < h; y++) {
            long row = (at * h + y) * w * c;
            FN(spread)(own, ring + (y + 2) % 3 * i * length, y + 1, h, w, c, i);
            FN(convolve)(lanes, ring, before, y, w, c, i, 1);
            if (change) {
                FN(spread)(own_change, changed + (y + 2) % 3 * i * length, y + 1, h, w, c, i);
                FN(convolve)(lanes, changed, value, y, w, c, i, 0);
                for (long j = 0; j < w * c; j++) value[j] *= FN(slope)(before[j]);
            } else
                for (long j = 0; j < w * c; j++) value[j] = FN(act)(before[j]);
            if (x)
                for (long j = 0; j < w * c; j++) value[j] += LOAD(x[row + j]);
            for (long j = 0; j < w * c; j++) joined[row + j] = STORE(value[j]);
            if (y % 2) {
                for (long j = 0; j < w * c; j++) sum[j] += value[j];
                FN(pairs)(sum, half + (at * (h / 2) + y / 2) * (w / 2) * c, w / 2, c);
            } else
                memcpy(sum, value, sizeof(sum));
        }
    }
}

/* W turned by half a turn, of one channel of the image: what takes features back to that channel. */
static void FN(turned)(const A *lanes, A *turned, long channel, long c, long i) {
    long p = c < 16 ? 16 : c;
    for (long place = 0; place < 9; place++)
        for (long k = 0; k < p; k++) turned[place * p + k] = lanes[((8 - place) * i + channel) * p + k];
    ZERO(turned + 9 * p, p);
}

/* Sums of the c numbers of each pixel. */
static inline void FN(sum_pixels)(const A *row, A *sums, long w, long c) {
    switch (c) {
#define CASE(C) \
    case C: \
        for (long x = 0; x < w; x++) { \
            A sum = 0; \
            DO_PRAGMA(omp simd reduction(+ : sum)) \
            for (long k = 0; k < C; k++) sum += row[x * C + k]; \
            sums[x] = sum; \
        } \
        break;
        CASE(4) CASE(8) CASE(16) CASE(32)
#undef CASE
    default:
        for (long x = 0; x < w; x++) {
            A sum = 0;
            DO_PRAGMA(omp simd reduction(+ : sum))
            for (long k = 0; k < c; k++) sum += row[x * c + k];
            sums[x] = sum;
        }
    }
}

/* g += a quarter of g_half (unless NULL), repeated; then, with f = g * slope(W image + b):
 * g_weight and g_bias (unless NULL) = what f gives for the images `patches`; g_image (unless NULL) = W^T f.
 */
void FN(image_backward)(T *g, const T *g_half, const T *image, const T *patches, const T *weight, const T *bias,
                        T *g_weight, T *g_bias, T *g_image, long n, long h, long w, long c, long i) {
    long p = c < 16 ? 16 : c, length = (w + 2) * c, places = 9 * i;
    ROW lanes[(places + 1) * p];
    FN(lanes)(weight, bias, lanes, c, i);
    A *of_images = malloc(sizeof(A) * n * (places + 1) * c);
    PARALLEL(n * h * w * c)
    for (long at = 0; at < n; at++) {
        ROW ring[3 * i * length], of_patches[3 * i * length], f[3][length], quarter[w * c], sums[(places + 1) * p];
        ROW back[10 * p], of_row[w * c], of_line[w];
        const T *own_image = image + at * h * w * i, *own_patches = patches + at * h * w * i;
        ZERO(sums, (places + 1) * p);
        ZERO(&f[0][0], 3 * length);
        for (long y = -1; y < 1; y++) {
            FN(spread)(own_image, ring + (y + 1) * i * length, y, h, w, c, i);
            if (patches != image) FN(spread)(own_patches, of_patches + (y + 1) * i * length, y, h, w, c, i);
        }
        for (long y = 0; y <= h; y++) { /* row y of f, then row y - 1 of the image's gradient */
            A *own = f[(y + 1) % 3] + c;
            if (y < h) {
                T *row = g + (at * h + y) * w * c;
                FN(spread)(own_image, ring + (y + 2) % 3 * i * length, y + 1, h, w, c, i);
                if (patches != image)
                    FN(spread)(own_patches, of_patches + (y + 2) % 3 * i * length, y + 1, h, w, c, i);
                if (g_half) {
                    if (y % 2 == 0) FN(twice)(g_half + (at * (h / 2) + y / 2) * (w / 2) * c, quarter, w / 2, c);
                    for (long j = 0; j < w * c; j++) row[j] = STORE(LOAD(row[j]) + quarter[j]);
                }
                FN(convolve)(lanes, ring, own, y, w, c, i, 1);
                for (long j = 0; j < w * c; j++) own[j] = LOAD(row[j]) * FN(slope)(own[j]);
                if (g_weight) FN(correlate)(own, patches == image ? ring : of_patches, sums, y, w, c, i);
            } else
                ZERO(own, w * c);
            if (g_image && y > 0)
                for (long channel = 0; channel < i; channel++) {
                    FN(turned)(lanes, back, channel, c, i);
                    FN(convolve)(back, &f[0][0], of_row, y - 1, w, c, 1, 0);
                    FN(sum_pixels)(of_row, of_line, w, c);
                    T *into = g_image + (at * h + y - 1) * w * i + channel;
                    for (long x = 0; x < w; x++) into[x * i] = STORE(of_line[x]);
                }
        }
        A *own = of_images + at * (places + 1) * c;
        ZERO(own, (places + 1) * c);
        for (long place = 0; place <= places; place++)
            for (long k = 0; k < p; k++) own[place * c + k % c] += sums[place * p + k];
    }
    if (g_weight) {
        T turned[(places + 1) * c];
        FN(gather)(of_images, turned, n, (places + 1) * c);
        for (long place = 0; place < places; place++)
            for (long k = 0; k < c; k++) g_weight[k * places + place] = turned[place * c + k];
        if (g_bias)
            for (long k = 0; k < c; k++) g_bias[k] = turned[places * c + k];
    }
    free(of_images);
}

/* ---- Modulated convolutions: what lies before and after the convolution itself. ---- */

/* out = x * style, a factor for each channel of each image. */
void FN(modulate)(const T *x, const T *style, T *out, long n, long h, long w, long c) {
    PARALLEL(n * h * w * c)
    for (long image = 0; image < n; image++) {
        ROW factors[w * c];
        FN(along)(style + image * c, factors, w, c);
        for (long row = image * h; row < (image + 1) * h; row++)
            for (long j = 0; j < w * c; j++)
                out[row * w * c + j] = STORE(LOAD(x[row * w * c + j]) * factors[j]);
    }
}

/* g_x = g * style; g_style = the sums of g * x over the pixels. g_x may be g. */
void FN(modulate_backward)(const T *g, const T *x, const T *style, T *g_x, A *g_style, long n, long h, long w, long c) {
    PARALLEL(n * h * w * c)
    for (long image = 0; image < n; image++) {
        ROW factors[w * c], sums[w * c];
        FN(along)(style + image * c, factors, w, c);
        ZERO(sums, w * c);
        for (long row = image * h; row < (image + 1) * h; row++)
            for (long j = 0; j < w * c; j++) {
                A value = LOAD(g[row * w * c + j]);
                sums[j] += value * LOAD(x[row * w * c + j]);
                g_x[row * w * c + j] = STORE(value * factors[j]);
            }
        ZERO(g_style + image * c, c);
        FN(add_up)(sums, g_style + image * c, w, c);
    }
}

/* One row of 2 * w pixels between two rows of w: three quarters of `near` and one of `far`, and so along the row. */
static inline void FN(enlarge)(const A *near, const A *far, A *row, long w, long c) {
    ROW blend[(w + 2) * c];
    for (long j = 0; j < w * c; j++) blend[c + j] = (A)0.75 * near[j] + (A)0.25 * far[j];
    for (long k = 0; k < c; k++) blend[k] = blend[c + k], blend[(w + 1) * c + k] = blend[w * c + k];
    switch (c) {
#define CASE(C) \
    case C: \
        for (long x = 0; x < w; x++) \
            for (long k = 0; k < C; k++) { \
                A own = (A)0.75 * blend[(x + 1) * C + k]; \
                row[2 * x * C + k] = own + (A)0.25 * blend[x * C + k]; \
                row[2 * x * C + C + k] = own + (A)0.25 * blend[(x + 2) * C + k]; \
            } \
        break;
        CASE(1) CASE(4) CASE(8) CASE(16) CASE(32)
#undef CASE
    default:
        for (long x = 0; x < w; x++)
            for (long k = 0; k < c; k++) {
                A own = (A)0.75 * blend[(x + 1) * c + k];
                row[2 * x * c + k] = own + (A)0.25 * blend[x * c + k];
                row[2 * x * c + c + k] = own + (A)0.25 * blend[(x + 2) * c + k];
            }
    }
}

/* The transpose of `enlarge` along a row: out[w * c] from row[2 * w * c]. */
static inline void FN(reduce)(const A *row, A *out, long w, long c) {
    A even[(w + 1) * c], odd[(w + 1) * c]; /* odd starts with the pixel left of the row, even ends right of it */
    switch (c) {
#define CASE(C) \
    case C: \
        for (long x = 0; x < w; x++) \
            for (long k = 0; k < C; k++) \
                even[x * C + k] = row[2 * x * C + k], odd[(x + 1) * C + k] = row[2 * x * C + C + k]; \
        break;
        CASE(1) CASE(4) CASE(8) CASE(16) CASE(32)
#undef CASE
    default:
        for (long x = 0; x < w; x++)
            for (long k = 0; k < c; k++)
                even[x * c + k] = row[2 * x * c + k], odd[(x + 1) * c + k] = row[2 * x * c + c + k];
    }
    for (long k = 0; k < c; k++) odd[k] = even[k], even[w * c + k] = odd[w * c + k];
    for (long j = 0; j < w * c; j++)
        out[j] = (A)0.75 * (even[j] + odd[c + j]) + (A)0.25 * (odd[j] + even[c + j]);
}

/* y = act(x * scale + bias + strength * noise); with `enlarged`, x * scale + bias is enlarged twofold first.
 * x is [n, h, w, c], scale [n, c], noise [n, pixels of y]; strength and noise may be NULL.
 */
void FN(modulated_forward)(const T *x, const A *scale, const T *bias, const T *strength, const T *noise, T *y, long n,
                           long h, long w, long c, int enlarged) {
    long times = enlarged ? 2 : 1, side = times * w;
    PARALLEL(n * h * w * c * times * times)
    for (long image = 0; image < n; image++) {
        ROW factors[w * c], offsets[w * c], strengths[side * c], around[3][w * c], row[side * c], pixels[side * c];
        for (long j = 0; j < w * c; j++) factors[j] = scale[image * c + j % c];
        FN(along)(bias, offsets, w, c);
        if (strength) FN(along)(strength, strengths, side, c);
        for (long line = 0; line < h; line++) { /* around[line % 3] is this line, scaled */
            for (long ahead = line ? line + 1 : 0; ahead <= MIN(line + enlarged, h - 1); ahead++)
                if (ahead > line || !line)
                    for (long j = 0; j < w * c; j++)
                        around[ahead % 3][j] =
                            LOAD(x[((image * h) + ahead) * w * c + j]) * factors[j] + offsets[j];
            if (!enlarged && line)
                for (long j = 0; j < w * c; j++)
                    around[line % 3][j] = LOAD(x[((image * h) + line) * w * c + j]) * factors[j] + offsets[j];
            for (long part = 0; part < times; part++) {
                const A *value = around[line % 3];
                if (enlarged) {
                    long other = part ? MIN(line + 1, h - 1) : MAX(line - 1, 0);
                    FN(enlarge)(value, around[other % 3], row, w, c);
                    value = row;
                }
                long at = (image * h + line) * times + part;
                T *into = y + at * side * c;
                if (strength) {
                    FN(wide)(noise + at * side, pixels, side, c);
                    for (long j = 0; j < side * c; j++)
                        into[j] = STORE(FN(act)(value[j] + strengths[j] * pixels[j]));
                } else
                    for (long j = 0; j < side * c; j++) into[j] = STORE(FN(act)(value[j]));
            }
        }
    }
}

/* From the gradient g of y: g_x (of x * scale, times scale), g_bias, g_strength, and g_scale = sums of g * x. */
void FN(modulated_backward)(const T *g, const T *y, const T *x, const A *scale, const T *noise, T *g_x, T *g_bias,
                            T *g_strength, A *g_scale, long n, long h, long w, long c, int enlarged) {
    long times = enlarged ? 2 : 1, side = times * w;
    A *of_bias = malloc(sizeof(A) * 2 * n * c), *of_strength = of_bias + n * c;
    PARALLEL(n * h * w * c * times * times)
    for (long image = 0; image < n; image++) {
        ROW factors[w * c], biases[w * c], scales[w * c], strengths[side * c], pixels[side * c];
        ROW ring[4][side * c], both[side * c], line_sums[w * c];
        for (long j = 0; j < w * c; j++) factors[j] = scale[image * c + j % c];
        ZERO(biases, w * c);
        ZERO(scales, w * c);
        ZERO(strengths, side * c);
        long done = 0; /* rows of y whose gradient is in the ring */
        for (long line = 0; line < h; line++) {
            for (; done < MIN(times * line + times + enlarged, times * h); done++) {
                long at = image * times * h + done;
                A *into = ring[done % 4];
                const T *from = g + at * side * c, *out = y + at * side * c;
                for (long j = 0; j < side * c; j++) into[j] = LOAD(from[j]) * FN(slope)(LOAD(out[j]));
                if (noise) {
                    FN(wide)(noise + at * side, pixels, side, c);
                    for (long j = 0; j < side * c; j++) strengths[j] += into[j] * pixels[j];
                }
            }
            const A *value = ring[line % 4];
            if (enlarged) {
                const A *above = ring[MAX(2 * line - 1, 0) % 4], *below = ring[MIN(2 * line + 2, 2 * h - 1) % 4];
                const A *first = ring[2 * line % 4], *second = ring[(2 * line + 1) % 4];
                for (long j = 0; j < side * c; j++)
                    both[j] = (A)0.75 * (first[j] + second[j]) + (A)0.25 * (above[j] + below[j]);
                FN(reduce)(both, line_sums, w, c);
                value = line_sums;
            }
            long at = (image * h + line) * w * c;
            for (long j = 0; j < w * c; j++) {
                biases[j] += value[j];
                scales[j] += value[j] * LOAD(x[at + j]);
                g_x[at + j] = STORE(value[j] * factors[j]);
            }
        }
        ZERO(of_bias + image * c, c);
        ZERO(of_strength + image * c, c);
        ZERO(g_scale + image * c, c);
        FN(add_up)(biases, of_bias + image * c, w, c);
        FN(add_up)(scales, g_scale + image * c, w, c);
        FN(add_up)(strengths, of_strength + image * c, side, c);
    }
    FN(gather)(of_bias, g_bias, n, c);
    if (g_strength) FN(gather)(of_strength, g_strength, n, c);
    free(of_bias);
}

/* ---- Images moved by an affine map, as torch's grid_sample with reflection does, then brightness and contrast. ---- */

/* Where along a side of `size` pixels a position in [-1, 1] lies, mirrored at the edges. */
static inline A FN(mirrored)(A position, A size) {
    A from_edge = (position + 1) * size / 2, turns, inside;
    from_edge = from_edge < 0 ? -from_edge : from_edge;
    turns = FLOOR(from_edge / size);
    inside = from_edge - turns * size;
    inside = turns - 2 * FLOOR(turns / 2) == 0 ? inside : size - inside;
    return MIN(MAX(inside - (A)0.5, 0), size - 1);
}

/* The pixel left of each place of row y and the one above, and how far behind them it lies. */
static void FN(places)(const A *map, int32_t *left, int32_t *above, A *across, A *down, long y, long h, long w) {
    A v = (2 * (A)y + 1) / (A)h - 1;
    for (int32_t x = 0; x < (int32_t)w; x++) {
        A u = (2 * (A)x + 1) / (A)w - 1;
        A column = FN(mirrored)(map[0] * u + map[1] * v + map[2], (A)w);
        A row = FN(mirrored)(map[3] * u + map[4] * v + map[5], (A)h);
        left[x] = (int32_t)column, above[x] = (int32_t)row;
        across[x] = column - (A)left[x], down[x] = row - (A)above[x];
    }
}

/* out = offset + gain * the image at the places of its map, or where `moved` is 0 the image itself.
 * images is [n, channels, h, w]; map [n, 6]; gain, offset and moved [n].
 */
void FN(augment)(const A *images, const A *map, const A *gain, const A *offset, const uint8_t *moved, A *out, long n,
                 long channels, long h, long w) {
    PARALLEL(n * channels * h * w)
    for (long image = 0; image < n; image++) {
        ROW across[w], down[w];
        int32_t left[w], above[w];
        const A factor = gain[image], start = offset[image];
        for (long y = 0; y < h; y++) {
            if (moved[image]) FN(places)(map + 6 * image, left, above, across, down, y, h, w);
            for (long channel = 0; channel < channels; channel++) {
                const A *from = images + (image * channels + channel) * h * w;
                A *restrict into = out + ((image * channels + channel) * h + y) * w;
                if (!moved[image]) {
                    for (long x = 0; x < w; x++) into[x] = start + factor * from[y * w + x];
                    continue;
                }
                for (int32_t x = 0; x < (int32_t)w; x++) {
                    int32_t right = MIN(left[x] + 1, (int32_t)w - 1), below = MIN(above[x] + 1, (int32_t)h - 1);
                    A upper = from[above[x] * (int32_t)w + left[x]] * (1 - across[x]) +
                              from[above[x] * (int32_t)w + right] * across[x];
                    A lower = from[below * (int32_t)w + left[x]] * (1 - across[x]) +
                              from[below * (int32_t)w + right] * across[x];
                    into[x] = start + factor * (upper * (1 - down[x]) + lower * down[x]);
                }
            }
        }
    }
}

/* The gradient of the images, from the gradient g of out. */
void FN(augment_backward)(const A *g, const A *map, const A *gain, const uint8_t *moved, A *g_images, long n,
                          long channels, long h, long w) {
    PARALLEL(n * channels * h * w)
    for (long image = 0; image < n; image++) {
        ROW across[w], down[w];
        int32_t left[w], above[w];
        const A factor = gain[image];
        if (moved[image]) ZERO(g_images + image * channels * h * w, channels * h * w);
        for (long y = 0; y < h; y++) {
            if (moved[image]) FN(places)(map + 6 * image, left, above, across, down, y, h, w);
            for (long channel = 0; channel < channels; channel++) {
                A *into = g_images + (image * channels + channel) * h * w;
                const A *from = g + ((image * channels + channel) * h + y) * w;
                if (!moved[image]) {
                    for (long x = 0; x < w; x++) into[y * w + x] = factor * from[x];
                    continue;
                }
                for (long x = 0; x < w; x++) {
                    long right = MIN(left[x] + 1, w - 1), below = MIN(above[x] + 1, h - 1);
                    A upper = factor * from[x] * (1 - down[x]), lower = factor * from[x] * down[x];
                    into[above[x] * w + left[x]] += upper * (1 - across[x]);
                    into[above[x] * w + right] += upper * across[x];
                    into[below * w + left[x]] += lower * (1 - across[x]);
                    into[below * w + right] += lower * across[x];
                }
            }
        }
    }
}

/* ---- The weights of a network. ---- */

/* Convolutions: to[i] = from[i] * factor, for `count` parts; part p has sizes[p] numbers from places[p] on. */
void FN(scale_weights)(const A *from, T *to, const A *factors, const int64_t *places, const int64_t *sizes, long count) {
    for (long part = 0; part < count; part++) {
        const A *own = from + places[part];
        T *into = to + places[part];
        A factor = factors[part];
        for (long j = 0; j < sizes[part]; j++) into[j] = STORE(own[j] * factor);
    }
}

/* The gradients of the parts, or NULL, back to the whole: to += part * factor. */
void FN(collect_gradients)(T *const *parts, A *to, const A *factors, const int64_t *places, const int64_t *sizes,
                           long count) {
    for (long part = 0; part < count; part++) {
        const T *own = parts[part];
        A *into = to + places[part], factor = factors[part];
        if (own)
            for (long j = 0; j < sizes[part]; j++) into[j] += LOAD(own[j]) * factor;
    }
}

/* Spectral norm. Layer l has a weight [rows, k * k, c] from places[l] on, shapes[3 l ...] = rows, k * k, c, and unit
 * vectors u[rows] and v[c, k * k], whose order is that of a weight as torch shows it. */

/* v in the order in which the weight lies in memory; to be freed. */
static A *FN(v_in_memory)(const A *v, long squares, long c) {
    A *ordered = malloc(sizeof(A) * (size_t)(squares * c));
    for (long k = 0; k < c; k++)
        for (long j = 0; j < squares; j++) ordered[j * c + k] = v[k * squares + j];
    return ordered;
}

static A FN(dot)(const A *a, const A *b, long count) {
    A sum = 0;
    DO_PRAGMA(omp simd reduction(+ : sum))
    for (long j = 0; j < count; j++) sum += a[j] * b[j];
    return sum;
}

/* sigmas[l] = u^T W v. */
void FN(singular_values)(const A *from, A *sigmas, A *const *us, A *const *vs, const int64_t *places,
                         const int64_t *shapes, long count) {
    for (long layer = 0; layer < count; layer++) {
        long rows = shapes[3 * layer], squares = shapes[3 * layer + 1], c = shapes[3 * layer + 2], width = squares * c;
        A *v = FN(v_in_memory)(vs[layer], squares, c), sum = 0;
        for (long row = 0; row < rows; row++)
            sum += us[layer][row] * FN(dot)(from + places[layer] + row * width, v, width);
        sigmas[layer] = sum;
        free(v);
    }
}

/* v = W^T u / |W^T u|, then u = W v / |W v|. */
void FN(power_iteration)(const A *from, A *const *us, A *const *vs, const int64_t *places, const int64_t *shapes,
                         long count) {
    for (long layer = 0; layer < count; layer++) {
        long rows = shapes[3 * layer], squares = shapes[3 * layer + 1], c = shapes[3 * layer + 2], width = squares * c;
        const A *weight = from + places[layer];
        A *u = us[layer], *v = vs[layer], *sums = calloc((size_t)width, sizeof(A));
        for (long row = 0; row < rows; row++)
            for (long j = 0; j < width; j++) sums[j] += u[row] * weight[row * width + j];
        A length = MAX(SQRT(FN(dot)(sums, sums, width)), (A)1e-12);
        for (long j = 0; j < width; j++) sums[j] /= length;
        for (long j = 0; j < squares; j++)
            for (long k = 0; k < c; k++) v[k * squares + j] = sums[j * c + k];
        for (long row = 0; row < rows; row++) u[row] = FN(dot)(weight + row * width, sums, width);
        length = MAX(SQRT(FN(dot)(u, u, rows)), (A)1e-12);
        for (long row = 0; row < rows; row++) u[row] /= length;
        free(sums);
    }
}

/* How the gradients of weight / sigma (parts, or NULL) depend on sigma: to -= factor / sigma * sum(part * W) u v^T. */
void FN(spectral_gradients)(T *const *parts, const A *from, A *to, const A *factors, const A *sigmas, A *const *us,
                            A *const *vs, const int64_t *places, const int64_t *shapes, long count) {
    for (long layer = 0; layer < count; layer++) {
        if (!parts[layer]) continue;
        long rows = shapes[3 * layer], squares = shapes[3 * layer + 1], c = shapes[3 * layer + 2], width = squares * c;
        const A *weight = from + places[layer];
        A *into = to + places[layer], *v = FN(v_in_memory)(vs[layer], squares, c), sum = 0;
        for (long row = 0; row < rows; row++) {
            A own = 0;
            DO_PRAGMA(omp simd reduction(+ : own))
            for (long j = 0; j < width; j++) own += LOAD(parts[layer][row * width + j]) * weight[row * width + j];
            sum += own;
        }
        sum *= factors[layer] / sigmas[layer];
        for (long row = 0; row < rows; row++) {
            A factor = sum * us[layer][row];
            for (long j = 0; j < width; j++) into[row * width + j] -= factor * v[j];
        }
        free(v);
    }
}

/* squares[d, c] = sums of the squares of weight[d, 3, 3, c]; scale[n, d] = gain / sqrt(style^2 squares^T + 1e-8). */
void FN(demodulate)(const T *weight, const T *style, A *squares, A *scale, long n, long d, long c, long places,
                    double gain) {
    ZERO(squares, d * c);
    for (long out = 0; out < d; out++)
        for (long place = 0; place < places; place++)
            for (long k = 0; k < c; k++) {
                A value = LOAD(weight[(out * places + place) * c + k]);
                squares[out * c + k] += value * value;
            }
    ROW factors[c];
    for (long image = 0; image < n; image++) {
        for (long k = 0; k < c; k++) factors[k] = LOAD(style[image * c + k]) * LOAD(style[image * c + k]);
        for (long out = 0; out < d; out++) {
            A sum = 0;
            DO_PRAGMA(omp simd reduction(+ : sum))
            for (long k = 0; k < c; k++) sum += factors[k] * squares[out * c + k];
            scale[image * d + out] = (A)gain / SQRT(sum + (A)1e-8);
        }
    }
}

/* From g_scale, the gradient of scale, to g_style and g_weight (the gradients so far), what goes back through scale. */
void FN(demodulate_backward)(const A *g_scale, const T *weight, const T *style, const A *squares, const A *scale,
                             const A *g_style, T *g_style_out, T *g_weight, long n, long d, long c, long places,
                             double gain) {
    ROW g_sum[n * d], of_weight[c], of_style[c];
    for (long j = 0; j < n * d; j++)
        g_sum[j] = g_scale[j] * scale[j] * scale[j] * scale[j] * (A)(-0.5 / (gain * gain));
    for (long image = 0; image < n; image++) {
        ZERO(of_style, c);
        for (long out = 0; out < d; out++)
            for (long k = 0; k < c; k++) of_style[k] += g_sum[image * d + out] * squares[out * c + k];
        for (long k = 0; k < c; k++)
            g_style_out[image * c + k] =
                STORE(g_style[image * c + k] + 2 * LOAD(style[image * c + k]) * of_style[k]);
    }
    for (long out = 0; out < d; out++) {
        ZERO(of_weight, c);
        for (long image = 0; image < n; image++)
            for (long k = 0; k < c; k++) {
                A value = LOAD(style[image * c + k]);
                of_weight[k] += g_sum[image * d + out] * value * value;
            }
        for (long place = 0; place < places; place++)
            for (long k = 0; k < c; k++) {
                long at = (out * places + place) * c + k;
                g_weight[at] = STORE(LOAD(g_weight[at]) + 2 * LOAD(weight[at]) * of_weight[k]);
            }
    }
}

/* ---- The generator's image of one channel: features times weights, added to the image of half the sides. ---- */

/* image[n, h, w] = sum_c x * weight + bias + enlarged below[n, h/2, w/2], unless that is NULL. */
void FN(head_forward)(const T *x, const T *weight, const T *bias, const A *below, A *image, long n, long h, long w,
                      long c) {
    PARALLEL(n * h * w * c)
    for (long at = 0; at < n; at++) {
        ROW factors[w * c], products[w * c], sums[w];
        FN(along)(weight, factors, w, c);
        for (long y = 0; y < h; y++) {
            A *into = image + (at * h + y) * w;
            const T *from = x + (at * h + y) * w * c;
            for (long j = 0; j < w * c; j++) products[j] = LOAD(from[j]) * factors[j];
            FN(sum_pixels)(products, sums, w, c);
            if (below) {
                long near = y / 2, far = MIN(MAX(y % 2 ? near + 1 : near - 1, 0), h / 2 - 1);
                const A *rows = below + at * (h / 2) * (w / 2);
                FN(enlarge)(rows + near * (w / 2), rows + far * (w / 2), into, w / 2, 1);
                for (long j = 0; j < w; j++) into[j] += sums[j] + LOAD(*bias);
            } else
                for (long j = 0; j < w; j++) into[j] = sums[j] + LOAD(*bias);
        }
    }
}

/* From the gradient g of the image: those of x, weight, bias, and of below unless NULL. */
void FN(head_backward)(const A *g, const T *x, const T *weight, T *g_x, T *g_weight, T *g_bias, A *g_below, long n,
                       long h, long w, long c) {
    A *of_images = malloc(sizeof(A) * n * (c + 1));
    PARALLEL(n * h * w * c)
    for (long at = 0; at < n; at++) {
        ROW factors[w * c], sums[w * c], wide[w * c], both[w], total = 0;
        FN(along)(weight, factors, w, c);
        ZERO(sums, w * c);
        const A *rows = g + at * h * w;
        for (long y = 0; y < h; y++) {
            const T *from = x + (at * h + y) * w * c;
            T *into = g_x + (at * h + y) * w * c;
            for (long j = 0; j < w; j++) total += rows[y * w + j];
            FN(repeat)(rows + y * w, wide, w, c);
            for (long j = 0; j < w * c; j++) {
                into[j] = STORE(wide[j] * factors[j]);
                sums[j] += wide[j] * LOAD(from[j]);
            }
            if (g_below && y % 2) {
                const A *first = rows + (y - 1) * w, *above = rows + MAX(y - 2, 0) * w;
                const A *second = rows + y * w, *under = rows + MIN(y + 1, h - 1) * w;
                for (long j = 0; j < w; j++)
                    both[j] = (A)0.75 * (first[j] + second[j]) + (A)0.25 * (above[j] + under[j]);
                FN(reduce)(both, g_below + (at * (h / 2) + y / 2) * (w / 2), w / 2, 1);
            }
        }
        A *own = of_images + at * (c + 1);
        ZERO(own, c);
        FN(add_up)(sums, own, w, c);
        own[c] = total;
    }
    T found[c + 1];
    FN(gather)(of_images, found, n, c + 1);
    memcpy(g_weight, found, sizeof(T) * c);
    *g_bias = found[c];
    free(of_images);
}

/* ---- Pixel norm. ---- */

/* x = r * act(x) with r = 1 / sqrt(mean of act(x)^2 over the channels + 1e-8); r is [n, h, w]. */
void FN(activate_and_normalize)(T *x, A *r, long n, long h, long w, long c) {
    PARALLEL(n * h * w * c)
    for (long row = 0; row < n * h; row++) {
        ROW values[w * c], squares[w * c], sums[w];
        for (long j = 0; j < w * c; j++) {
            values[j] = FN(act)(LOAD(x[row * w * c + j]));
            squares[j] = values[j] * values[j];
        }
        FN(sum_pixels)(squares, sums, w, c);
        for (long j = 0; j < w; j++) sums[j] = r[row * w + j] = 1 / SQRT(sums[j] / (A)c + (A)1e-8);
        FN(repeat)(sums, squares, w, c);
        for (long j = 0; j < w * c; j++) x[row * w * c + j] = STORE(values[j] * squares[j]);
    }
}

/* dx = slope(y) * r * (dy - y * mean of dy * y over the channels). */
void FN(activate_and_normalize_backward)(const T *dy, const T *y, const A *r, T *dx, long n, long h, long w, long c) {
    PARALLEL(n * h * w * c)
    for (long row = 0; row < n * h; row++) {
        ROW products[w * c], factors[w * c], sums[w];
        const T *own_dy = dy + row * w * c, *own_y = y + row * w * c;
        for (long j = 0; j < w * c; j++) products[j] = LOAD(own_dy[j]) * LOAD(own_y[j]);
        FN(sum_pixels)(products, sums, w, c);
        for (long j = 0; j < w; j++) sums[j] /= (A)c;
        FN(repeat)(sums, products, w, c);
        FN(repeat)(r + row * w, factors, w, c);
        for (long j = 0; j < w * c; j++) {
            A value = LOAD(own_y[j]);
            dx[row * w * c + j] = STORE(FN(slope)(value) * factors[j] * (LOAD(own_dy[j]) - value * products[j]));
        }
    }
}

#undef T
#undef A
#undef SUFFIX
#undef FLOOR
#undef SQRT
#undef LOAD
#undef STORE
