#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace kinefit {

// softmax(q k^T / sqrt(D)) v, row by row, as one differentiable operation whose memory is linear
// in the number of tokens: queries go `chunk` at a time against blocks of at most `chunk` keys with
// a running softmax, forward keeps q, k, v, the result and one log-sum-exp per query, and backward
// computes each block's weights again (Rabe and Staats, "Self-attention does not need O(n^2)
// memory"; Dao et al., "FlashAttention").
//
// `q` [B, Lq, D], `k` and `v` [B, Lk, D]; B is batch times heads; any strides. Returns [B, Lq, D]
// with the strides of `q`. float, double, bfloat16 and half (those two accumulate in float); any
// device, the meta device included. Differentiable once.
// REQUIRES: all three of one dtype and device, chunk >= 1, Lk >= 1.
at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t chunk);

// The same in plain ATen with the whole [B, Lq, Lk] matrix: what Attention is tested against.
at::Tensor AttentionReference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace kinefit
