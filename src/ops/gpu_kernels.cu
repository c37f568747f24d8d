#include <algorithm>

#include "ops/gpu_kernels.h"
#include "ops/gpu_launch.h"

namespace kinefit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 32;  // vectors of channels that a block's rows are wide at most
#ifdef __CUDACC__
constexpr int kReduceBlocks = 528;  // four for each multiprocessor of an H100
constexpr int kMapBlocks = 2112;
#else
constexpr int kReduceBlocks = 2;
constexpr int kMapBlocks = 3;
#endif

template <typename T>
struct Sum {
  using Type = float;
};
template <>
struct Sum<double> {
  using Type = double;
};

template <typename T>
__device__ __forceinline__ typename Sum<T>::Type Wide(T value) {
  return static_cast<typename Sum<T>::Type>(value);
}
template <>
__device__ __forceinline__ float Wide(Half value) {
  return HalfToFloat(value);
}
template <>
__device__ __forceinline__ float Wide(BFloat16 value) {
  return BFloat16ToFloat(value);
}
template <typename T, typename P>
__device__ __forceinline__ T Narrow(P value) {
  return static_cast<T>(value);
}
template <>
__device__ __forceinline__ Half Narrow(float value) {
  return FloatToHalf(value);
}
template <>
__device__ __forceinline__ BFloat16 Narrow(float value) {
  return FloatToBFloat16(value);
}

// V elements that are loaded at once.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

template <typename T, int V>
__device__ __forceinline__ Pack<T, V> Load(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}
template <typename T, int V>
__device__ __forceinline__ void Store(T* to, const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

// How a matrix is divided: threads (x: vectors of channels, y: rows), blocks (x: rows, y: tiles).
struct Grid {
  Grid(int64_t rows, int64_t channels, int vector, int blocks) {
    const int64_t vectors = channels / vector;
    const int width = static_cast<int>(std::min<int64_t>(vectors, kTile));
    const int height = kThreads / width;
    const auto tiles = static_cast<unsigned>((vectors + width - 1) / width);
    const int64_t wanted = (rows + height - 1) / height;
    const auto most = std::max<int64_t>(1, blocks / tiles);
    threads = dim3(width, height);
    this->blocks = dim3(static_cast<unsigned>(std::max<int64_t>(1, std::min(wanted, most))), tiles);
  }
  dim3 threads, blocks;
};

int VectorOf(int64_t channels, int largest) {
  int vector = largest;
  while (vector > 1 && channels % vector != 0) vector /= 2;
  return vector;
}

// scale and shift of V channels; one and zero without a norm.
template <typename P, int V>
struct Fold {
  P scale[V], shift[V];
  __device__ Fold(const Norm& norm, int64_t c) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (norm.gamma == nullptr) {
        scale[i] = 1;
        shift[i] = 0;
        continue;
      }
      const P inverse = static_cast<const P*>(norm.inverse_std)[c + i];
      const P mean = static_cast<const P*>(norm.mean)[c + i];
      scale[i] = inverse * static_cast<const P*>(norm.gamma)[c + i];
      shift[i] = fma(-mean, scale[i], static_cast<const P*>(norm.beta)[c + i]);
    }
  }
};

// Adds every thread's `values` [K][V] up over the rows of the block and writes them to
// scratch [block of rows][K][channels].
template <int K, int V, typename P>
__device__ void WriteSums(const P (&values)[K][V], int64_t c, bool inside, int64_t channels,
                          double* scratch) {
  P* shared = reinterpret_cast<P*>(SharedMemory());
  const int width = blockDim.x * V;
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      shared[(threadIdx.y * K + k) * width + threadIdx.x * V + i] = values[k][i];
    }
  }
  __syncthreads();
  const int threads = blockDim.x * blockDim.y;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * width;
  for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < K * width; i += threads) {
    const int64_t channel = first + i % width;
    if (channel >= channels) continue;
    double sum = 0;
    for (unsigned row = 0; row < blockDim.y; ++row) sum += shared[row * K * width + i];
    scratch[(static_cast<int64_t>(blockIdx.x) * K + i / width) * channels + channel] = sum;
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    MomentsKernel(const T* x, int64_t rows, int64_t channels, double* scratch) {
  using P = typename Sum<T>::Type;
  constexpr int kUnroll = 4;
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
  const bool inside = c < channels;
  P sums[2][V] = {};
  if (inside) {
    P about[V];
    const Pack<T, V> first = Load<T, V>(x + c);
#pragma unroll
    for (int i = 0; i < V; ++i) about[i] = Wide(first.at[i]);
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
    for (; row + (kUnroll - 1) * step < rows; row += kUnroll * step) {
      Pack<T, V> packs[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        packs[u] = Load<T, V>(x + (row + u * step) * channels + c);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const P d = Wide(packs[u].at[i]) - about[i];
          sums[0][i] += d;
          sums[1][i] = fma(d, d, sums[1][i]);
        }
      }
    }
    for (; row < rows; row += step) {
      const Pack<T, V> pack = Load<T, V>(x + row * channels + c);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const P d = Wide(pack.at[i]) - about[i];
        sums[0][i] += d;
        sums[1][i] = fma(d, d, sums[1][i]);
      }
    }
  }
  WriteSums<2, V>(sums, c, inside, channels, scratch);
}

