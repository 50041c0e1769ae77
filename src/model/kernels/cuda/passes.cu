// Passes over memory that candle makes in several: each value is read once and written once, and computed
// with in f32. A `bf16` is the upper half of an f32. Compiled when a device is opened.

typedef unsigned short bf16;

__device__ inline float widened(bf16 value) { return __uint_as_float((unsigned int)value << 16); }

// To the nearest, ties to even; no number stays none.
__device__ inline bf16 narrowed(float value) {
    unsigned int bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bf16)((bits >> 16) | 0x40u);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// elu(u) + 1 without the difference of numbers that are nearly alike.
__device__ inline float positive(float value) { return value > 0.0f ? value + 1.0f : __expf(value); }

// `projected` is [images, tokens, 3, heads, width]; `parts` becomes [3, images, heads, tokens, width], with
// queries and keys made positive. A thread a value of one part, in the order in which it is written.
extern "C" __global__ void split_positive(const bf16 *projected, bf16 *parts, unsigned long long count,
                                          unsigned int tokens, unsigned int heads, unsigned int width) {
    unsigned long long index = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (index >= count) return;
    unsigned int channel = index % width;
    unsigned long long rest = index / width;
    unsigned int token = rest % tokens;
    rest /= tokens;
    unsigned int head = rest % heads;
    unsigned long long image = rest / heads;
    unsigned long long row = (unsigned long long)heads * width;
    const bf16 *from = projected + (image * tokens + token) * 3 * row + head * width + channel;
    parts[index] = narrowed(positive(widened(from[0])));
    parts[count + index] = narrowed(positive(widened(from[row])));
    parts[2 * count + index] = from[2 * row];
}

// The mean of four tensors, in f32.
extern "C" __global__ void mean_of_four(const bf16 *first, const bf16 *second, const bf16 *third,
                                        const bf16 *fourth, float *mean, unsigned long long count) {
    unsigned long long index = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (index >= count) return;
    float sum = widened(first[index]) + widened(second[index]) + widened(third[index]) + widened(fourth[index]);
    mean[index] = sum * 0.25f;
}

// 1 - cosine of the rows of two tensors [images, tokens, width], each with so many rows an image where it
// lies. A warp a row; `guard` is added to the squares under their roots.
extern "C" __global__ void cosine_distance(const float *left, const float *right, float *distance,
                                           unsigned int rows, unsigned int tokens, unsigned int width,
                                           unsigned int left_rows, unsigned int right_rows, float guard) {
    unsigned int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    unsigned int lane = threadIdx.x % 32;
    if (row >= rows) return;
    unsigned int image = row / tokens;
    unsigned int token = row % tokens;
    const float *a = left + ((unsigned long long)image * left_rows + token) * width;
    const float *b = right + ((unsigned long long)image * right_rows + token) * width;
    float products = 0.0f, lefts = 0.0f, rights = 0.0f;
    for (unsigned int channel = lane; channel < width; channel += 32) {
        products += a[channel] * b[channel];
        lefts += a[channel] * a[channel];
        rights += b[channel] * b[channel];
    }
    for (int step = 16; step > 0; step /= 2) {
        products += __shfl_xor_sync(0xffffffffu, products, step);
        lefts += __shfl_xor_sync(0xffffffffu, lefts, step);
        rights += __shfl_xor_sync(0xffffffffu, rights, step);
    }
    if (lane == 0) distance[row] = 1.0f - products / (sqrtf(lefts + guard) * sqrtf(rights + guard));
}
