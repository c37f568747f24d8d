#include "model/prototypes.h"

#include <cmath>

#include "model/loss.h"
#include "ops/layer_scope.h"

namespace kinefit {
namespace {

// As published.
constexpr double kMomentum = 0.9;
constexpr double kAlpha = 0.125;
constexpr double kTemperature = 0.125;
constexpr double kTiny = 1e-12;

// Rows (dim 1) or columns (dim 0) at unit length.
at::Tensor Unit(const at::Tensor& x, int64_t dim) {
  return x / ((x * x).sum(std::vector<int64_t>{dim}, /*keepdim=*/true).sqrt() + kTiny);
}

// The length's gradient at zero is not a number, and a class without samples has only zeros.
at::Tensor UnitOrZero(const at::Tensor& sums, const at::Tensor& has_any) {
  const at::Tensor safe = sums + (1 - has_any).unsqueeze(0);
  return Unit(safe, 0);
}

at::Tensor OneHot(const at::Tensor& labels, const at::Tensor& like) {
  return at::zeros(like.sizes(), like.options().requires_grad(false))
      .scatter_(1, labels.unsqueeze(1), 1);
}

at::Tensor Any(const at::Tensor& mask) {
  return mask.sum(std::vector<int64_t>{0}).gt(0).to(mask.scalar_type());
}

// What a batch's samples [N, classes] are, and their features.
struct Calibration {
  at::Tensor embedded;    // [N, width]
  at::Tensor unit;        // the same at unit length
  at::Tensor prototypes;  // [width, classes] at unit length
  at::Tensor map;         // [N, classes]

  // Scores with which the samples of `mask` push (sign -1) or pull (1): [N, classes].
  at::Tensor Scores(const at::Tensor& mask, double sign) const {
    const at::Tensor has = Any(mask);
    const at::Tensor centres = UnitOrZero(embedded.t().mm(mask), has);
    const at::Tensor ambiguous = (unit.mm(centres) * sign - 1) * map * has.unsqueeze(0);
    return (unit.mm(prototypes) + ambiguous) / kTemperature;
  }
};

}  // namespace

Hierarchy::Hierarchy(const std::vector<std::vector<int64_t>>& groups, int64_t classes,
                     const at::Device& device)
    : groups_(static_cast<int64_t>(groups.size())) {
  at::Tensor of = at::zeros({classes}, at::kLong);
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const int64_t label : groups[g]) of.data_ptr<int64_t>()[label] = static_cast<int64_t>(g);
  }
  group_of_ = device.is_meta() ? at::empty({classes}, of.options().device(device)) : of.to(device);
}

at::Tensor Hierarchy::TreeLoss(const at::Tensor& coarse, const at::Tensor& fine,
                               const at::Tensor& labels) const {
  const at::Tensor groups = at::sigmoid(coarse);
  const at::Tensor classes = at::sigmoid(fine);
  const at::Tensor states =
      at::cat({groups, classes + groups.index_select(1, group_of_)}, 1).to(at::kDouble);
  return at::nll_loss(at::log_softmax(states, 1), labels + groups_);
}

Prototypes::Prototypes(TensorMaker& maker, const std::string& name, int64_t channels, int64_t width,
                       int64_t classes, bool extra)
    : name_(name), width_(width), classes_(classes) {
  if (!extra) MakeExtra(maker);
  const double bound = 1 / std::sqrt(static_cast<double>(channels));
  weight_ = maker.Parameter(name + ".spatio_cl_net.cl_fc.weight", {width, channels},
                            Initial::kBounded, bound);
  bias_ = maker.Parameter(name + ".spatio_cl_net.cl_fc.bias", {width}, Initial::kBounded, bound);
}

void Prototypes::MakeExtra(TensorMaker& maker) {
  mean_ = maker.Buffer(name_ + ".spatio_cl_net.avg_f", {width_, classes_}, 0);
}

at::Tensor Prototypes::Similarity(const at::Tensor& x) const {
  const LayerScope scope(name_);
  return Unit(Embed(x), 1).mm(Unit(mean_, 0));
}

at::Tensor Prototypes::Moved(const at::Tensor& embedded, const at::Tensor& recognised) const {
  const at::Tensor has = Any(recognised).unsqueeze(0);
  const at::Tensor count = recognised.sum(std::vector<int64_t>{0}, /*keepdim=*/true);
  const at::Tensor of_batch = embedded.t().mm(recognised) / (count + kTiny);
  const at::Tensor keep = 1 - has * (1 - kMomentum);
  at::Tensor moved = mean_ * keep + of_batch * (1 - keep);
  at::Tensor stored = mean_;
  // Out of place: the product above keeps the old values for its gradient.
  const at::NoGradGuard no_grad;
  stored.copy_(moved.detach());
  return moved;
}

at::Tensor Prototypes::CoarseLoss(const at::Tensor& highest, const at::Tensor& logits,
                                  const at::Tensor& labels) const {
  const LayerScope scope(name_);
  const at::Tensor y = OneHot(labels, logits);
  const at::Tensor p = OneHot(logits.argmax(1), logits);
  const at::Tensor tp = y * p;
  Calibration c;
  c.embedded = Embed(highest);
  c.unit = Unit(c.embedded, 1);
  c.prototypes = Unit(Moved(c.embedded, tp), 0);
  c.map = (1 - at::softmax(logits, 1)) * y * kAlpha;
  return CrossEntropy(c.Scores(y - tp, 1), labels, 0) +
         CrossEntropy(c.Scores(p - tp, -1), labels, 0);
}

at::Tensor Prototypes::FineLoss(const at::Tensor& highest, const at::Tensor& logits,
                                const at::Tensor& labels, const at::Tensor& group_right) const {
  const LayerScope scope(name_);
  const at::Tensor y = OneHot(labels, logits);
  const at::Tensor p = OneHot(logits.argmax(1), logits);
  const at::Tensor right = group_right.unsqueeze(1);
  Calibration c;
  c.embedded = Embed(highest);
  c.unit = Unit(c.embedded, 1);
  const at::Tensor prototypes = Moved(c.embedded, y * p * right);
  c.prototypes = Unit(prototypes, 0);
  c.map = (1 - at::softmax(logits, 1)) * y * kAlpha;
  const at::Tensor loss = CrossEntropy(c.Scores(y * (1 - p) * right, 1), labels, 0) +
                          CrossEntropy(c.Scores(y * p * (1 - right), 1) * 0.1, labels, 0) +
                          CrossEntropy(c.Scores(y * (1 - p) * (1 - right), 1) * 0.5, labels, 0) +
                          CrossEntropy(c.Scores((1 - y) * p, -1), labels, 0);
  const at::Tensor unit = Unit(prototypes.detach(), 0);
  const at::Tensor cosines = unit.t().mm(unit);
  return loss + (cosines * cosines).sum().sqrt();
}

}  // namespace kinefit