// Adds `blocks` parts [K][channels] up: a warp for each channel.
__device__ double WarpSum(double value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0U, value, offset);
  return value;
}

template <int K>
__device__ bool AddParts(const double* scratch, int blocks, int64_t channels, int64_t* channel,
                         double (&sums)[K]) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (c >= channels) return false;
  for (int k = 0; k < K; ++k) sums[k] = 0;
  for (int part = threadIdx.x; part < blocks; part += 32) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      sums[k] += scratch[(static_cast<int64_t>(part) * K + k) * channels + c];
    }
  }
#pragma unroll
  for (int k = 0; k < K; ++k) sums[k] = WarpSum(sums[k]);
  *channel = c;
  return threadIdx.x == 0;
}

template <typename T>
__global__ void AddMomentsKernel(const double* scratch, int blocks, const T* x, int64_t rows,
                                 int64_t channels, double* moments) {
  double sums[2];
  int64_t c;
  if (!AddParts<2>(scratch, blocks, channels, &c, sums)) return;
  const double about = static_cast<double>(Wide(x[c]));
  const double n = static_cast<double>(rows);
  moments[c] = sums[0] + n * about;
  moments[channels + c] = sums[1] + about * (2 * sums[0] + n * about);
}

template <typename P>
__global__ void FinishKernel(Finish f, int64_t channels) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  if (c == 0 && f.tracked != nullptr) ++*f.tracked;
  const double n = f.count == nullptr ? f.rows : *f.count;
  const double mean = f.moments[c] / n;
  const double variance = fmax(f.moments[channels + c] / n - mean * mean, 0.0);
  static_cast<P*>(f.mean)[c] = static_cast<P>(mean);
  static_cast<P*>(f.inverse_std)[c] = static_cast<P>(1 / sqrt(variance + f.epsilon));
  P* running_mean = static_cast<P*>(f.running_mean);
  P* running_var = static_cast<P*>(f.running_var);
  running_mean[c] =
      static_cast<P>((1 - f.momentum) * static_cast<double>(running_mean[c]) + f.momentum * mean);
  running_var[c] = static_cast<P>((1 - f.momentum) * static_cast<double>(running_var[c]) +
                                  f.momentum * variance * (n / fmax(n - 1, 1.0)));
}

template <typename T, int V, bool kTwo, bool kRelu>
__global__ void __launch_bounds__(kThreads)
    NormaliseKernel(const T* x, Norm norm, const T* b, Norm norm_b, int64_t rows, int64_t channels,
                    T* out) {
  using P = typename Sum<T>::Type;
  constexpr int kUnroll = 2;
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
  if (c >= channels) return;
  const Fold<P, V> fold(norm, c);
  const Fold<P, V> fold_b(norm_b, c);
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const auto one = [&](const Pack<T, V>& px, const Pack<T, V>& pb, int64_t at) {
    Pack<T, V> result;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      P value = fma(Wide(px.at[i]), fold.scale[i], fold.shift[i]);
      if (kTwo) value += fma(Wide(pb.at[i]), fold_b.scale[i], fold_b.shift[i]);
      if (kRelu) value = value > 0 ? value : P(0);
      result.at[i] = Narrow<T>(value);
    }
    Store<T, V>(out + at, result);
  };
  for (; row + (kUnroll - 1) * step < rows; row += kUnroll * step) {
    Pack<T, V> px[kUnroll];
    Pack<T, V> pb[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = (row + u * step) * channels + c;
      px[u] = Load<T, V>(x + at);
      if (kTwo) pb[u] = Load<T, V>(b + at);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) one(px[u], pb[u], (row + u * step) * channels + c);
  }
  for (; row < rows; row += step) {
    const int64_t at = row * channels + c;
    Pack<T, V> pb = {};
    if (kTwo) pb = Load<T, V>(b + at);
    one(Load<T, V>(x + at), pb, at);
  }
}

