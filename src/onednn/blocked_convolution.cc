#include "onednn/blocked_convolution.h"

#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <unordered_map>

namespace kinefit {
namespace {

using dnnl::memory;
using Sizes = std::vector<int64_t>;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

constexpr auto kFloat32 = memory::data_type::f32;

memory::desc Dense(const Sizes& sizes) { return {sizes, kFloat32, memory::format_tag::abcde}; }
memory::desc Any(const Sizes& sizes) { return {sizes, kFloat32, memory::format_tag::any}; }
memory::desc Blocked(const Sizes& sizes) { return {sizes, kFloat32, memory::format_tag::aBcde16b}; }

void Reorder(const memory::desc& from, void* x, const memory::desc& to, void* y) {
  dnnl::stream stream(Engine());
  memory source(from, Engine(), x);
  memory target(to, Engine(), y);
  dnnl::reorder(source, target).execute(stream, source, target);
  stream.wait();
}

Sizes KeyOf(ConvolutionPass pass, const BlockedConvolutionShape& s) {
  Sizes key = {static_cast<int64_t>(pass), s.threads};
  for (const Sizes* part : {&s.input, &s.weight, &s.stride, &s.padding}) {
    key.insert(key.end(), part->begin(), part->end());
  }
  return key;
}

}  // namespace

struct BlockedConvolution::Primitive {
  dnnl::primitive run;
  memory::desc input, output;
  memory::desc weights, usual_weights;
  int64_t scratch_bytes = 0;
  int input_argument = 0, weights_argument = 0, output_argument = 0;

  Primitive(ConvolutionPass pass, const BlockedConvolutionShape& s)
      : input(Blocked(s.input)), output(Blocked(s.output)), usual_weights(Dense(s.weight)) {
    const auto direct = dnnl::algorithm::convolution_direct;
    const memory::desc any = Any(s.weight);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // so that it is counted
    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, direct, input, any, output, s.stride, s.padding,
         s.padding},
        attributes, Engine());
    if (pass == ConvolutionPass::kForward) {
      Finish(forward, forward.weights_desc());
      input_argument = DNNL_ARG_SRC;
      weights_argument = DNNL_ARG_WEIGHTS;
      output_argument = DNNL_ARG_DST;
    } else if (pass == ConvolutionPass::kBackwardInput) {
      const dnnl::convolution_backward_data::primitive_desc pd(
          {direct, input, any, output, s.stride, s.padding, s.padding}, attributes, Engine(),
          forward);
      Finish(pd, pd.weights_desc());
      input_argument = DNNL_ARG_DIFF_SRC;
      weights_argument = DNNL_ARG_WEIGHTS;
      output_argument = DNNL_ARG_DIFF_DST;
    } else {
      const dnnl::convolution_backward_weights::primitive_desc pd(
          {direct, input, any, output, s.stride, s.padding, s.padding}, attributes, Engine(),
          forward);
      Finish(pd, pd.diff_weights_desc());
      input_argument = DNNL_ARG_SRC;
      weights_argument = DNNL_ARG_DIFF_WEIGHTS;
      output_argument = DNNL_ARG_DIFF_DST;
    }
  }

 private:
  template <typename Description>
  void Finish(const Description& pd, const memory::desc& layout) {
    run = dnnl::primitive(pd);
    weights = layout;
    scratch_bytes = static_cast<int64_t>(pd.scratchpad_desc().get_size());
  }
};

BlockedConvolution::BlockedConvolution(ConvolutionPass pass, const BlockedConvolutionShape& shape)
    : primitive_(std::make_unique<const Primitive>(pass, shape)) {}
BlockedConvolution::~BlockedConvolution() = default;

int64_t BlockedConvolution::scratch_bytes() const { return primitive_->scratch_bytes; }

int64_t BlockedConvolution::weight_bytes() const {
  const Primitive& p = *primitive_;
  return p.weights == p.usual_weights ? 0 : static_cast<int64_t>(p.weights.get_size());
}

void BlockedConvolution::CopyWeightIn(float* usual, void* own) const {
  Reorder(primitive_->usual_weights, usual, primitive_->weights, own);
}

void BlockedConvolution::CopyWeightOut(void* own, float* usual) const {
  Reorder(primitive_->weights, own, primitive_->usual_weights, usual);
}

void BlockedConvolution::Run(float* input, void* weight, float* output, void* scratch) const {
  const Primitive& p = *primitive_;
  std::unordered_map<int, memory> arguments = {
      {p.input_argument, memory(p.input, Engine(), input)},
      {p.weights_argument, memory(p.weights, Engine(), weight)},
      {p.output_argument, memory(p.output, Engine(), output)}};
  if (p.scratch_bytes > 0) {
    const memory::desc bytes({p.scratch_bytes}, memory::data_type::u8, memory::format_tag::a);
    arguments[DNNL_ARG_SCRATCHPAD] = memory(bytes, Engine(), scratch);
  }
  dnnl::stream stream(Engine());
  p.run.execute(stream, arguments);
  stream.wait();
}

std::shared_ptr<const BlockedConvolution> BlockedConvolutionFor(
    ConvolutionPass pass, const BlockedConvolutionShape& shape) {
  static std::mutex mutex;
  static std::map<Sizes, std::shared_ptr<const BlockedConvolution>> kept;
  constexpr size_t kMost = 2048;  // a planner looks at many batch sizes
  const Sizes key = KeyOf(pass, shape);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = kept.find(key);
  if (found != kept.end()) return found->second;
  if (kept.size() >= kMost) kept.clear();
  auto made = std::make_shared<const BlockedConvolution>(pass, shape);
  kept[key] = made;
  return made;
}

int64_t BlockedChannels() {
  static const int64_t channels = [] {
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
    return int64_t{(isa & wanted) == wanted ? 16 : 0};
  }();
  return channels;
}

void CopyToBlocked(const std::vector<int64_t>& sizes, float* from, float* to) {
  Reorder(Dense(sizes), from, Blocked(sizes), to);
}

void CopyFromBlocked(const std::vector<int64_t>& sizes, float* from, float* to) {
  Reorder(Blocked(sizes), from, Dense(sizes), to);
}

}  // namespace kinefit
