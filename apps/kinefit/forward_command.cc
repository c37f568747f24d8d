#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <memory>

#include "apps/kinefit/arrays.h"
#include "apps/kinefit/commands.h"
#include "apps/kinefit/run_setup.h"
#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "files/error.h"
#include "files/npy.h"
#include "model/network.h"

namespace kinefit {
namespace {

struct Arguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string checkpoint;
  std::string input;
  std::string output;
  bool strict = false;
};

int RunForward(const Arguments& arguments) {
  const LoadedConfig loaded = LoadConfig(arguments.config, arguments.overrides);
  const Config& config = loaded.config;
  SetThreads(config);
  ApplyMemoryBudget(config);
  const at::TensorOptions options = NetworkOptions(config);
  const std::unique_ptr<Network> network = MakeNetwork(config.model, options);
  // What the checkpoint lacks is as a new network has it, a PCAN's gates closed for one.
  InitialiseNetwork(*network, config.model, static_cast<uint64_t>(config.seed));
  const CheckpointDict file = ReadCheckpoint(arguments.checkpoint);
  const LoadReport report = LoadWeights(NamedTensorsOf(*network), file, /*ema=*/false,
                                        arguments.strict, arguments.checkpoint);
  std::printf("%s\n", report.Summary().c_str());

  const NpzArrays arrays = ReadNpz(arguments.input);
  NetworkInput input;
  if (config.model.has_rgb()) {
    input.imgs = RequireArray(arrays, "imgs", config.model.rgb.in_channels, arguments.input);
  }
  if (config.model.has_pose()) {
    input.heatmap_imgs =
        RequireArray(arrays, "heatmap_imgs", config.model.pose.in_channels, arguments.input);
  }
  if (input.imgs.defined() && input.heatmap_imgs.defined() &&
      input.imgs.size(0) != input.heatmap_imgs.size(0)) {
    throw Error("`imgs` and `heatmap_imgs` hold different numbers of clips", arguments.input,
                "give the same clips of both streams, in the same order");
  }

  for (at::Tensor* tensor : {&input.imgs, &input.heatmap_imgs}) {
    if (tensor->defined()) *tensor = tensor->to(options.device());
  }
  const at::NoGradGuard no_grad;
  network->Train(false);
  RandomStream unused(config.seed, "forward");
  const NetworkOutput output = network->Forward(input, unused);

  NpzArrays results;
  for (const auto& [stream, logits] : output.logits) {
    results.emplace("logits_" + stream, ToNdArray(logits));
  }
  if (output.feature_rgb.defined()) {
    results.emplace("feature_rgb", ToNdArray(output.feature_rgb));
  }
  if (output.feature_pose.defined()) {
    results.emplace("feature_pose", ToNdArray(output.feature_pose));
  }
  WriteNpz(arguments.output, results);
  std::printf("wrote %s\n", arguments.output.c_str());
  return kExitOk;
}

}  // namespace

void AddForwardCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "forward", "run a network on arrays, to compare it with another implementation");
  command->add_option("-c,--config", arguments->config, "configuration of the network")->required();
  command->add_option("--checkpoint", arguments->checkpoint, "weights: any torch.save .pth")
      ->required();
  command
      ->add_option("-i,--input", arguments->input,
                   ".npz with `imgs` [N,3,T,H,W] and/or `heatmap_imgs` [N,C,T,H,W], float")
      ->required();
  command
      ->add_option("-o,--output", arguments->output,
                   ".npz to write: logits_rgb, logits_pose, logits_fused, feature_rgb, "
                   "feature_pose, as far as the network has them")
      ->required();
  command->add_option("-s,--set", arguments->overrides, "override one option of the configuration")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  AddNonfiniteFlag(command);
  command->add_flag("--strict", arguments->strict, "every name and shape must match");
  command->callback([arguments, exit_code] { *exit_code = RunForward(*arguments); });
}

}  // namespace kinefit