// kTwo: the masked result is a sum of a and b, and the masked gradient is written back. kThird: b
// has a norm of its own.
template <typename T, int V, bool kTwo, bool kRelu, bool kThird, bool kAdd>
__global__ void __launch_bounds__(kThreads)
    GradientSumsKernel(T* grad, const T* add, const T* a, Norm norm_a, const T* b, Norm norm_b,
                       int64_t rows, int64_t channels, double* scratch) {
  using P = typename Sum<T>::Type;
  constexpr int kSums = kThird ? 3 : 2;
  constexpr int kUnroll = 2;
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
  const bool inside = c < channels;
  P sums[kSums][V] = {};
  if (inside) {
    const Fold<P, V> fold_a(norm_a, c);
    const Fold<P, V> fold_b(norm_b, c);
    P mean_a[V];
    P mean_b[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      mean_a[i] = static_cast<const P*>(norm_a.mean)[c + i];
      mean_b[i] = kThird ? static_cast<const P*>(norm_b.mean)[c + i] : P(0);
    }
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
    const auto one = [&](Pack<T, V> pg, const Pack<T, V>& pd, const Pack<T, V>& pa,
                         const Pack<T, V>& pb, int64_t at) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const P va = Wide(pa.at[i]);
        P g = Wide(pg.at[i]);
        if (kAdd) g = Wide(Narrow<T>(g + Wide(pd.at[i])));
        if (kRelu) {
          P value = fma(va, fold_a.scale[i], fold_a.shift[i]);
          if (kTwo) value += fma(Wide(pb.at[i]), fold_b.scale[i], fold_b.shift[i]);
          if (!(value > 0)) g = 0;
        }
        sums[0][i] += g;
        sums[1][i] = fma(g, va - mean_a[i], sums[1][i]);
        if (kThird) sums[2][i] = fma(g, Wide(pb.at[i]) - mean_b[i], sums[2][i]);
        if (kTwo || kAdd) pg.at[i] = Narrow<T>(g);
      }
      if (kTwo || kAdd) Store<T, V>(grad + at, pg);
    };
    for (; row + (kUnroll - 1) * step < rows; row += kUnroll * step) {
      Pack<T, V> pg[kUnroll];
      Pack<T, V> pd[kUnroll];
      Pack<T, V> pa[kUnroll];
      Pack<T, V> pb[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int64_t at = (row + u * step) * channels + c;
        pg[u] = Load<T, V>(grad + at);
        if (kAdd) pd[u] = Load<T, V>(add + at);
        pa[u] = Load<T, V>(a + at);
        if (kTwo) pb[u] = Load<T, V>(b + at);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        one(pg[u], pd[u], pa[u], pb[u], (row + u * step) * channels + c);
      }
    }
    for (; row < rows; row += step) {
      const int64_t at = row * channels + c;
      Pack<T, V> pd = {};
      Pack<T, V> pb = {};
      if (kAdd) pd = Load<T, V>(add + at);
      if (kTwo) pb = Load<T, V>(b + at);
      one(Load<T, V>(grad + at), pd, Load<T, V>(a + at), pb, at);
    }
  }
  WriteSums<kSums, V>(sums, c, inside, channels, scratch);
}

template <int K>
__global__ void AddSumsKernel(const double* scratch, int blocks, int64_t channels, double* sums) {
  double own[K];
  int64_t c;
  if (!AddParts<K>(scratch, blocks, channels, &c, own)) return;
  for (int k = 0; k < K; ++k) sums[k * channels + c] = own[k];
}

