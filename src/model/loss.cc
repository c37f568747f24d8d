#include "model/loss.h"

#include "files/error.h"

namespace kinefit {
namespace {

double WeightOf(const std::string& stream, const HeadConfig& config) {
  if (stream == "rgb") return config.rgb_loss_weight;
  if (stream == "pose") return config.pose_loss_weight;
  if (stream == "fused") return config.fused_loss_weight;
  throw Error("There is no loss weight for the stream \"" + stream + "\"");
}

}  // namespace

at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& labels, double smoothing) {
  // Reduced precision is not enough for a logarithm of a sum of exponentials.
  const bool reduced = logits.scalar_type() == at::kHalf || logits.scalar_type() == at::kBFloat16;
  const at::Tensor scores = at::log_softmax(reduced ? logits.to(at::kFloat) : logits, 1);
  at::Tensor loss = at::nll_loss(scores, labels);
  if (smoothing > 0) {
    loss = loss * (1 - smoothing) - scores.mean(1).mean() * smoothing;
  }
  return loss;
}

Loss ComputeLoss(const NetworkOutput& output, const at::Tensor& labels, const HeadConfig& config) {
  Loss loss;
  for (const auto& [stream, logits] : output.logits) {
    const at::Tensor part =
        CrossEntropy(logits, labels, config.label_smoothing) * WeightOf(stream, config);
    loss.parts.emplace_back(stream, part);
    loss.total = loss.total.defined() ? loss.total + part : part;
  }
  return loss;
}

}  // namespace kinefit
