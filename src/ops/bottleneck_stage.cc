#include "ops/bottleneck_stage.h"

#include <memory>
#include <utility>

#include "ops/blocked.h"
#include "ops/gradient_node.h"
#include "ops/layer_scope.h"

namespace kinefit {
namespace {

// What is there of one block: layers, statistics, and as many of its tensors as are kept.
struct Block {
  BottleneckLayers layers;
  BatchNormStatistics norm1, norm2, norm3, norm_shortcut;
  at::Tensor x;               // the block's input; of the first block the stage's
  at::Tensor y1, y2, y3, ys;  // outputs of the convolutions
  at::Tensor a1, a2;          // what the second and the third read, where that is kept

  Normalisable Norm1() const { return {y1, &layers.conv1.bn, &norm1}; }
  Normalisable Norm2() const { return {y2, &layers.conv2.bn, &norm2}; }
  Normalisable Norm3() const { return {y3, &layers.conv3.bn, &norm3}; }
  // What is added to the third convolution, given the block's input.
  Normalisable Shortcut(const at::Tensor& input) const {
    if (!layers.shortcut) return {input, nullptr, nullptr};
    return {ys, &layers.shortcut->bn, &norm_shortcut};
  }
  void DropConvolutions() { y1 = y2 = y3 = ys = a1 = a2 = at::Tensor(); }
};

// Where a range of blocks is cut in two when their inputs are not kept.
size_t MiddleOf(size_t begin, size_t end) { return begin + (end - begin + 1) / 2; }

// A gradient, perhaps still as two parts that whoever reads it adds up on the way.
struct TwoPartGradient {
  at::Tensor grad;
  at::Tensor add = {};
};

class Stage {
 public:
  // With `blocked` all that is between the stage's input and output has oneDNN's layout.
  Stage(const std::vector<BottleneckLayers>& blocks, const BatchNormMode& mode, Keep keep,
        bool keep_all, bool blocked)
      : mode_(mode), keep_(keep), keep_all_(keep_all), blocked_(blocked), blocks_(blocks.size()) {
    for (size_t i = 0; i < blocks.size(); ++i) blocks_[i].layers = blocks[i];
  }

  // With `keeping` false nothing is kept: there will be no backward pass.
  at::Tensor Forward(const Feature& input, bool keeping);
  Tensors Backward(at::Tensor grad, bool want_input_grad);
  // The stage's output once more. Only with Keep::kConvolutions.
  at::Tensor Output() const;
  void Release();

 private:
  void TakeStatistics(const at::Tensor& y, const ConvNorm& layer, BatchNormStatistics* statistics);
  at::Tensor Input() const {
    const at::Tensor x = input_.Get();
    return blocked_ && !IsBlocked(x) ? ToBlocked(x) : x;
  }
  at::Tensor RunBlock(Block& block, const at::Tensor& x, bool keep_convolutions);
  void RebuildInputs();
  static void RunConvolutions(Block& block);
  // Backward of blocks [begin, end), of which the first has its input; the others get theirs by
  // halves (kStageBlocks) if they do not have it.
  void BackwardRange(size_t begin, size_t end, bool want_input_grad, TwoPartGradient* grad,
                     std::vector<std::vector<Tensors>>* gradients);
  TwoPartGradient BlockBackward(Block& block, TwoPartGradient grad, bool want_input_grad,
                                std::vector<Tensors>* gradients);

