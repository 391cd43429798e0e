/* Softmax attention for one type of numbers, a tile of the scores at a time; kernels.c defines T and FN(name), and
 * POWER(x) for 2^x.
 *
 * Rows lie side by side: q [n, queries, d], k [n, keys, d], v [n, keys, e]. Keys are a multiple of LANES. A tile has
 * QUERIES rows and at most KEYS columns, so that it and what it is multiplied with stay in the first cache. Images are
 * shared out among threads, so results do not depend on their number.
 */

#define LANES ((long)(WIDTH / sizeof(T)))
#define UP(x) (((x) + LANES - 1) / LANES * LANES)

typedef T FN(vector) __attribute__((vector_size(WIDTH), aligned(sizeof(T)), may_alias));

/* c[i][j] (+)= sum_p a[i * ai + p * ap] * b[p][j], for a few rows and vectors of columns that fit the registers. */
static inline __attribute__((always_inline)) void FN(few)(
    const T *a, long ai, long ap, const T *b, long ldb, T *c, long ldc, long count, int add, const int rows,
    const int vectors
) {
    FN(vector) sums[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int u = 0; u < vectors; u++)
            sums[i][u] = add ? *(const FN(vector) *)(c + i * ldc + u * LANES) : (FN(vector)){0};
    for (long p = 0; p < count; p++) {
        FN(vector) columns[VECTORS];
        for (int u = 0; u < vectors; u++) columns[u] = *(const FN(vector) *)(b + p * ldb + u * LANES);
        for (int i = 0; i < rows; i++) {
            T factor = a[i * ai + p * ap];
            for (int u = 0; u < vectors; u++) sums[i][u] += factor * columns[u];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int u = 0; u < vectors; u++) *(FN(vector) *)(c + i * ldc + u * LANES) = sums[i][u];
}

/* The same for any number of rows, and any multiple of LANES columns. */
static void FN(product)(
    const T *a, long ai, long ap, const T *b, long ldb, T *c, long ldc, long rows, long columns, long count, int add
) {
#define STRIP(R, U) FN(few)(a + i * ai, ai, ap, b + j, ldb, c + i * ldc + j, ldc, count, add, R, U)
#define ROWS_OF(U) \
    for (; i + ROWS <= rows; i += ROWS) STRIP(ROWS, U); \
    for (; i + 2 <= rows; i += 2) STRIP(2, U); \
    for (; i < rows; i++) STRIP(1, U);
    long j = 0;
    for (; j + VECTORS * LANES <= columns; j += VECTORS * LANES) {
        long i = 0;
        ROWS_OF(VECTORS)
    }
    for (; j < columns; j += LANES) {
        long i = 0;
        ROWS_OF(1)
    }
#undef ROWS_OF
#undef STRIP
}

/* Rows of `count` numbers as columns: to[p][j] = from[j][p]. */
static void FN(transpose)(const T *from, T *to, long rows, long count) {
    for (long j = 0; j < rows; j++)
        for (long p = 0; p < count; p++) to[p * rows + j] = from[j * count + p];
}

/* Rows with zeros behind them, up to a multiple of LANES. */
static void FN(widen)(const T *from, T *to, long rows, long count) {
    long wide = UP(count);
    ZERO(to, rows * wide);
    for (long j = 0; j < rows; j++) memcpy(to + j * wide, from + j * count, sizeof(T) * count);
}

static T *FN(room)(long count) {
    void *found = NULL;
    return posix_memalign(&found, 64, sizeof(T) * (size_t)MAX(count, 1)) ? NULL : found;
}

/* The largest length of a row, squared. */
static T FN(longest)(const T *rows, long number, long count) {
    T longest = 0;
    for (long j = 0; j < number; j++) {
        T sum = 0;
        for (long p = 0; p < count; p++) sum += rows[j * count + p] * rows[j * count + p];
        longest = sum > longest || sum != sum ? sum : longest;
    }
    return longest;
}

/* out = softmax(q k^T) v and logs = log2 of the sums of 2^(q k^T / ln 2). */
void FN(attend)(const T *q, const T *k, const T *v, T *out, T *logs, long n, long queries, long keys, long d, long e) {
    const long wide = UP(e);
    PARALLEL(n * queries * keys)
    for (long image = 0; image < n; image++) {
        const T *own_q = q + image * queries * d, *own_k = k + image * keys * d;
        T *k_t = FN(room)(d * keys), *values = FN(room)(keys * wide);
        FN(transpose)(own_k, k_t, keys, d);
        FN(widen)(v + image * keys * e, values, keys, e);
        /* |q| |k| is no less than any |q k|. With small scores no maximum has to be subtracted. */
        T bound = FN(longest)(own_q, queries, d) * FN(longest)(own_k, keys, d) * (T)(LOG2_E * LOG2_E);
        int bounded = bound <= (T)(LARGEST_SCORE * LARGEST_SCORE);
        for (long from = 0; from < queries; from += QUERIES) {
            long rows = MIN(QUERIES, queries - from);
            T scaled[QUERIES * d] __attribute__((aligned(64))), tile[QUERIES * KEYS] __attribute__((aligned(64)));
            T mixed[QUERIES * wide] __attribute__((aligned(64))), sums[QUERIES * LANES], peaks[QUERIES];
            for (long j = 0; j < rows * d; j++) scaled[j] = own_q[from * d + j] * (T)LOG2_E;
            ZERO(mixed, rows * wide);
            ZERO(sums, rows * LANES);
            for (long i = 0; i < rows; i++) peaks[i] = bounded ? 0 : -(T)INFINITY;
            for (long first = 0; !bounded && first < keys; first += KEYS) {
                long columns = MIN(KEYS, keys - first);
                FN(product)(scaled, d, 1, k_t + first, keys, tile, KEYS, rows, columns, d, 0);
                for (long i = 0; i < rows; i++)
                    for (long j = 0; j < columns; j++) peaks[i] = MAX(tile[i * KEYS + j], peaks[i]);
            }
            for (long first = 0; first < keys; first += KEYS) {
                long columns = MIN(KEYS, keys - first);
                FN(product)(scaled, d, 1, k_t + first, keys, tile, KEYS, rows, columns, d, 0);
                for (long i = 0; i < rows; i++) {
                    T *row = tile + i * KEYS, *sum = sums + i * LANES, peak = peaks[i];
                    for (long j = 0; j < columns; j++) row[j] = POWER(row[j] - peak);
                    for (long j = 0; j < columns; j += LANES)
                        for (long lane = 0; lane < LANES; lane++) sum[lane] += row[j + lane];
                }
                FN(product)(tile, KEYS, 1, values + first * wide, wide, mixed, wide, rows, wide, columns, 1);
            }
            for (long i = 0; i < rows; i++) {
                T sum = 0;
                for (long lane = 0; lane < LANES; lane++) sum += sums[i * LANES + lane];
                long place = image * queries + from + i;
                logs[place] = LOG2(sum) + peaks[i];
                for (long p = 0; p < e; p++) out[place * e + p] = mixed[i * wide + p] / sum;
            }
        }
        free(k_t), free(values);
    }
}

/* The gradients of q, k and v, from g, that of out:
 *
 *   P = 2^(q k^T / ln 2 - logs), dS = P * (g v^T - sum g out), dq = dS k, dk = dS^T q, dv = P^T g
 */
void FN(attend_backward)(
    const T *q, const T *k, const T *v, const T *out, const T *logs, const T *g, T *dq, T *dk, T *dv, long n,
    long queries, long keys, long d, long e
) {
    const long wide = UP(d);
    PARALLEL(n * queries * keys)
    for (long image = 0; image < n; image++) {
        const T *own_q = q + image * queries * d, *own_k = k + image * keys * d, *own_g = g + image * queries * e;
        T *k_t = FN(room)(d * keys), *v_t = FN(room)(e * keys), *wide_k = FN(room)(keys * wide);
        T *dk_t = FN(room)(d * keys), *dv_t = FN(room)(e * keys);
        FN(transpose)(own_k, k_t, keys, d);
        FN(transpose)(v + image * keys * e, v_t, keys, e);
        FN(widen)(own_k, wide_k, keys, d);
        ZERO(dk_t, d * keys);
        ZERO(dv_t, e * keys);
        for (long from = 0; from < queries; from += QUERIES) {
            long rows = MIN(QUERIES, queries - from);
            const T *some_q = own_q + from * d, *some_g = own_g + from * e;
            T scaled[QUERIES * d] __attribute__((aligned(64))), tile[QUERIES * KEYS] __attribute__((aligned(64)));
            T of_tile[QUERIES * KEYS] __attribute__((aligned(64))), some_dq[QUERIES * wide] __attribute__((aligned(64)));
            T along[QUERIES];
            for (long j = 0; j < rows * d; j++) scaled[j] = some_q[j] * (T)LOG2_E;
            for (long i = 0; i < rows; i++) {
                const T *row = out + (image * queries + from + i) * e;
                along[i] = 0;
                for (long p = 0; p < e; p++) along[i] += some_g[i * e + p] * row[p];
            }
            ZERO(some_dq, rows * wide);
            for (long first = 0; first < keys; first += KEYS) {
                long columns = MIN(KEYS, keys - first);
                FN(product)(scaled, d, 1, k_t + first, keys, tile, KEYS, rows, columns, d, 0);
                FN(product)(some_g, e, 1, v_t + first, keys, of_tile, KEYS, rows, columns, e, 0);
                for (long i = 0; i < rows; i++) {
                    T *row = tile + i * KEYS, *of_row = of_tile + i * KEYS, sum = along[i];
                    T log = logs[image * queries + from + i];
                    for (long j = 0; j < columns; j++) {
                        row[j] = POWER(row[j] - log);
                        of_row[j] = row[j] * (of_row[j] - sum);
                    }
                }
                FN(product)(some_g, 1, e, tile, KEYS, dv_t + first, keys, e, columns, rows, 1);
                FN(product)(some_q, 1, d, of_tile, KEYS, dk_t + first, keys, d, columns, rows, 1);
                FN(product)(of_tile, KEYS, 1, wide_k + first * wide, wide, some_dq, wide, rows, wide, columns, 1);
            }
            for (long i = 0; i < rows; i++)
                memcpy(dq + (image * queries + from + i) * d, some_dq + i * wide, sizeof(T) * d);
        }
        FN(transpose)(dk_t, dk + image * keys * d, d, keys);
        FN(transpose)(dv_t, dv + image * keys * e, e, keys);
        free(k_t), free(v_t), free(wide_k), free(dk_t), free(dv_t);
    }
}

#undef LANES
#undef UP
#undef T
#undef SUFFIX
#undef POWER
#undef LOG2
