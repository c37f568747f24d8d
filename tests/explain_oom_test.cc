// `kinefit explain-oom` and `kinefit memory` as people run them.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/process.h"

namespace kinefit::testing {
namespace {

const char* const kMessage =
    "RuntimeError: CUDA out of memory. Tried to allocate 62.00 MiB (GPU 1; 39.39 GiB total "
    "capacity; 22.45 GiB already allocated; 8.12 MiB free)\n";

class ExplainOom : public ::testing::Test {
 protected:
  // Runs the program with `text` as a file, and further arguments.
  Outcome Explain(const std::string& text, std::vector<std::string> arguments = {}) const {
    WriteText(scratch_ / "run.log", text);
    arguments.insert(arguments.begin(), {"explain-oom", scratch_ / "run.log"});
    return Kinefit(arguments);
  }
  // Runs a shell command in which $K is the program.
  Outcome Shell(const std::string& command) const {
    Process process({"/bin/sh", "-c", command}, scratch_ / "output", {"K=" + KinefitBinary()});
    return process.Wait();
  }
  static void ExpectWords(const Outcome& outcome, int exit_code,
                          const std::vector<std::string>& words) {
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.output;
    for (const std::string& word : words) {
      EXPECT_NE(outcome.output.find(word), std::string::npos) << "no \"" << word << "\" in:\n"
                                                              << outcome.output;
    }
  }