  BatchNormMode mode_;
  Keep keep_;
  bool keep_all_;
  bool blocked_;
  std::vector<Block> blocks_;
  KeptFeature input_;
  bool released_ = false;
};

// The statistics of the first run serve all later ones.
void Stage::TakeStatistics(const at::Tensor& y, const ConvNorm& layer,
                           BatchNormStatistics* statistics) {
  if (!statistics->mean.defined()) *statistics = NormStatistics(y, layer, mode_);
}

at::Tensor Stage::RunBlock(Block& block, const at::Tensor& x, bool keep_convolutions) {
  const auto run = [&](const ConvNorm& layer, const at::Tensor& input,
                       BatchNormStatistics* statistics) {
    const LayerScope scope(layer.name);
    at::Tensor y = Convolve(input, layer);
    TakeStatistics(y, layer, statistics);
    return y;
  };
  block.y1 = run(block.layers.conv1, x, &block.norm1);
  at::Tensor activated = Normalised(block.Norm1(), /*relu=*/true);
  if (!keep_convolutions && keep_ != Keep::kSpatial) block.y1 = at::Tensor();
  block.y2 = run(block.layers.conv2, activated, &block.norm2);
  if (keep_convolutions && keep_all_) block.a1 = activated;
  activated = Normalised(block.Norm2(), /*relu=*/true);
  if (!keep_convolutions && keep_ != Keep::kSpatial) block.y2 = at::Tensor();
  block.y3 = run(block.layers.conv3, activated, &block.norm3);
  if (keep_convolutions && keep_all_) block.a2 = activated;
  activated = at::Tensor();
  if (block.layers.shortcut) {
    block.ys = run(*block.layers.shortcut, x, &block.norm_shortcut);
  }
  const LayerScope scope(block.layers.conv3.name);
  if (keep_convolutions) return NormalisedSum(block.Norm3(), block.Shortcut(x), {});
  at::Tensor sum = NormalisedSum(block.Norm3(), block.Shortcut(x), block.y3);
  block.y3 = block.ys = at::Tensor();
  return sum;
}

at::Tensor Stage::Forward(const Feature& input, bool keeping) {
  at::Tensor x = blocked_ ? ToBlocked(input.value) : input.value;
  if (keeping) {
    input_ = input.rebuild || input.kept_anyway ? KeptFeature(input) : KeptFeature({x, nullptr});
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = blocks_[i];
    if (keeping && (keep_ == Keep::kBlocks || keep_all_) && i > 0) block.x = x;
    x = RunBlock(block, x, keeping && keep_ == Keep::kConvolutions);
    if (!keeping) block.DropConvolutions();
  }
  return blocked_ ? FromBlocked(x) : x;
}

at::Tensor Stage::Output() const {
  TORCH_INTERNAL_ASSERT(!released_, "a stage's output was asked for after its backward pass");
  at::Tensor x;
  for (const Block& block : blocks_) {
    const LayerScope scope(block.layers.conv3.name);
    if (!x.defined() && !block.layers.shortcut) x = Input();
    x = NormalisedSum(block.Norm3(), block.Shortcut(x), {});
  }
  return blocked_ ? FromBlocked(x) : x;
}

// Gives blocks their inputs again as far as they are not kept, and with kStage their convolutions;
// with kStageBlocks only the first.
void Stage::RebuildInputs() {
  blocks_[0].x = Input();
  if (keep_ == Keep::kBlocks || keep_ == Keep::kStageBlocks) return;
  for (size_t i = 0; i + 1 < blocks_.size(); ++i) {
    Block& block = blocks_[i];
    at::Tensor& next = blocks_[i + 1].x;
    if (next.defined()) continue;
    const LayerScope scope(block.layers.conv3.name);
    switch (keep_) {
      case Keep::kConvolutions:
        next = NormalisedSum(block.Norm3(), block.Shortcut(block.x), {});
        break;
      case Keep::kSpatial:
        RunConvolutions(block);
        next = NormalisedSum(block.Norm3(), block.Shortcut(block.x), block.y3);
        block.y3 = block.ys = at::Tensor();
        break;
      default:
        next = RunBlock(block, block.x, /*keep_convolutions=*/true);
    }
  }
}

// Computes those outputs of a block's convolutions that are not there.
void Stage::RunConvolutions(Block& block) {
  const auto run = [](const ConvNorm& layer, const at::Tensor& input, at::Tensor* y) {
    const LayerScope scope(layer.name);
    if (!y->defined()) *y = Convolve(input, layer);
  };
  run(block.layers.conv1, block.x, &block.y1);
  if (!block.y2.defined()) {
    run(block.layers.conv2, Normalised(block.Norm1(), /*relu=*/true), &block.y2);
  }
  if (!block.y3.defined()) {
    run(block.layers.conv3, Normalised(block.Norm2(), /*relu=*/true), &block.y3);
  }
  if (block.layers.shortcut) run(*block.layers.shortcut, block.x, &block.ys);
}

// Gradients of one convolution, its norm and ReLU; `grad` and `y` (the convolution's output, whose
// memory takes the gradient) are given up on the way. Appends those of its parameters. The input's
// is added to `add_to` if that is defined.
at::Tensor LayerBackward(at::Tensor grad, at::Tensor& y, const ConvNorm& layer,
                         const BatchNormStatistics& statistics, bool relu,
                         const std::function<at::Tensor()>& input, bool want_input_grad,
                         Tensors* gradients, at::Tensor add_to = {}, const TermSums& sums = {},
                         int term = 0) {
  const LayerScope scope(layer.name);
  BatchNormGradients norm =
      BatchNormBackward(grad, {y, &layer.bn, &statistics}, relu, y, sums, term);
  grad = at::Tensor();
  y = at::Tensor();
  const ConvolutionGradients conv =
      ConvolveBackward(norm.input, input(), layer, want_input_grad, std::move(add_to));
  gradients->insert(gradients->end(), {conv.weight, norm.gamma, norm.beta});
  return conv.input;
}

TwoPartGradient Stage::BlockBackward(Block& block, TwoPartGradient parts, bool want_input_grad,
                                     std::vector<Tensors>* gradients) {
  const BottleneckLayers& layers = block.layers;
  RunConvolutions(block);
  at::Tensor grad = std::move(parts.grad);
  const TermSums sums = MaskBySum(grad, parts.add, block.Norm3(), block.Shortcut(block.x));
  parts.add = at::Tensor();
  const auto taken = [](at::Tensor& kept, const Normalisable& from) {
    return kept.defined() ? std::move(kept) : Normalised(from, /*relu=*/true);
  };
  std::vector<Tensors> own(4);  // conv1, conv2, conv3, shortcut
  at::Tensor branch = LayerBackward(
      grad, block.y3, layers.conv3, block.norm3, /*relu=*/false,
      [&] { return taken(block.a2, block.Norm2()); }, true, &own[2], {}, sums, /*term=*/0);
  branch = LayerBackward(
      std::move(branch), block.y2, layers.conv2, block.norm2, /*relu=*/true,
      [&] { return taken(block.a1, block.Norm1()); }, true, &own[1]);
  branch = LayerBackward(
      std::move(branch), block.y1, layers.conv1, block.norm1, /*relu=*/true,
      [&] { return block.x; }, want_input_grad, &own[0]);
  if (layers.shortcut) {
    grad = LayerBackward(
        std::move(grad), block.ys, *layers.shortcut, block.norm_shortcut, /*relu=*/false,
        [&] { return block.x; }, want_input_grad, &own[3], branch, sums, /*term=*/1);
    branch = at::Tensor();
  }
  for (Tensors& layer : own) {
    if (!layer.empty()) gradients->push_back(std::move(layer));
  }
  if (!want_input_grad) return {};
  // On a GPU the next block's first pass adds them up.
  if (branch.defined() && !RunsOnGpu(grad)) {
    grad.add_(branch);
    branch = at::Tensor();
  }
  return {std::move(grad), std::move(branch)};
}

void Stage::BackwardRange(size_t begin, size_t end, bool want_input_grad, TwoPartGradient* grad,
                          std::vector<std::vector<Tensors>>* gradients) {
  if (end - begin == 1) {
    Block& block = blocks_[begin];
    *grad =
        BlockBackward(block, std::move(*grad), begin > 0 || want_input_grad, &(*gradients)[begin]);
    block.DropConvolutions();
    block.x = at::Tensor();
    return;
  }
  const size_t middle = MiddleOf(begin, end);
  if (!blocks_[middle].x.defined()) {
    at::Tensor x = blocks_[begin].x;
    for (size_t i = begin; i < middle; ++i) x = RunBlock(blocks_[i], x, false);
    blocks_[middle].x = std::move(x);
  }
  BackwardRange(middle, end, want_input_grad, grad, gradients);
  BackwardRange(begin, middle, want_input_grad, grad, gradients);
}

Tensors Stage::Backward(at::Tensor grad, bool want_input_grad) {
  RebuildInputs();
  if (blocked_) grad = ToBlocked(grad);
  std::vector<std::vector<Tensors>> of_blocks(blocks_.size());
  TwoPartGradient parts = {std::move(grad)};
  BackwardRange(0, blocks_.size(), want_input_grad, &parts, &of_blocks);
  if (parts.add.defined()) parts.grad.add_(parts.add);
  Tensors result = {blocked_ && parts.grad.defined() ? FromBlocked(parts.grad) : parts.grad};
  parts = {};
  for (const auto& layers : of_blocks) {
    for (const Tensors& layer : layers) result.insert(result.end(), layer.begin(), layer.end());
  }
  return result;
}

void Stage::Release() {
  released_ = true;
  input_ = KeptFeature();
  for (Block& block : blocks_) {
    block.DropConvolutions();
    block.x = at::Tensor();
  }
}

class StageNode : public GradientNode {
 public:
  explicit StageNode(std::shared_ptr<Stage> stage) : stage_(std::move(stage)) {}

