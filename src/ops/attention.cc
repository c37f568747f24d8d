#include "ops/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "ops/batch_norm.h"

namespace kinefit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// How much is worked on at once.
struct Blocks {
  int64_t keys;    // of one head
  int64_t scores;  // over all heads, at most
};
constexpr Blocks kCpuBlocks = {256, 1 << 22};   // the scores stay in cache
constexpr Blocks kGpuBlocks = {1024, 1 << 24};  // starting kernels is not what takes the time

Blocks BlocksFor(const at::Tensor& x) { return RunsOnGpu(x) ? kGpuBlocks : kCpuBlocks; }

// What one block of work covers: heads [head, head + heads), queries, keys.
struct Tile {
  int64_t head, heads;
  int64_t query, queries;
  int64_t key, keys;
};

// Slices of [B, L, D] tensors.
at::Tensor Queries(const at::Tensor& x, const Tile& t) {
  return x.narrow(0, t.head, t.heads).narrow(1, t.query, t.queries);
}
at::Tensor Keys(const at::Tensor& x, const Tile& t) {
  return x.narrow(0, t.head, t.heads).narrow(1, t.key, t.keys);
}

// Walks all tiles: heads, then queries, then keys. `row` is called with the first tile of each
// group of queries, `tile` with every tile, `finish` when the group has met every key.
void ForEachTile(const Blocks& blocks, int64_t batch, int64_t queries, int64_t keys, int64_t chunk,
                 const std::function<void(const Tile&)>& row,
                 const std::function<void(const Tile&)>& tile,
                 const std::function<void(const Tile&)>& finish) {
  const int64_t rows = std::min(chunk, queries);
  const int64_t columns = std::min({chunk, keys, blocks.keys});
  const int64_t heads = std::clamp<int64_t>(blocks.scores / (rows * columns), 1, batch);
  for (int64_t b = 0; b < batch; b += heads) {
    for (int64_t q = 0; q < queries; q += rows) {
      Tile t{b, std::min(heads, batch - b), q, std::min(rows, queries - q), 0, 0};
      row(t);
      for (t.key = 0; t.key < keys; t.key += columns) {
        t.keys = std::min(columns, keys - t.key);
        tile(t);
      }
      finish(t);
    }
  }
}

bool IsReduced(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

// The dtype in which sums are kept.
at::ScalarType SumType(const at::Tensor& x) {
  return IsReduced(x.scalar_type()) ? at::kFloat : x.scalar_type();
}

// a b^T of one tile in the summing dtype.
at::Tensor Scores(const at::Tensor& a, const at::Tensor& b, at::ScalarType sums) {
  return at::bmm(a, b.transpose(1, 2)).to(sums);
}

struct Forwarded {
  at::Tensor out;          // [B, Lq, D]
  at::Tensor log_sum_exp;  // [B, Lq, 1]
};

Forwarded AttentionForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t chunk) {
  const auto sums = SumType(q);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  Forwarded result;
  result.out = at::empty_like(q);
  result.log_sum_exp = at::empty({q.size(0), q.size(1), 1}, q.options().dtype(sums));
  at::Tensor maximum;  // of each query's scores so far, [heads, queries, 1]
  at::Tensor total;    // of exp(score - maximum), [heads, queries, 1]
  at::Tensor sum;      // of exp(score - maximum) * value, [heads, queries, D]
  ForEachTile(
      BlocksFor(q), q.size(0), q.size(1), k.size(1), chunk,
      [&](const Tile&) { maximum = at::Tensor(); },
      [&](const Tile& t) {
        at::Tensor scores = Scores(Queries(q, t), Keys(k, t), sums).mul_(scale);
        const at::Tensor values = Keys(v, t);
        at::Tensor highest = scores.amax(2, /*keepdim=*/true);
        if (maximum.defined()) highest = at::maximum(highest, maximum);
        scores.sub_(highest).exp_();
        const at::Tensor weighted = at::bmm(scores.to(v.scalar_type()), values).to(sums);
        if (maximum.defined()) {
          const at::Tensor shrink = maximum.sub_(highest).exp_();
          total.mul_(shrink).add_(scores.sum(2, true));
          sum.mul_(shrink).add_(weighted);
        } else {
          total = scores.sum(2, true);
          sum = weighted;
        }
        maximum = highest;
      },
      [&](const Tile& t) {
        Queries(result.out, t).copy_(sum.div_(total));
        Queries(result.log_sum_exp, t).copy_(maximum.add(total.log_()));
      });
  return result;
}

variable_list AttentionBackward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& out, const at::Tensor& log_sum_exp,
                                const at::Tensor& grad, int64_t chunk) {
  const auto sums = SumType(q);
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  at::Tensor dq = at::empty_like(q);
  at::Tensor dk = at::zeros_like(k, k.options().dtype(sums));
  at::Tensor dv = at::zeros_like(v, v.options().dtype(sums));
  at::Tensor dq_rows;  // of the queries at hand
  at::Tensor delta;    // sum over D of grad * out: what the softmax's normalisation takes back
  ForEachTile(
      BlocksFor(q), q.size(0), q.size(1), k.size(1), chunk,
      [&](const Tile& t) {
        delta = Queries(grad, t).to(sums).mul(Queries(out, t)).sum(2, true);
        dq_rows = at::Tensor();
      },
      [&](const Tile& t) {
        const at::Tensor queries = Queries(q, t);
        const at::Tensor keys = Keys(k, t);
        const at::Tensor rows = Queries(grad, t);
        const at::Tensor weights =
            Scores(queries, keys, sums).mul_(scale).sub_(Queries(log_sum_exp, t)).exp_();
        Keys(dv, t).add_(at::bmm(weights.to(v.scalar_type()).transpose(1, 2), rows));
        at::Tensor ds = Scores(rows, Keys(v, t), sums).sub_(delta).mul_(weights).mul_(scale);
        ds = ds.to(q.scalar_type());
        Keys(dk, t).add_(at::bmm(ds.transpose(1, 2), queries));
        const at::Tensor part = at::bmm(ds, keys).to(sums);
        dq_rows = dq_rows.defined() ? dq_rows.add_(part) : part;
      },
      [&](const Tile& t) { Queries(dq, t).copy_(dq_rows); });
  return {dq, dk.to(k.scalar_type()), dv.to(v.scalar_type())};
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, int64_t chunk) {
    Forwarded result = AttentionForward(q, k, v, chunk);
    context->save_for_backward({q, k, v, result.out, result.log_sum_exp});
    context->saved_data["chunk"] = chunk;
    return result.out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    variable_list result = AttentionBackward(saved[0], saved[1], saved[2], saved[3], saved[4],
                                             grads[0].to(saved[0].scalar_type()),
                                             context->saved_data["chunk"].toInt());
    result.emplace_back();  // `chunk` has no gradient
    return result;
  }
};

}  // namespace

at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t chunk) {
  return AttentionFunction::apply(q, k, v, chunk);
}

at::Tensor AttentionReference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  return at::bmm(at::softmax(at::bmm(q, k.transpose(1, 2)) * scale, 2), v);
}

}  // namespace kinefit
