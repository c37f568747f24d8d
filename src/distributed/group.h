#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "distributed/environment.h"
#include "distributed/heartbeat.h"
#include "distributed/step_exchange.h"

namespace kinefit {

// Thrown on every rank when one of them was asked to stop (a signal) in the middle of common work.
class StopAsked : public std::runtime_error {
 public:
  StopAsked() : std::runtime_error("stopped by a signal") {}
};

// The processes ("ranks") of one run, seen from one of them. All ranks must make the same calls in
// the same order; a call returns when all have made it. None returns if a rank is lost: the process
// is then ended as GroupOptions says. One thread, except Tell().
class Group {
 public:
  virtual ~Group() = default;

  int64_t rank() const { return rank_; }
  int64_t world() const { return world_; }
  // Rank 0: the one that prints, decides, and writes checkpoints.
  bool leads() const { return rank_ == 0; }

  // Adds `values` ([n] float64 on the CPU) up in place; the same bits on every rank.
  virtual void Sum(at::Tensor& values) = 0;
  // Everybody gets what rank `from` has. Tensors of the same shapes and types on every rank.
  virtual void Broadcast(const std::vector<at::Tensor>& tensors, int64_t from) = 0;
  virtual std::string Share(const std::string& bytes, int64_t from) = 0;
  // What each rank brings, in order of rank, on every rank.
  virtual std::vector<std::string> Gather(const std::string& bytes) = 0;

  // For this process's training steps; null in a group of one. `parameters` in the order of the
  // network, `order` the indices in the order in which gradients come; see StepExchange.
  virtual std::unique_ptr<StepExchange> MakeStepExchange(const std::vector<at::Tensor>& parameters,
                                                         const std::vector<size_t>& order,
                                                         const ExchangeOptions& options) = 0;

  // What this rank is at, for whoever watches it (also a launcher of one rank): optimizer steps
  // done, and what it does.
  virtual void Tell(int64_t step, RankPhase phase) { Heartbeat::Own().Beat(step, phase); }
  // This rank cannot go on: tells the others why, and returns when they know or cannot be told.
  virtual void Fail(const std::string& /*reason*/) {}
  // The regular end of this rank's part: waits for the others' (as long as the time-out allows).
  virtual void Leave() {}

 protected:
  Group(int64_t rank, int64_t world) : rank_(rank), world_(world) {}

 private:
  int64_t rank_;
  int64_t world_;
};

// A group of this process alone: nothing is sent to anybody.
std::unique_ptr<Group> Alone();

struct GroupOptions {
  double timeout =
      300;            // seconds without a sign of life, or in one call, after which a rank is lost
  bool cuda = false;  // tensors of gradients live on a GPU
  bool shared_memory = true;  // may be used where all ranks are on one machine
  // Ends the process because the run is lost; `message` says through whom, where and why. Called
  // once, from any thread; must not return.
  std::function<void(const std::string& message)> end_process;
};

// Meets the other ranks. Throws Error if they do not all come within the time-out, naming those
// that are missing, or if the port is taken.
std::unique_ptr<Group> JoinGroup(const RankEnvironment& environment, const GroupOptions& options);

}  // namespace kinefit