// Gradients of gamma and beta, and what the input's needs of each channel: with g the masked
// gradient, factor * (g - offset - (x - mean) * slope).
template <typename P>
__global__ void CoefficientsKernel(Gradient g, int64_t channels, P* coefficients) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const double inverse = static_cast<double>(static_cast<const P*>(g.norm.inverse_std)[c]);
  const double gamma = static_cast<double>(static_cast<const P*>(g.norm.gamma)[c]);
  static_cast<P*>(g.gamma_grad)[c] = static_cast<P>(g.own_sums[g.which * channels + c] * inverse);
  static_cast<P*>(g.beta_grad)[c] = static_cast<P>(g.own_sums[c]);
  const double n = g.count == nullptr ? static_cast<double>(g.x.rows) : *g.count;
  coefficients[c] = static_cast<P>(gamma * inverse);
  coefficients[channels + c] = g.of_batch ? static_cast<P>(g.sums[c] / n) : P(0);
  coefficients[2 * channels + c] =
      g.of_batch ? static_cast<P>(g.sums[g.which * channels + c] * inverse * inverse / n) : P(0);
}

template <typename T, int V, bool kRelu>
__global__ void __launch_bounds__(kThreads)
    InputGradientKernel(const T* grad, const T* x, Norm norm,
                        const typename Sum<T>::Type* coefficients, int64_t rows, int64_t channels,
                        T* out) {
  using P = typename Sum<T>::Type;
  constexpr int kUnroll = 2;
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
  if (c >= channels) return;
  const Fold<P, V> fold(norm, c);
  P factor[V];
  P offset[V];
  P slope[V];
  P mean[V];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    factor[i] = coefficients[c + i];
    offset[i] = coefficients[channels + c + i];
    slope[i] = coefficients[2 * channels + c + i];
    mean[i] = static_cast<const P*>(norm.mean)[c + i];
  }
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const auto one = [&](const Pack<T, V>& pg, const Pack<T, V>& px, int64_t at) {
    Pack<T, V> result;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const P value = Wide(px.at[i]);
      P g = Wide(pg.at[i]);
      if (kRelu && !(fma(value, fold.scale[i], fold.shift[i]) > 0)) g = 0;
      result.at[i] = Narrow<T>(factor[i] * (g - offset[i] - (value - mean[i]) * slope[i]));
    }
    Store<T, V>(out + at, result);
  };
  for (; row + (kUnroll - 1) * step < rows; row += kUnroll * step) {
    Pack<T, V> pg[kUnroll];
    Pack<T, V> px[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = (row + u * step) * channels + c;
      pg[u] = Load<T, V>(grad + at);
      px[u] = Load<T, V>(x + at);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) one(pg[u], px[u], (row + u * step) * channels + c);
  }
  for (; row < rows; row += step) {
    const int64_t at = row * channels + c;
    one(Load<T, V>(grad + at), Load<T, V>(x + at), at);
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    MaxPoolKernel(const T* x, Pool p, T* out, uint8_t* places, int64_t vectors) {
  using P = typename Sum<T>::Type;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  const int64_t per_row = p.channels / V;
  const int64_t c = i % per_row * V;
  const int64_t pixel = i / per_row;
  const int64_t ox = pixel % p.out_width;
  const int64_t oy = pixel / p.out_width % p.out_height;
  const int64_t frame = pixel / p.out_width / p.out_height;
  P best[V];
  Pack<T, V> result = {};
  Pack<uint8_t, V> place = {};
  bool any = false;
#pragma unroll
  for (int k = 0; k < 9; ++k) {
    const int64_t y = oy * p.stride - 1 + k / 3;
    const int64_t column = ox * p.stride - 1 + k % 3;
    if (y < 0 || y >= p.height || column < 0 || column >= p.width) continue;
    const Pack<T, V> pack =
        Load<T, V>(x + ((frame * p.height + y) * p.width + column) * p.channels + c);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const P value = Wide(pack.at[j]);
      // As PyTorch: not a number wins.
      if (any && !(value > best[j]) && value == value) continue;
      best[j] = value;
      result.at[j] = pack.at[j];
      place.at[j] = static_cast<uint8_t>(k);
    }
    any = true;
  }
  Store<T, V>(out + i * V, result);
  Store<uint8_t, V>(places + i * V, place);
}