  ScratchFolder scratch_;
};

TEST_F(ExplainOom, ExplainsAFileAndStandardInput) {
  ExpectWords(Explain(kMessage), 0,
              {"GPU 1", "22.45 GiB", "NOT live tensors", "16.93 GiB", "39.39 GiB", "wrong cause"});
  const std::string file = scratch_ / "run.log";
  ExpectWords(Shell("\"$K\" explain-oom < " + file), 0, {"16.93 GiB"});
  ExpectWords(Shell("cat " + file + " | \"$K\" explain-oom -"), 0, {"16.93 GiB"});
}

TEST_F(ExplainOom, PrintsJson) {
  const Outcome outcome =
      Explain(std::string("\xff\xfe garbage") + "\n[rank3]: " + kMessage, {"--json"});
  ASSERT_EQ(outcome.exit_code, 2);  // a byte order mark makes it UTF-16, and then there is nothing
  const Outcome good = Explain(std::string("\xff garbage\n[rank3]: ") + kMessage, {"--json"});
  ASSERT_EQ(good.exit_code, 0) << good.output;
  const auto json = nlohmann::json::parse(good.output);
  const auto& message = json.at("messages").at(0);
  EXPECT_EQ(message.at("cause"), "not_ours_or_cache");
  EXPECT_EQ(message.at("rank"), 3);
  EXPECT_EQ(message.at("gpu"), 1);
  EXPECT_EQ(message.at("line"), 2);
  int64_t sum = 0;
  for (const auto& share : message.at("shares")) sum += share.at("bytes").get<int64_t>();
  EXPECT_EQ(sum, message.at("bytes").at("capacity").get<int64_t>());
  EXPECT_FALSE(json.contains("plan"));
}

TEST_F(ExplainOom, PlansTheConfiguration) {
  const std::string config = scratch_ / "config.toml";
  WriteText(config, SmallConfig("pose"));
  ExpectWords(Explain(kMessage, {"--config", config}), 0,
              {"really needs", "With the GPU to itself", "on cuda", "It fits as written"});
  // 1 MiB is left: too little for anything.
  const std::string tight =
      "CUDA out of memory. Tried to allocate 62.00 MiB (GPU 0; 39.39 GiB total capacity; 0 bytes "
      "already allocated; 1.00 MiB free)\n";
  const Outcome outcome = Explain(tight, {"--config", config, "--json"});
  const auto json = nlohmann::json::parse(outcome.output);
  EXPECT_EQ(json.at("plan").at("now").at("budget"), 1 << 20);
  EXPECT_FALSE(json.at("plan").at("now").at("fits").get<bool>());
  EXPECT_TRUE(json.at("plan").at("alone").at("fits").get<bool>());
  ExpectWords(Explain("RuntimeError: CUDA error: out of memory\n", {"--config", config}), 0,
              {"No message says how much"});
  ExpectWords(Explain("Killed\n", {"--config", config}), 0, {"this machine's memory", "on cpu"});
  ExpectWords(Explain(kMessage, {"--config", config, "--set", "train.batch_size=2"}), 0,
              {"batch 2 on cuda"});
  ExpectWords(Explain(kMessage, {"--set", "train.batch_size=2"}), 2, {"--config"});
  ExpectWords(Explain(kMessage, {"--config", scratch_ / "none.toml"}), 2, {"none.toml"});
}

TEST_F(ExplainOom, RefusesWhatItCannotRead) {
  ExpectWords(Explain("epoch 3: all went well\n"), 2,
              {"run.log", "no out-of-memory message", "DefaultCPUAllocator", "137"});
  ExpectWords(Explain(""), 2, {"empty"});
  ExpectWords(Kinefit({"explain-oom", scratch_ / "none.log"}), 2, {"none.log", "cannot be opened"});
  ExpectWords(Kinefit({"explain-oom", scratch_.path()}), 2, {"folder"});
  ExpectWords(Kinefit({"explain-oom", KinefitBinary()}), 2, {"binary"});
  ExpectWords(Kinefit({"explain-oom", "/dev/zero"}), 2, {"/dev/zero"});
  ExpectWords(Shell("\"$K\" explain-oom < /dev/null"), 2, {"standard input", "empty"});
  ExpectWords(Shell("echo hello | gzip | \"$K\" explain-oom"), 2, {"compressed", "zcat"});
}

TEST_F(ExplainOom, ReadsWindowsLogs) {
  std::string utf16 = "\xff\xfe";
  for (const char* c = kMessage; *c != 0; ++c) {
    if (*c == '\n') utf16 += std::string("\r\0", 2);
    utf16 += *c;
    utf16 += '\0';
  }
  ExpectWords(Explain(utf16), 0, {"16.93 GiB"});
}

// The end of a log that is longer than what is read, as a file and through a pipe.
TEST_F(ExplainOom, ReadsTheEndOfALongLog) {
  const std::string file = scratch_ / "long.log";
  {
    std::ofstream out(file, std::ios::binary);
    const std::string line =
        "Epoch [1][10/1736] loss: 0.5844 memory: 21333, a line like many others\n";
    for (size_t written = 0; written < (80u << 20); written += line.size()) out << line;
    out << kMessage;
  }
  ExpectWords(Kinefit({"explain-oom", file}), 0, {"Only the last 64.00 MiB", "16.93 GiB"});
  ExpectWords(Shell("cat " + file + " | \"$K\" explain-oom"), 0,
              {"Only the last 64.00 MiB", "16.93 GiB"});
}

TEST(MemoryCommand, ShowsTheHostWithoutADriver) {
  const Outcome outcome = Kinefit({"memory", "--nvml", "/nowhere/libnvidia-ml.so.1"});
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_NE(outcome.output.find("no NVIDIA driver library"), std::string::npos);
  EXPECT_NE(outcome.output.find("Host memory"), std::string::npos);
  const auto json = nlohmann::json::parse(
      Kinefit({"memory", "--nvml", "/nowhere/libnvidia-ml.so.1", "--json"}).output);
  EXPECT_EQ(json.at("nvml"), "no_library");
  EXPECT_GT(json.at("host").at("total").get<int64_t>(), 0);
  EXPECT_FALSE(json.at("host").at("processes").empty());
}

TEST(MemoryCommand, ListsGpus) {
  const ScratchFolder scratch;
  WriteText(scratch / "script",
            "driver 550.54.14\ngpu 42295295787 42286781235 500000000 NVIDIA A100-PCIE-40GB\n"
            "compute 1 18000000000\ncompute 999999999 23000000000\n");
  const std::vector<std::string> environment = {"KINEFIT_NVML_SCRIPT=" + (scratch / "script")};
  const Outcome outcome = Kinefit({"memory", "--nvml", KINEFIT_SCRIPTED_NVML}, environment);
  EXPECT_EQ(outcome.exit_code, 0);
  for (const char* word :
       {"GPU 0  NVIDIA A100-PCIE-40GB", "39.39 GiB total", "8.12 MiB free", "16.76 GiB",
        "999999999", "not visible here", "the driver itself", "no process listed"}) {
    EXPECT_NE(outcome.output.find(word), std::string::npos) << word << "\n" << outcome.output;
  }
  const auto json = nlohmann::json::parse(
      Kinefit({"memory", "--nvml", KINEFIT_SCRIPTED_NVML, "--json"}, environment).output);
  const auto& gpu = json.at("gpus").at(0);
  EXPECT_EQ(gpu.at("processes").at(1).at("pid"), 1);
  EXPECT_TRUE(gpu.at("processes").at(1).at("visible").get<bool>());
  EXPECT_EQ(gpu.at("unattributed").get<int64_t>(),
            42286781235 - 500000000 - 18000000000 - 23000000000);
  WriteText(scratch / "script", "init 18\n");
  const Outcome failed = Kinefit({"memory", "--nvml", KINEFIT_SCRIPTED_NVML}, environment);
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_NE(failed.output.find("version mismatch"), std::string::npos);
}

}  // namespace
}  // namespace kinefit::testing
