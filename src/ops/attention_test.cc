#include "ops/attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "libtorch/versions.h"

namespace kinefit {
namespace {

struct Inputs {
  at::Tensor q, k, v;
};

Inputs MakeInputs(int64_t batch, int64_t queries, int64_t keys, int64_t dim, at::ScalarType type) {
  at::manual_seed(7);
  const auto make = [&](int64_t tokens) {
    return at::randn({batch, tokens, dim}, at::kDouble).to(type).set_requires_grad(true);
  };
  return {make(queries), make(keys), make(keys)};
}

std::vector<at::Tensor> Gradients(const Inputs& in, const at::Tensor& out, const at::Tensor& grad) {
  for (const at::Tensor* x : {&in.q, &in.k, &in.v}) x->mutable_grad() = at::Tensor();
  out.backward(grad);
  return {in.q.grad().clone(), in.k.grad().clone(), in.v.grad().clone()};
}

double Largest(const at::Tensor& x) { return x.abs().max().item<double>(); }

// Differences to the reference, relative to its largest value: result, then each gradient.
std::vector<double> Differences(const Inputs& in, int64_t chunk) {
  const at::Tensor out = Attention(in.q, in.k, in.v, chunk);
  const at::Tensor expected = AttentionReference(in.q, in.k, in.v);
  const at::Tensor grad = at::randn_like(out);
  std::vector<double> differences = {Largest(out - expected) / Largest(expected)};
  const auto got = Gradients(in, out, grad);
  const auto want = Gradients(in, expected, grad);
  for (size_t i = 0; i < 3; ++i)
    differences.push_back(Largest(got[i] - want[i]) / Largest(want[i]));
  return differences;
}

TEST(AttentionTest, AgreesWithReferenceForAnyChunking) {
  for (const int64_t chunk : {1, 7, 64, 100000}) {
    for (const double d : Differences(MakeInputs(3, 37, 301, 16, at::kFloat), chunk)) {
      EXPECT_LT(d, 1e-5) << "chunk " << chunk;
    }
    for (const double d : Differences(MakeInputs(2, 301, 5, 8, at::kDouble), chunk)) {
      EXPECT_LT(d, 1e-12) << "chunk " << chunk;
    }
  }
}

TEST(AttentionTest, WorksOnTransposedViews) {
  at::manual_seed(3);
  const at::Tensor q = at::randn({2, 8, 40}).transpose(1, 2).set_requires_grad(true);
  const at::Tensor k = at::randn({2, 8, 30}).transpose(1, 2).set_requires_grad(true);
  const at::Tensor v = at::randn({2, 8, 30}).transpose(1, 2).set_requires_grad(true);
  for (const double d : Differences({q, k, v}, 16)) EXPECT_LT(d, 1e-5);
  EXPECT_EQ(Attention(q, k, v, 16).strides(), q.strides());
}

TEST(AttentionTest, LargeScoresDoNotOverflow) {
  Inputs in = MakeInputs(1, 20, 600, 4, at::kFloat);
  const at::NoGradGuard no_grad;
  in.q.mul_(1000);
  const at::Tensor out = Attention(in.q, in.k, in.v, 8);
  EXPECT_TRUE(out.isfinite().all().item<bool>());
  EXPECT_LT(Largest(out - AttentionReference(in.q, in.k, in.v)), 1e-4);
}

TEST(AttentionTest, GradientsAgreeWithFiniteDifferences) {
  const Inputs in = MakeInputs(2, 5, 300, 3, at::kDouble);
  const at::Tensor grad = at::randn({2, 5, 3}, at::kDouble);
  const auto gradients = Gradients(in, Attention(in.q, in.k, in.v, 2), grad);
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> tensors = {in.q, in.k, in.v};
  for (size_t t = 0; t < 3; ++t) {
    const at::Tensor flat = tensors[t].view(-1);
    for (int64_t i = 0; i < flat.numel(); i += flat.numel() / 11) {
      constexpr double kStep = 1e-5;
      const auto value_at = [&](double offset) {
        const at::Tensor kept = flat[i].clone();
        flat[i].add_(offset);
        const double value = (Attention(in.q, in.k, in.v, 2) * grad).sum().item<double>();
        flat[i].copy_(kept);
        return value;
      };
      const double numeric = (value_at(kStep) - value_at(-kStep)) / (2 * kStep);
      EXPECT_NEAR(gradients[t].view(-1)[i].item<double>(), numeric, 1e-8) << t << " " << i;
    }
  }
}

TEST(AttentionTest, Bfloat16AccumulatesInFloat) {
  const Inputs in = MakeInputs(2, 50, 2000, 16, at::kBFloat16);
  const at::Tensor out = Attention(in.q, in.k, in.v, 32);
  ASSERT_EQ(out.scalar_type(), at::kBFloat16);
  const at::Tensor expected =
      AttentionReference(in.q.to(at::kFloat), in.k.to(at::kFloat), in.v.to(at::kFloat));
  EXPECT_LT(Largest(out.to(at::kFloat) - expected), 0.02 * Largest(expected));
  out.sum().backward();
  EXPECT_EQ(in.k.grad().scalar_type(), at::kBFloat16);
}

// Counts what is allocated on the meta device.
class MetaCounter final : public TensorAllocator {
 public:
  static inline int64_t live = 0;
  static inline int64_t peak = 0;
  static inline int64_t largest = 0;

  c10::DeleterFnPtr raw_deleter() const override { return &Release; }

 private:
  c10::DataPtr Allocate(size_t bytes) const override {
    const auto size = static_cast<int64_t>(bytes);
    live += size;
    peak = std::max(peak, live);
    largest = std::max(largest, size);
    return {nullptr, new int64_t(size), &Release, at::Device(at::kMeta)};
  }
  static void Release(void* context) {
    const auto* size = static_cast<int64_t*>(context);
    live -= *size;
    delete size;
  }
};

struct Usage {
  int64_t peak, largest;
};

// Peak of forward and backward over `tokens` on both sides, beyond the inputs.
Usage MeasureOnMeta(int64_t tokens) {
  const auto options = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);
  const at::Tensor q = at::empty({4, tokens, 32}, options).set_requires_grad(true);
  const at::Tensor k = at::empty({4, tokens, 32}, options).set_requires_grad(true);
  const at::Tensor v = at::empty({4, tokens, 32}, options).set_requires_grad(true);
  const int64_t before = MetaCounter::live;
  MetaCounter::peak = before;
  MetaCounter::largest = 0;
  Attention(q, k, v, 512).sum().backward();
  return {MetaCounter::peak - before, MetaCounter::largest};
}

TEST(AttentionTest, MemoryIsLinearInTokens) {
  static MetaCounter counter;
  c10::Allocator* before = c10::GetAllocator(c10::DeviceType::Meta);
  c10::SetAllocator(c10::DeviceType::Meta, &counter, 100);
  const Usage small = MeasureOnMeta(4096);
  const Usage large = MeasureOnMeta(16384);
  c10::SetAllocator(c10::DeviceType::Meta, before, 100);
  const int64_t tokens_bytes = int64_t{4} * 16384 * 32 * 4;
  ASSERT_GE(large.largest, tokens_bytes);  // the counter did count
  EXPECT_LE(large.largest, tokens_bytes);  // no tensor beyond [B, tokens, D]
  EXPECT_LT(large.peak, 5 * small.peak);   // four times the tokens
  EXPECT_LT(large.peak, int64_t{16384} * 16384 * 4 / 8);
}

}  // namespace
}  // namespace kinefit
