#include "memory/meta_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/ConvUtils.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <string>
#include <tuple>

#include "libtorch/versions.h"
#include "memory/trace.h"
#include "onednn/convolution_scratch.h"
#include "onednn/scratch_of_onednn3.h"
#include "ops/batch_norm.h"

namespace kinefit {
namespace {

using at::IntArrayRef;
using at::Tensor;
using at::native::ConvBackend;
using OptionalTensor = Optional<Tensor>;
using TensorTriple = std::tuple<Tensor, Tensor, Tensor>;

KernelModel kernel_model = KernelModel::kCpu;
// What is allocated while it lives is a kernel's own workspace.
class WorkspaceScope {
 public:
  WorkspaceScope() : trace_(RecordingTrace()) {
    if (trace_ == nullptr) return;
    outer_ = trace_->role();
    if (outer_ == MemoryRole::kActivations) trace_->SetRole(MemoryRole::kWorkspace);
  }
  ~WorkspaceScope() {
    if (trace_ != nullptr) trace_->SetRole(outer_);
  }
  WorkspaceScope(const WorkspaceScope&) = delete;
  WorkspaceScope& operator=(const WorkspaceScope&) = delete;

 private:
  MemoryTrace* trace_;
  MemoryRole outer_ = MemoryRole::kActivations;
};

// A meta tensor of so many bytes; undefined for none.
Tensor Block(int64_t bytes) {
  if (bytes == 0) return {};
  const WorkspaceScope workspace;
  return at::empty({bytes}, at::TensorOptions().device(at::kMeta).dtype(at::kByte));
}

// ---- Convolution --------------------------------------------------------------------------------

struct Convolution {
  IntArrayRef stride, padding, dilation;
  bool transposed;
  IntArrayRef output_padding;
  int64_t groups;
};

// Which kernel LibTorch would pick on the CPU: its own choice, asked with CPU tensors that have
// the shapes but no memory behind them (it never looks).
ConvBackend CpuBackend(const Tensor& input, const Tensor& weight, const Convolution& conv) {
  static float nothing = 0;
  const auto stand_in = [](const Tensor& t) {
    return at::from_blob(&nothing, t.sizes(), t.strides(), at::dtype(t.dtype()));
  };
  return SelectConvolution(stand_in(input), stand_in(weight), conv.stride, conv.padding,
                           conv.dilation, conv.transposed, conv.output_padding, conv.groups);
}

std::vector<int64_t> OutputSizes(const Tensor& input, const Tensor& weight,
                                 const Convolution& conv) {
  if (conv.transposed) {
    return at::native::conv_input_size(input.sizes(), weight.sizes(), conv.padding,
                                       conv.output_padding, conv.stride, conv.dilation,
                                       conv.groups);
  }
  return at::native::conv_output_size(input.sizes(), weight.sizes(), conv.padding, conv.stride,
                                      conv.dilation);
}

ConvolutionShape OneDnnShape(const Tensor& input, const Tensor& weight, IntArrayRef output,
                             const Convolution& conv, bool bias) {
  TORCH_CHECK(conv.groups == 1, "rehearsal: grouped convolutions are not modelled");
  return {input.scalar_type() == at::kBFloat16,
          input.sizes().vec(),
          weight.sizes().vec(),
          output.vec(),
          conv.stride.vec(),
          conv.padding.vec(),
          conv.dilation.vec(),
          bias,
          at::get_num_threads()};
}

// What LibTorch's oneDNN convolutions allocate, in their order: copies of the operands in blocked
// layout, the blocked result, scratch; then the dense result from the blocked one.
Tensor RunOneDnn(ConvolutionPass pass, const ConvolutionShape& shape, IntArrayRef sizes,
                 const at::TensorOptions& options, bool transposed = false) {
  const ConvolutionScratch scratch = kBringsOneDnn3 ? ScratchOfOneDnn3(pass, shape, transposed)
                                                    : QueryConvolutionScratch(pass, shape);
  Tensor result;
  {
    const Tensor scratchpad = Block(scratch.scratchpad);
    const Tensor first = Block(scratch.first_operand);
    const Tensor second = Block(scratch.second_operand);
    result = Block(scratch.result);
  }
  const Tensor dense = at::empty(sizes, options);
  return dense.as_strided(sizes, scratch.result_strides).contiguous();
}

// Rows of the unfolded input that LibTorch's own 3D convolution multiplies with; undefined where
// the input itself serves.
Tensor Slow3dColumns(const Tensor& input, const Tensor& weight, IntArrayRef output,
                     const Convolution& conv, bool always) {
  bool pointwise = conv.groups == 1;
  for (size_t i = 0; i < 3; ++i) {
    pointwise = pointwise && weight.size(i + 2) == 1 && conv.padding[i] == 0 && conv.stride[i] == 1;
  }
  if (pointwise && !always) return {};
  const int64_t rows = input.size(1) * weight.size(2) * weight.size(3) * weight.size(4);
  return at::empty({input.size(0), rows, output[2] * output[3] * output[4]}, input.options());
}

Tensor Slow3dForward(const Tensor& input, const Tensor& weight, IntArrayRef output,
                     const Convolution& conv) {
  const Tensor dense = input.contiguous();
  const Tensor columns = Slow3dColumns(dense, weight, output, conv, false);
  return at::empty(output, input.options());
}

TensorTriple Slow3dBackward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                            const Convolution& conv, std::array<bool, 3> mask) {
  Tensor grad_input, grad_weight, grad_bias;
  if (mask[0]) {
    const Tensor dense = grad_output.contiguous();
    grad_input = at::empty(input.sizes(), input.options());
    const Tensor columns = Slow3dColumns(input, weight, grad_output.sizes(), conv, true);
  }
  if (mask[2]) grad_bias = at::empty({weight.size(0)}, weight.options());
  if (mask[1]) {
    grad_weight = at::empty(weight.sizes(), weight.options());
    const Tensor dense = grad_output.contiguous();
    const Tensor dense_input = input.contiguous();
    const Tensor columns = Slow3dColumns(dense_input, weight, grad_output.sizes(), conv, false);
  }
  return {grad_input, grad_weight, grad_bias};
}

Tensor TransposedColumns(const Tensor& input, const Tensor& weight) {
  const int64_t rows = weight.numel() / weight.size(0);
  return at::empty({rows, input.size(2) * input.size(3) * input.size(4)}, input.options());
}

Tensor Transposed3dForward(const Tensor& input, const Tensor& weight, const Tensor& bias,
                           IntArrayRef output) {
  const Tensor dense = input.contiguous();
  Tensor result = at::empty_like(dense);
  // LibTorch resizes a tensor of the input's size: it grows by moving and never shrinks.
  if (c10::multiply_integers(output) > dense.numel()) {
    result = at::empty(output, input.options());
  } else {
    result.resize_(output);
  }
  const Tensor columns = TransposedColumns(dense, weight);
  const Tensor ones = bias.defined() ? at::empty(output.slice(2), input.options()) : Tensor();
  return result;
}

TensorTriple Transposed3dBackward(const Tensor& grad_output, const Tensor& input_,
                                  const Tensor& weight, std::array<bool, 3> mask) {
  const Tensor input = input_.contiguous();
  Tensor grad_input, grad_weight, grad_bias;
  if (mask[0]) {
    const Tensor dense = grad_output.contiguous();
    grad_input = at::empty(input.sizes(), input.options());
    const Tensor columns = TransposedColumns(input, weight);
  }
  if (mask[1]) grad_weight = at::empty(weight.sizes(), weight.options());
  if (mask[2]) grad_bias = at::empty({weight.size(1)}, weight.options());
  if (mask[1] || mask[2]) {
    const Tensor dense = grad_output.contiguous();
    const Tensor columns = TransposedColumns(input, weight);
  }
  return {grad_input, grad_weight, grad_bias};
}

// A transposed convolution is to oneDNN the gradient of the convolution that leads back.
ConvolutionShape ShapeLeadingBack(const Tensor& input, const Tensor& weight, IntArrayRef output,
                                  const Convolution& conv) {
  ConvolutionShape shape = OneDnnShape(input, weight, input.sizes(), conv, false);
  shape.input = output.vec();
  return shape;
}

TensorTriple OneDnnTransposedBackward(const Tensor& grad_output_, const Tensor& input_,
                                      const Tensor& weight, const Convolution& conv,
                                      std::array<bool, 3> mask) {
  const Tensor grad_output = grad_output_.contiguous();
  const Tensor input = input_.contiguous();
  const ConvolutionShape shape = ShapeLeadingBack(input, weight, grad_output.sizes(), conv);
  Tensor grad_input, grad_weight, grad_bias;
  if (mask[0]) {
    grad_input = RunOneDnn(ConvolutionPass::kForward, shape, input.sizes(), input.options(),
                           /*transposed=*/true);
  }
  if (mask[1] || mask[2]) {
    grad_weight = RunOneDnn(ConvolutionPass::kBackwardWeight, shape, weight.sizes(),
                            weight.options(), /*transposed=*/true);
  }
  if (mask[2]) grad_bias = at::empty({weight.size(1)}, weight.options());
  return {grad_input, grad_weight, grad_bias};
}

[[noreturn]] void Unmodelled(const Tensor& input, const Tensor& weight) {
  TORCH_CHECK(false, "rehearsal: the CPU kernel of the convolution of ", input.sizes(), " with ",
              weight.sizes(), " is not modelled");
}

Tensor ConvolutionForward(const Tensor& input, const Tensor& weight, const OptionalTensor& bias_,
                          IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                          bool transposed, IntArrayRef output_padding, int64_t groups) {
  const Convolution conv{stride, padding, dilation, transposed, output_padding, groups};
  const std::vector<int64_t> output = OutputSizes(input, weight, conv);
  const Tensor bias = bias_.value_or(Tensor());
  if (kernel_model == KernelModel::kCuda) return at::empty(output, input.options());
  const ConvBackend backend = CpuBackend(input, weight, conv);
  if (IsOneDnnTransposed(backend)) {
    const Tensor dense = input.contiguous();
    return RunOneDnn(ConvolutionPass::kBackwardInput, ShapeLeadingBack(dense, weight, output, conv),
                     output, input.options(), /*transposed=*/true);
  }
  switch (backend) {
    case ConvBackend::Mkldnn: {
      const Tensor dense = input.contiguous();
      return RunOneDnn(ConvolutionPass::kForward,
                       OneDnnShape(dense, weight, output, conv, bias.defined()), output,
                       input.options());
    }
    case ConvBackend::Slow3d:
      return Slow3dForward(input, weight, output, conv);
    case ConvBackend::SlowTranspose3d:
      return Transposed3dForward(input, weight, bias, output);
    default:
      Unmodelled(input, weight);
  }
}

TensorTriple OneDnnBackward(const Tensor& grad_output_, const Tensor& input_, const Tensor& weight,
                            const Convolution& conv, std::array<bool, 3> mask) {
  const Tensor grad_output = grad_output_.contiguous();
  const Tensor input = input_.contiguous();
  const ConvolutionShape shape = OneDnnShape(input, weight, grad_output.sizes(), conv, mask[2]);
  Tensor grad_input, grad_weight, grad_bias;
  if (mask[0]) {
    grad_input = RunOneDnn(ConvolutionPass::kBackwardInput, shape, input.sizes(), input.options());
  }
  // The bias gradient's oneDNN form lives until both results are dense.
  const Tensor bias_result = Block(mask[2] ? weight.size(0) * weight.element_size() : 0);
  if (mask[1] || mask[2]) {
    grad_weight =
        RunOneDnn(ConvolutionPass::kBackwardWeight, shape, weight.sizes(), weight.options());
  }
  if (mask[2]) grad_bias = at::empty({weight.size(0)}, weight.options());
  return {grad_input, grad_weight, grad_bias};
}

TensorTriple ConvolutionBackward(const Tensor& grad_output, const Tensor& input,
                                 const Tensor& weight, IntArrayRef stride, IntArrayRef padding,
                                 IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
                                 int64_t groups, std::array<bool, 3> mask) {
  const Convolution conv{stride, padding, dilation, transposed, output_padding, groups};
  if (kernel_model == KernelModel::kCuda) {
    const auto gradient = [](bool wanted, const Tensor& of) {
      return wanted ? at::empty(of.sizes(), of.options()) : Tensor();
    };
    const Tensor dense = grad_output.contiguous();
    Tensor grad_bias;
    if (mask[2]) grad_bias = at::empty({grad_output.size(1)}, weight.options());
    return {gradient(mask[0], input), gradient(mask[1], weight), grad_bias};
  }
  const ConvBackend backend = CpuBackend(input, weight, conv);
  if (IsOneDnnTransposed(backend)) {
    return OneDnnTransposedBackward(grad_output, input, weight, conv, mask);
  }
  switch (backend) {
    case ConvBackend::Mkldnn:
      return OneDnnBackward(grad_output, input, weight, conv, mask);
    case ConvBackend::Slow3d:
      return Slow3dBackward(grad_output, input, weight, conv, mask);
    case ConvBackend::SlowTranspose3d:
      return Transposed3dBackward(grad_output, input, weight, mask);
    default:
      Unmodelled(input, weight);
  }
}

// ---- Normalisation, activation, pooling ---------------------------------------------------------

TensorTriple BatchNorm(const Tensor& input, const OptionalTensor& /*weight*/,
                       const OptionalTensor& /*bias*/, const OptionalTensor& /*running_mean*/,
                       const OptionalTensor& /*running_var*/, bool training, double /*momentum*/,
                       double /*eps*/) {
  // Statistics of bfloat16 inputs are float32.
  const auto statistics =
      input.options().dtype(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const int64_t channels = training ? input.size(1) : 0;
  Tensor mean = at::empty({channels}, statistics);
  Tensor inverse_std = at::empty({channels}, statistics);
  Tensor output = at::empty_like(input, input.suggest_memory_format());
  if (kernel_model == KernelModel::kCpu) {  // scale and shift that it folds the statistics into
    const Tensor scale = at::empty({input.size(1)}, statistics);
    const Tensor shift = at::empty({input.size(1)}, statistics);
  }
  return {output, mean, inverse_std};
}

TensorTriple BatchNormGradient(const Tensor& grad_output, const Tensor& input,
                               const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                               const OptionalTensor&, const OptionalTensor&, bool /*train*/,
                               double /*eps*/, std::array<bool, 3> mask) {
  const auto statistics =
      input.options().dtype(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  Tensor grad_input, grad_weight, grad_bias;
  if (mask[0]) grad_input = at::empty_like(input, input.suggest_memory_format());
  if (mask[1]) grad_weight = at::empty({input.size(1)}, statistics);
  if (mask[2]) grad_bias = at::empty({input.size(1)}, statistics);
  // The CPU kernel allocates the gradient a second time before it drops the first.
  if (mask[0] && kernel_model == KernelModel::kCpu && input.is_contiguous() &&
      grad_output.is_contiguous()) {
    grad_input = at::empty_like(input, input.suggest_memory_format());
  }
  return {grad_input, grad_weight, grad_bias};
}

Tensor Relu(const Tensor& input) { return at::empty_like(input); }
Tensor& ReluInPlace(Tensor& input) { return input; }

std::tuple<Tensor, Tensor> MaxPool3d(const Tensor& input, IntArrayRef kernel, IntArrayRef stride,
                                     IntArrayRef padding, IntArrayRef dilation, bool ceil_mode) {
  const auto at_dim = [](IntArrayRef list, size_t i) {
    return list.size() == 1 ? list[0] : list[i];
  };
  const IntArrayRef step = stride.empty() ? kernel : stride;
  std::vector<int64_t> output = input.sizes().vec();
  for (size_t i = 0; i < 3; ++i) {
    const int64_t window = at_dim(dilation, i) * (at_dim(kernel, i) - 1) + 1;
    const int64_t room = input.size(i - 3) + 2 * at_dim(padding, i) - window;
    int64_t& size = output[output.size() - 3 + i];
    size = (room + (ceil_mode ? at_dim(step, i) - 1 : 0)) / at_dim(step, i) + 1;
    // A window that would start beyond the padded input is left out.
    const int64_t last_start = (size - 1) * at_dim(step, i);
    if (ceil_mode && last_start >= input.size(i - 3) + at_dim(padding, i)) --size;
  }
  const Tensor dense = input.contiguous();
  Tensor result = at::empty(output, input.options());
  return {result, at::empty(output, input.options().dtype(at::kLong))};
}

Tensor MaxPool3dBackward(const Tensor& grad_output, const Tensor& input, IntArrayRef, IntArrayRef,
                         IntArrayRef, IntArrayRef, bool, const Tensor&) {
  const Tensor dense = grad_output.contiguous();
  return at::empty_like(input);
}

Tensor AdaptiveAveragePool3d(const Tensor& input, IntArrayRef output) {
  std::vector<int64_t> sizes = input.sizes().vec();
  std::copy(output.begin(), output.end(), sizes.end() - 3);
  return at::empty(sizes, input.options());
}

Tensor AdaptiveAveragePool3dBackward(const Tensor& grad_output, const Tensor& input) {
  const Tensor dense = grad_output.contiguous();
  return at::empty_like(input, at::MemoryFormat::Contiguous);
}

// ---- Random masks and indexing ------------------------------------------------------------------

// NOLINTNEXTLINE(performance-unnecessary-value-param): the operator's type
Tensor& BernoulliInPlace(Tensor& self, double, Optional<at::Generator>) { return self; }

Tensor& MaskedFillInPlace(Tensor& self, const Tensor&, const at::Scalar&) { return self; }

Tensor IndexSelect(const Tensor& self, int64_t dim, const Tensor& index) {
  std::vector<int64_t> sizes = self.sizes().vec();
  sizes[at::maybe_wrap_dim(dim, self.dim())] = index.numel();
  return at::empty(sizes, self.options());
}

// Of the right size where nothing is masked out, as with labels that are never ignored.
Tensor MaskedSelect(const Tensor& self, const Tensor&) {
  return at::empty({self.numel()}, self.options());
}

Tensor& MaskedScatterInPlace(Tensor& self, const Tensor&, const Tensor&) { return self; }

// ---- Optimizers: lists of tensors, in place, without memory of their own
// -------------------------

void ForeachScalarInPlace(at::TensorList, const at::Scalar&) {}
void ForeachListInPlace(at::TensorList, at::TensorList, const at::Scalar&) {}

// Later versions also pass the type of the result.
template <typename... ResultType>
std::vector<Tensor> ForeachNorm(at::TensorList tensors, const at::Scalar&, ResultType...) {
  std::vector<Tensor> norms;
  for (const Tensor& tensor : tensors) norms.push_back(at::empty({}, tensor.options()));
  return norms;
}

// ---- Registration -------------------------------------------------------------------------------

// LibTorch versions differ in what they have on meta; what is there is left alone.
bool Missing(const char* name, const char* overload) {
  const auto op = c10::Dispatcher::singleton().findSchema({std::string("aten::") + name, overload});
  return op.has_value() && !op->hasKernelForDispatchKey(c10::DispatchKey::Meta);
}

template <typename Kernel>
void Register(torch::Library& library, const char* name, Kernel kernel, const char* overload = "") {
  if (!Missing(name, overload)) return;
  const std::string full = *overload != 0 ? std::string(name) + "." + overload : name;
  library.impl(full.c_str(), kernel);
}

}  // namespace

void RegisterMetaKernels() {
  // Never destroyed: LibTorch's dispatcher may already be gone at exit.
  static torch::Library* const library = [] {
    auto* made = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__,
                                    __LINE__);
    Register(*made, "convolution_overrideable", TORCH_FN(ConvolutionForward));
    Register(*made, "convolution_backward_overrideable", TORCH_FN(ConvolutionBackward));
    Register(*made, "native_batch_norm", TORCH_FN(BatchNorm));
    Register(*made, "native_batch_norm_backward", TORCH_FN(BatchNormGradient));
    Register(*made, "relu", TORCH_FN(Relu));
    Register(*made, "relu_", TORCH_FN(ReluInPlace));
    Register(*made, "max_pool3d_with_indices", TORCH_FN(MaxPool3d));
    Register(*made, "max_pool3d_with_indices_backward", TORCH_FN(MaxPool3dBackward));
    Register(*made, "_adaptive_avg_pool3d", TORCH_FN(AdaptiveAveragePool3d));
    Register(*made, "_adaptive_avg_pool3d_backward", TORCH_FN(AdaptiveAveragePool3dBackward));
    Register(*made, "bernoulli_", TORCH_FN(BernoulliInPlace), "float");
    Register(*made, "masked_fill_", TORCH_FN(MaskedFillInPlace), "Scalar");
    Register(*made, "masked_select", TORCH_FN(MaskedSelect));
    Register(*made, "masked_scatter_", TORCH_FN(MaskedScatterInPlace));
    Register(*made, "index_select", TORCH_FN(IndexSelect));
    Register(*made, "_foreach_mul_", TORCH_FN(ForeachScalarInPlace), "Scalar");
    Register(*made, "_foreach_add_", TORCH_FN(ForeachListInPlace), "List");
    at::_ops::_foreach_norm_Scalar::schema* const norm = ForeachNorm;
    Register(*made, "_foreach_norm", norm, "Scalar");
    return made;
  }();
  (void)library;
}

void SetKernelModel(KernelModel model) {
  kernel_model = model;
  SetMetaStandsFor(model == KernelModel::kCpu ? c10::DeviceType::CPU : c10::DeviceType::CUDA);
}

}  // namespace kinefit