// Gathers: every input pixel asks the windows it is in whether it was their maximum.
template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    MaxPoolGradientKernel(const T* grad, const uint8_t* places, Pool p, T* out, int64_t vectors) {
  using P = typename Sum<T>::Type;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  const int64_t per_row = p.channels / V;
  const int64_t c = i % per_row * V;
  const int64_t pixel = i / per_row;
  const int64_t ix = pixel % p.width;
  const int64_t iy = pixel / p.width % p.height;
  const int64_t frame = pixel / p.width / p.height;
  P sums[V] = {};
#pragma unroll
  for (int k = 0; k < 9; ++k) {  // the place this pixel has in the window
    const int64_t y = iy + 1 - k / 3;
    const int64_t x = ix + 1 - k % 3;
    if (y < 0 || x < 0 || y % p.stride != 0 || x % p.stride != 0) continue;
    const int64_t oy = y / p.stride;
    const int64_t ox = x / p.stride;
    if (oy >= p.out_height || ox >= p.out_width) continue;
    const int64_t at = ((frame * p.out_height + oy) * p.out_width + ox) * p.channels + c;
    const Pack<uint8_t, V> place = Load<uint8_t, V>(places + at);
    const Pack<T, V> pack = Load<T, V>(grad + at);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      if (place.at[j] == k) sums[j] += Wide(pack.at[j]);
    }
  }
  Pack<T, V> result;
#pragma unroll
  for (int j = 0; j < V; ++j) result.at[j] = Narrow<T>(sums[j]);
  Store<T, V>(out + i * V, result);
}

// One thread for each pixel of each frame.
template <typename T, typename Source>
__global__ void __launch_bounds__(kThreads)
    StemInputKernel(const Source* source, StemInput s, T* out, int64_t count) {
  using P = typename Sum<T>::Type;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t volume = s.frames * s.pixels;
  const int64_t sample = i / volume;
  const int64_t place = i % volume;
  T* to = out + i * s.padded;
  for (int64_t c = 0; c < s.padded; ++c) {
    P value = 0;
    if (c < s.channels) {
      if constexpr (sizeof(Source) == 1) {
        const float pixel = static_cast<float>(source[i * s.channels + c]);
        value = (pixel - s.mean[c & 3]) * s.scale[c & 3];
      } else {
        value = static_cast<P>(source[(sample * s.channels + c) * volume + place]);
      }
    }
    to[c] = Narrow<T>(value);
  }
}

// Philox4x32-10 as in random/stream.cc; a draw takes two of a block's four words.
__global__ void DropoutKernel(uint32_t key0, uint32_t key1, uint32_t lane0, uint32_t lane1,
                              int64_t first, int64_t count, double dropout, float kept,
                              float* values) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const uint64_t draw = static_cast<uint64_t>(first + i);
  const uint64_t block = draw / 2;
  uint32_t c[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), lane0, lane1};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53U} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57U} * c[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(p1),
        static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key1, static_cast<uint32_t>(p0)};
    for (int k = 0; k < 4; ++k) c[k] = next[k];
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  const uint64_t high = c[draw % 2 * 2] >> 5;
  const uint64_t low = c[draw % 2 * 2 + 1] >> 6;
  const double uniform = static_cast<double>((high << 26) | low) * (1.0 / 9007199254740992.0);
  values[i] = uniform < dropout ? 0.0F : kept;
}

template <int V>
struct VectorTag {
  static constexpr int kSize = V;
};

// Calls run(T(), VectorTag<V>()) for the element type and the widest vector the channels allow.
template <typename T, typename Run>
void ForVector(int64_t channels, const Run& run) {
  constexpr int kLargest = 16 / sizeof(T);
  switch (VectorOf(channels, kLargest)) {
    case 8:
      if constexpr (kLargest >= 8) run(T(), VectorTag<8>());
      return;
    case 4:
      if constexpr (kLargest >= 4) run(T(), VectorTag<4>());
      return;
    case 2:
      run(T(), VectorTag<2>());
      return;
    default:
      run(T(), VectorTag<1>());
  }
}

template <typename Run>
void ForElement(Element element, int64_t channels, const Run& run) {
  switch (element) {
    case Element::kHalf:
      return ForVector<Half>(channels, run);
    case Element::kBFloat16:
      return ForVector<BFloat16>(channels, run);
    case Element::kFloat:
      return ForVector<float>(channels, run);
    case Element::kDouble:
      return ForVector<double>(channels, run);
  }
}

size_t SharedBytes(const Grid& grid, int sums, int vector, Element element) {
  const size_t each = element == Element::kDouble ? sizeof(double) : sizeof(float);
  return each * grid.threads.x * grid.threads.y * static_cast<size_t>(sums * vector);
}

