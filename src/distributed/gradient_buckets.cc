#include "distributed/gradient_buckets.h"

#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <utility>

#include "libtorch/versions.h"

namespace kinefit {
namespace {

// What every bucket has sent, in the order of sending.
struct Sent {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  size_t buckets = 0;
  std::vector<c10::intrusive_ptr<c10::ivalue::Future>> futures;
};

// A group of one that exists only because the Reducer wants one.
class NoGroup : public c10d::ProcessGroup {
 public:
  NoGroup() : c10d::ProcessGroup(0, 1) {}
  const std::string getBackendName() const override { return "none"; }
};

c10::intrusive_ptr<c10::ivalue::Future> Completed(const at::Tensor& tensor) {
  auto future =
      c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
  future->markCompleted(c10::IValue(std::vector<at::Tensor>{tensor}));
  return future;
}

// Sums without dividing, and remembers what is under way.
class SumHook : public c10d::CommHookInterface {
 public:
  SumHook(ProcessGroup group, Sent* sent) : group_(std::move(group)), sent_(sent) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    return Send(bucket.getBufferRef());
  }
  at::Tensor parseHookResult(const c10::IValue& result) override {
    return result.isTensor() ? result.toTensor() : result.toTensorVector()[0];
  }
  c10::intrusive_ptr<c10::ivalue::Future> Send(const at::Tensor& buffer) {
    ++sent_->buckets;
    if (!group_) return Completed(buffer);
    std::vector<at::Tensor> tensors = {buffer};
    sent_->works.push_back(group_->allreduce(tensors));
    return sent_->works.back()->getFuture();
  }

 private:
  ProcessGroup group_;
  Sent* sent_;
};

size_t BytesOf(const at::Tensor& tensor) { return tensor.numel() * tensor.element_size(); }

}  // namespace

std::vector<std::vector<size_t>> AssignBuckets(const std::vector<at::Tensor>& parameters,
                                               const std::vector<size_t>& order,
                                               double bucket_bytes) {
  std::vector<std::vector<size_t>> buckets;
  double filled = 0;
  double limit = std::min<double>(bucket_bytes, c10d::kDefaultFirstBucketBytes);
  for (const size_t index : order) {
    const bool fits =
        !buckets.empty() && filled < limit &&
        parameters[buckets.back().front()].scalar_type() == parameters[index].scalar_type();
    if (!fits) {
      if (!buckets.empty()) limit = bucket_bytes;
      buckets.emplace_back();
      filled = 0;
    }
    buckets.back().push_back(index);
    filled += static_cast<double>(BytesOf(parameters[index]));
  }
  return buckets;
}

// The Reducer, which keeps its state from its users but not from those that derive from it.
class GradientBuckets::Buckets : public BucketReducer<c10d::Reducer, c10d::ProcessGroup> {
 public:
  Buckets(const std::vector<at::Tensor>& parameters,
          const std::vector<std::vector<size_t>>& assignment, double bucket_bytes,
          const ProcessGroup& group)
      : BucketReducer(parameters, assignment,
                      group ? group : ProcessGroup(c10::make_intrusive<NoGroup>()),
                      static_cast<int64_t>(bucket_bytes), c10d::kDefaultFirstBucketBytes) {
    has_rebuilt_bucket_ = true;  // the order is known: it is not to collect what it would take
    auto hook = std::make_unique<SumHook>(group, &sent_);
    hook_ = hook.get();
    register_comm_hook(std::move(hook));
  }

  size_t count() const { return buckets_.size(); }
  size_t sent() const { return sent_.buckets; }
  // Whether the backward pass that was expected has run to its end.
  bool backward_done() const { return !expect_autograd_hooks_; }

  // Calls run(parameter's index, the parameter, its place in the bucket) for one bucket.
  template <typename Run>
  void ForEach(size_t bucket, const Run& run) {
    Bucket& b = buckets_[bucket];
    for (size_t i = 0; i < b.variables.size(); ++i) {
      run(b.variable_indices[i], b.variables[i], b.bucket_views_in[i]);
    }
  }
  void Send(size_t bucket) { hook_->Send(buckets_[bucket].gradients); }
  void Clear(size_t bucket) { buckets_[bucket].gradients.zero_(); }

  void Await() {
    for (const auto& work : sent_.works) work->wait();
  }
  void AwaitQuietly() {
    for (const auto& work : sent_.works) {
      try {
        work->wait();
      } catch (const std::exception&) {
        // Whoever waits quietly has a failure to tell already.
      }
    }
  }
  void Forget() {
    sent_ = Sent();
    expect_autograd_hooks_ = false;
    require_finalize_ = false;
  }
  int64_t bytes() const {
    size_t all = 0;
    for (const Bucket& bucket : buckets_) all += BytesOf(bucket.gradients);
    return static_cast<int64_t>(all);
  }

 private:
  Sent sent_;
  SumHook* hook_ = nullptr;
};

GradientBuckets::GradientBuckets(const std::vector<at::Tensor>& parameters,
                                 const std::vector<size_t>& order, double bucket_bytes,
                                 ProcessGroup group)
    : used_(parameters.size(), 0),
      buckets_(std::make_unique<Buckets>(parameters, AssignBuckets(parameters, order, bucket_bytes),
                                         bucket_bytes, group)) {}

GradientBuckets::~GradientBuckets() = default;

void GradientBuckets::Begin() {
  buckets_->Forget();
  settled_ = false;
  used_.assign(used_.size(), 0);
}

void GradientBuckets::Expect() { buckets_->prepare_for_backward({}); }

void GradientBuckets::SendRest(bool zeros) {
  if (settled_) return;
  const at::NoGradGuard no_grad;
  const size_t sent = buckets_->sent();
  for (size_t b = 0; b < buckets_->count(); ++b) {
    buckets_->ForEach(b, [&](size_t index, at::Tensor& parameter, at::Tensor& view) {
      const at::Tensor& gradient = parameter.grad();
      // A bucket that went during the backward pass was full.
      used_[index] = static_cast<char>(b < sent || gradient.defined());
      if (b < sent || zeros) return;
      if (!gradient.defined()) {
        view.zero_();
      } else if (!gradient.is_alias_of(view)) {
        view.copy_(gradient);
      }
    });
    if (b < sent) continue;
    if (zeros) buckets_->Clear(b);
    buckets_->Send(b);
  }
}

void GradientBuckets::Await() {
  const at::NoGradGuard no_grad;
  buckets_->Await();
  for (size_t b = 0; b < buckets_->count(); ++b) {
    buckets_->ForEach(b, [&](size_t, at::Tensor& parameter, at::Tensor& view) {
      if (!parameter.grad().defined() || !parameter.grad().is_alias_of(view)) {
        parameter.mutable_grad() = view;
      }
    });
  }
  buckets_->Forget();
  settled_ = true;
}

void GradientBuckets::Abandon() {
  buckets_->AwaitQuietly();
  buckets_->Forget();
  settled_ = true;
}

int64_t GradientBuckets::bytes() const { return buckets_->bytes(); }

}  // namespace kinefit
