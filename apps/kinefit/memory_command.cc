#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/kinefit/commands.h"
#include "memory/bytes.h"
#include "memory/nvml.h"
#include "memory/processes.h"
#include "report/table.h"

namespace kinefit {
namespace {

constexpr size_t kHostProcesses = 5;
constexpr const char* kNoLibrary =
    "There is no NVIDIA driver library (libnvidia-ml.so.1) on this machine, so nothing is known "
    "about GPUs.";

struct Arguments {
  std::string nvml;
  bool json = false;
};

// As much of the command line as keeps a row within 120 columns or so.
std::string Command(const ProcessEntry& process) {
  return std::string(PrefixOfWidth(process.command, 70));
}

std::string GpuText(const GpuState& gpu) {
  std::string text = "GPU " + std::to_string(gpu.index) + "  " + gpu.name + "\n";
  if (!gpu.problem.empty()) return text + "  cannot be read: " + gpu.problem + "\n";
  text += "  " + FormatAmount(gpu.total) + " total, " + FormatAmount(gpu.used) + " used, " +
          FormatAmount(gpu.free) + " free\n\n";
  std::vector<std::vector<std::string>> rows = {{"held by", "pid", "user", "memory", "process"}};
  for (const GpuUse& use : gpu.processes) {
    const std::string bytes = use.bytes ? FormatAmount(*use.bytes) : "not known";
    if (use.process) {
      rows.push_back({use.process->name, std::to_string(use.pid), use.process->user, bytes,
                      Command(*use.process)});
    } else {
      rows.push_back({"?", std::to_string(use.pid), "?", bytes,
                      "not visible here: ended, or outside this container"});
    }
  }
  if (gpu.reserved) {
    rows.push_back({"the driver itself", "", "", FormatAmount(*gpu.reserved), ""});
  }
  rows.push_back({"no process listed", "", "", FormatAmount(gpu.unattributed),
                  "contexts, other containers, processes that are just ending"});
  return text + FormatTable(rows);
}

std::string HostText(const HostMemory& host, const std::vector<ProcessEntry>& processes) {
  std::string text = "Host memory: " + FormatAmount(host.total) + " total, " +
                     FormatAmount(host.available) + " available\n";
  if (host.limit > 0) {
    text += "This container may use " + FormatAmount(host.limit) + " of it.\n";
  }
  std::vector<std::vector<std::string>> rows = {{"name", "pid", "user", "memory", "process"}};
  for (const ProcessEntry& process : processes) {
    rows.push_back({process.name, std::to_string(process.pid), process.user,
                    FormatAmount(process.resident), Command(process)});
  }
  return text + "\n" + FormatTable(rows);
}

using Json = nlohmann::ordered_json;

Json ProcessJson(const ProcessEntry& process) {
  return {{"pid", process.pid},
          {"name", process.name},
          {"user", process.user},
          {"command", process.command}};
}

Json GpuJson(const GpuState& gpu) {
  Json json = {{"index", gpu.index}, {"name", gpu.name}, {"uuid", gpu.uuid}};
  if (!gpu.problem.empty()) {
    json["problem"] = gpu.problem;
    return json;
  }
  json["total"] = gpu.total;
  json["used"] = gpu.used;
  json["free"] = gpu.free;
  if (gpu.reserved) json["reserved"] = *gpu.reserved;
  json["processes"] = Json::array();
  for (const GpuUse& use : gpu.processes) {
    Json entry = use.process ? ProcessJson(*use.process) : Json{{"pid", use.pid}};
    entry["bytes"] = use.bytes ? Json(*use.bytes) : Json(nullptr);
    entry["visible"] = use.process.has_value();
    json["processes"].push_back(entry);
  }
  json["unattributed"] = gpu.unattributed;
  return json;
}

std::string ReportJson(const GpuStates& states) {
  static constexpr std::array<const char*, 3> kStatus = {"read", "no_library", "failed"};
  Json json = {{"nvml", kStatus.at(static_cast<size_t>(states.status))}};
  if (!states.problem.empty()) json["problem"] = states.problem;
  if (!states.driver.empty()) json["driver"] = states.driver;
  json["gpus"] = Json::array();
  for (const GpuState& gpu : states.gpus) json["gpus"].push_back(GpuJson(gpu));
  const HostMemory host = ReadHostMemory();
  json["host"] = {{"total", host.total}, {"available", host.available}};
  if (host.limit > 0) json["host"]["limit"] = host.limit;
  json["host"]["processes"] = Json::array();
  for (const ProcessEntry& process : LargestProcesses(kHostProcesses)) {
    Json entry = ProcessJson(process);
    entry["bytes"] = process.resident;
    json["host"]["processes"].push_back(entry);
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

int RunMemory(const Arguments& arguments) {
  const GpuStates states = ReadGpus(arguments.nvml);
  const int exit_code = states.status == GpuStates::kFailed ? kExitFailed : kExitOk;
  if (arguments.json) {
    std::fputs(ReportJson(states).c_str(), stdout);
    return exit_code;
  }
  std::string text;
  if (states.status == GpuStates::kRead) {
    if (!states.driver.empty()) text += "NVIDIA driver " + states.driver + "\n\n";
    for (const GpuState& gpu : states.gpus) text += GpuText(gpu) + "\n";
    if (states.gpus.empty()) text += "The NVIDIA driver lists no GPU.\n\n";
  } else if (states.status == GpuStates::kNoLibrary) {
    text += std::string(kNoLibrary) + "\n\n";
  } else {
    text += "The NVIDIA driver library is here but does not answer: " + states.problem + "\n\n";
  }
  if (states.gpus.empty()) {
    text += HostText(ReadHostMemory(), LargestProcesses(kHostProcesses));
  }
  std::fputs(text.c_str(), stdout);
  return exit_code;
}

}  // namespace

void AddMemoryCommand(CLI::App& app, int* exit_code) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "memory", "who holds the memory of this machine's GPUs (NVIDIA), or of the host without any");
  command->add_option("--nvml", arguments->nvml,
                      "the driver's library, if it is not found under its usual name");
  command->add_flag("--json", arguments->json, "print JSON; amounts in bytes");
  command->callback([=] { *exit_code = RunMemory(*arguments); });
}

}  // namespace kinefit