constexpr dim3 kWarpOfEach(32, 8);  // a warp for each of 8 channels
unsigned BlocksFor(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

int LargestVector(Element element) {
  switch (element) {
    case Element::kFloat:
      return 4;
    case Element::kDouble:
      return 2;
    default:
      return 8;
  }
}

Grid ReduceGrid(const Matrix& x) {
  return {x.rows, x.channels, VectorOf(x.channels, LargestVector(x.element)), kReduceBlocks};
}

int64_t ScratchDoubles(int64_t rows, int64_t channels, Element element) {
  return 3 * channels *
         static_cast<int64_t>(ReduceGrid({nullptr, element, rows, channels}).blocks.x);
}

void Moments(const Matrix& x, double* scratch, double* moments, void* stream) {
  const Grid grid = ReduceGrid(x);
  ForElement(x.element, x.channels, [&](auto type, auto vector) {
    using T = decltype(type);
    constexpr int kVector = decltype(vector)::kSize;
    const T* data = static_cast<const T*>(x.data);
    LaunchTogether(MomentsKernel<T, kVector>, grid.blocks, grid.threads,
                   SharedBytes(grid, 2, kVector, x.element), stream, data, x.rows, x.channels,
                   scratch);
    LaunchTogether(AddMomentsKernel<T>, BlocksFor(x.channels, kWarpOfEach.y), kWarpOfEach, 0,
                   stream, scratch, static_cast<int>(grid.blocks.x), data, x.rows, x.channels,
                   moments);
  });
}

void FinishStatistics(const Finish& finish, int64_t channels, bool doubles, void* stream) {
  const unsigned blocks = BlocksFor(channels, kThreads);
  if (doubles) {
    Launch(FinishKernel<double>, blocks, kThreads, 0, stream, finish, channels);
  } else {
    Launch(FinishKernel<float>, blocks, kThreads, 0, stream, finish, channels);
  }
}

void Normalise(const Matrix& x, const Norm& norm, const Matrix& b, const Norm& norm_b, bool relu,
               void* out, void* stream) {
  ForElement(x.element, x.channels, [&](auto type, auto vector) {
    using T = decltype(type);
    constexpr int kVector = decltype(vector)::kSize;
    const Grid grid(x.rows, x.channels, kVector, kMapBlocks);
    const auto launch = [&](auto kernel) {
      Launch(kernel, grid.blocks, grid.threads, 0, stream, static_cast<const T*>(x.data), norm,
             static_cast<const T*>(b.data), norm_b, x.rows, x.channels, static_cast<T*>(out));
    };
    if (b.data != nullptr) {
      relu ? launch(NormaliseKernel<T, kVector, true, true>)
           : launch(NormaliseKernel<T, kVector, true, false>);
    } else {
      relu ? launch(NormaliseKernel<T, kVector, false, true>)
           : launch(NormaliseKernel<T, kVector, false, false>);
    }
  });
}

void GradientSums(void* grad, const void* add, const Matrix& a, const Norm& norm_a, const Matrix& b,
                  const Norm& norm_b, bool relu, double* scratch, double* sums, void* stream) {
  const Grid grid = ReduceGrid(a);
  const bool third = b.data != nullptr && norm_b.gamma != nullptr;
  ForElement(a.element, a.channels, [&](auto type, auto vector) {
    using T = decltype(type);
    constexpr int kVector = decltype(vector)::kSize;
    const auto launch = [&](auto kernel) {
      LaunchTogether(
          kernel, grid.blocks, grid.threads, SharedBytes(grid, third ? 3 : 2, kVector, a.element),
          stream, static_cast<T*>(grad), static_cast<const T*>(add), static_cast<const T*>(a.data),
          norm_a, static_cast<const T*>(b.data), norm_b, a.rows, a.channels, scratch);
    };
    if (b.data == nullptr) {
      relu ? launch(GradientSumsKernel<T, kVector, false, true, false, false>)
           : launch(GradientSumsKernel<T, kVector, false, false, false, false>);
    } else if (third) {
      add != nullptr ? launch(GradientSumsKernel<T, kVector, true, true, true, true>)
                     : launch(GradientSumsKernel<T, kVector, true, true, true, false>);
    } else {
      add != nullptr ? launch(GradientSumsKernel<T, kVector, true, true, false, true>)
                     : launch(GradientSumsKernel<T, kVector, true, true, false, false>);
    }
  });
  const unsigned blocks = BlocksFor(a.channels, kWarpOfEach.y);
  const int parts = static_cast<int>(grid.blocks.x);
  if (third) {
    LaunchTogether(AddSumsKernel<3>, blocks, kWarpOfEach, 0, stream, scratch, parts, a.channels,
                   sums);
  } else {
    LaunchTogether(AddSumsKernel<2>, blocks, kWarpOfEach, 0, stream, scratch, parts, a.channels,
                   sums);
  }
}

void InputGradient(const Gradient& g, void* coefficients, void* stream) {
  const Matrix& x = g.x;
  ForElement(x.element, x.channels, [&](auto type, auto vector) {
    using T = decltype(type);
    using P = typename Sum<T>::Type;
    constexpr int kVector = decltype(vector)::kSize;
    P* per_channel = static_cast<P*>(coefficients);
    Launch(CoefficientsKernel<P>, BlocksFor(x.channels, kThreads), kThreads, 0, stream, g,
           x.channels, per_channel);
    if (g.out == nullptr) return;
    const Grid grid(x.rows, x.channels, kVector, kMapBlocks);
    const auto launch = [&](auto kernel) {
      Launch(kernel, grid.blocks, grid.threads, 0, stream, static_cast<const T*>(g.grad),
             static_cast<const T*>(x.data), g.norm, per_channel, x.rows, x.channels,
             static_cast<T*>(g.out));
    };
    g.relu ? launch(InputGradientKernel<T, kVector, true>)
           : launch(InputGradientKernel<T, kVector, false>);
  });
}

void MaxPool(const Pool& pool, const void* x, void* out, uint8_t* places, void* stream) {
  ForElement(pool.element, pool.channels, [&](auto type, auto vector) {
    using T = decltype(type);
    constexpr int kVector = decltype(vector)::kSize;
    const int64_t vectors =
        pool.frames * pool.out_height * pool.out_width * (pool.channels / kVector);
    Launch(MaxPoolKernel<T, kVector>, BlocksFor(vectors, kThreads), kThreads, 0, stream,
           static_cast<const T*>(x), pool, static_cast<T*>(out), places, vectors);
  });
}

void MaxPoolGradient(const Pool& pool, const void* grad, const uint8_t* places, void* out,
                     void* stream) {
  ForElement(pool.element, pool.channels, [&](auto type, auto vector) {
    using T = decltype(type);
    constexpr int kVector = decltype(vector)::kSize;
    const int64_t vectors = pool.frames * pool.height * pool.width * (pool.channels / kVector);
    Launch(MaxPoolGradientKernel<T, kVector>, BlocksFor(vectors, kThreads), kThreads, 0, stream,
           static_cast<const T*>(grad), places, pool, static_cast<T*>(out), vectors);
  });
}

void MakeStemInput(const StemInput& s, const void* source, void* out, void* stream) {
  const int64_t count = s.samples * s.frames * s.pixels;
  ForElement(s.element, 1, [&](auto type, auto /*vector*/) {
    using T = decltype(type);
    const auto launch = [&](auto kernel, auto* from) {
      Launch(kernel, BlocksFor(count, kThreads), kThreads, 0, stream, from, s, static_cast<T*>(out),
             count);
    };
    if (s.bytes) {
      launch(StemInputKernel<T, uint8_t>, static_cast<const uint8_t*>(source));
    } else if (s.element == Element::kDouble) {
      launch(StemInputKernel<T, double>, static_cast<const double*>(source));
    } else {
      launch(StemInputKernel<T, float>, static_cast<const float*>(source));
    }
  });
}

void MakeDropoutMask(const Dropout& d, float* values, void* stream) {
  if (d.count == 0) return;
  Launch(DropoutKernel, BlocksFor(d.count, kThreads), kThreads, 0, stream, d.key[0], d.key[1],
         d.lane[0], d.lane[1], d.first, d.count, d.chance, d.kept, values);
}

const Kernels kKernels = {ScratchDoubles, Moments,        FinishStatistics, Normalise,
                          GradientSums,   InputGradient,  MaxPool,          MaxPoolGradient,
                          MakeStemInput,  MakeDropoutMask};

}  // namespace

#ifdef __CUDACC__
const Kernels& CudaKernels() { return kKernels; }
#else
const Kernels& EmulatedKernels() { return kKernels; }
#endif

}  // namespace kinefit::cuda