 private:
  Tensors Backward(at::Tensor grad) override {
    return stage_->Backward(std::move(grad), task_should_compute_output(0));
  }
  void Release() override { stage_->Release(); }

  std::shared_ptr<Stage> stage_;
};

void AddParameters(const ConvNorm& layer, Tensors* inputs) {
  inputs->insert(inputs->end(), {layer.weight, layer.bn.gamma, layer.bn.beta});
}

std::vector<const ConvNorm*> LayersOf(const std::vector<BottleneckLayers>& blocks) {
  std::vector<const ConvNorm*> layers;
  for (const BottleneckLayers& block : blocks) {
    layers.insert(layers.end(), {&block.conv1, &block.conv2, &block.conv3});
    if (block.shortcut) layers.push_back(&*block.shortcut);
  }
  return layers;
}

void CountRuns(size_t begin, size_t end, std::vector<int64_t>* runs) {
  if (end - begin == 1) {
    ++(*runs)[begin];
    return;
  }
  const size_t middle = MiddleOf(begin, end);
  for (size_t i = begin; i < middle; ++i) ++(*runs)[i];
  CountRuns(middle, end, runs);
  CountRuns(begin, middle, runs);
}

}  // namespace

std::vector<int64_t> RunsAgain(size_t blocks) {
  std::vector<int64_t> runs(blocks);
  if (blocks > 0) CountRuns(0, blocks, &runs);
  return runs;
}

Feature BottleneckStage(const Feature& x, const std::vector<BottleneckLayers>& blocks,
                        const BatchNormMode& mode, Keep keep, bool keep_all) {
  Tensors inputs = {x.value};
  for (const BottleneckLayers& block : blocks) {
    AddParameters(block.conv1, &inputs);
    AddParameters(block.conv2, &inputs);
    AddParameters(block.conv3, &inputs);
    if (block.shortcut) AddParameters(*block.shortcut, &inputs);
  }
  const bool differentiated = NeedsGradient(inputs);
  auto stage =
      std::make_shared<Stage>(blocks, mode, keep, keep_all, CanBlock(x.value, LayersOf(blocks)));
  at::Tensor value;
  {
    const at::NoGradGuard no_grad;
    value = stage->Forward(x, differentiated);
  }
  if (!differentiated) return {value, nullptr};
  Attach(new StageNode(stage), inputs, value);
  if (keep != Keep::kConvolutions || keep_all) return {value, nullptr};
  return {value, [stage] {
            const at::NoGradGuard no_grad;
            return stage->Output();
          }};
}

}  // namespace kinefit
