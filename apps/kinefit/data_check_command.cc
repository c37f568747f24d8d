#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>

#include "apps/kinefit/commands.h"
#include "config/annotation_source.h"
#include "config/load.h"
#include "dataset/check.h"
#include "files/error.h"
#include "report/format.h"
#include "report/progress.h"
#include "report/table.h"

namespace kinefit {
namespace {

constexpr int64_t kExampleWidth = 70;  // columns

struct CheckArguments {
  ConfigArguments set;  // a configuration or an annotation pickle
  std::string videos;
  std::string video_suffix;
  bool no_videos = false;
  bool everything = false;
  bool labels = false;
  int threads = 0;
  int64_t list = 20;
  std::string report = "data_check.jsonl";
  std::string fix;
};

bool IsPickle(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension().string();
  return extension == ".pkl" || extension == ".pickle";
}

// Writing must not destroy what was read.
void RefuseToOverwrite(const std::string& input, const std::string& output,
                       const std::string& option) {
  std::error_code error;
  if (output.empty() || !std::filesystem::equivalent(input, output, error)) return;
  throw Error(option + " would overwrite what is checked", output, "give another file name");
}

// Better before all videos are decoded than after.
void RequireFolderOf(const std::string& output, const std::string& option) {
  const std::filesystem::path folder = std::filesystem::path(output).parent_path();
  std::error_code error;
  if (output.empty() || folder.empty() || std::filesystem::is_directory(folder, error)) return;
  throw Error("there is no folder for " + option, output, "make it, or give another file name");
}

// Names at most `most` of the clips of each kind of finding that is more than a note.
void PrintLists(const CheckResult& result, int64_t most) {
  for (const Severity severity : {Severity::kStops, Severity::kDistorts}) {
    std::map<std::string, std::vector<const Finding*>> of_code;
    for (const Finding& finding : result.findings) {
      if (finding.severity == severity) of_code[finding.code].push_back(&finding);
    }
    for (const auto& [code, list] : of_code) {
      std::cout << "\n" << code << " (" << SeverityName(severity) << "):\n";
      for (size_t i = 0; i < list.size() && static_cast<int64_t>(i) < most; ++i) {
        const Finding& finding = *list[i];
        std::string who = finding.id;
        if (who.empty() && finding.annotation >= 0) {
          who = "annotations[" + std::to_string(finding.annotation) + "]";
        }
        if (!finding.split.empty()) who += (who.empty() ? "" : " ") + ("[" + finding.split + "]");
        std::cout << "  " << who << ": " << finding.message << "\n";
      }
      if (static_cast<int64_t>(list.size()) > most) {
        std::cout << "  and " << static_cast<int64_t>(list.size()) - most
                  << " more, in the report\n";
      }
    }
  }
}

void PrintSplits(const CheckResult& result, bool labels) {
  std::vector<std::vector<std::string>> rows = {
      {"split", "clips", "frames", "classes", "fewest clips", "", "most clips", ""}};
  for (const CheckedSplit& split : result.splits) {
    std::vector<std::string> row = {split.name.empty() ? "(all)" : split.name,
                                    std::to_string(split.clips.size()),
                                    std::to_string(split.frames)};
    const auto present = std::count_if(split.labels.begin(), split.labels.end(),
                                       [](int64_t clips) { return clips > 0; });
    row.push_back(std::to_string(present) + "/" + std::to_string(split.labels.size()));
    if (!split.labels.empty()) {
      const auto [low, high] = std::minmax_element(split.labels.begin(), split.labels.end());
      for (const auto& extreme : {low, high}) {
        row.push_back(std::to_string(*extreme));
        row.push_back(result.class_names[static_cast<size_t>(extreme - split.labels.begin())]);
      }
    }
    rows.push_back(row);
  }
  std::cout << FormatTable(rows);
  if (!labels) return;
  rows = {{"label", "class"}};
  for (const CheckedSplit& split : result.splits) {
    rows[0].push_back(split.name.empty() ? "(all)" : split.name);
  }
  for (size_t label = 0; label < result.class_names.size(); ++label) {
    rows.push_back({std::to_string(label), result.class_names[label]});
    for (const CheckedSplit& split : result.splits) {
      rows.back().push_back(std::to_string(split.labels[label]));
    }
  }
  std::cout << "\n" << FormatTable(rows);
}

void PrintSummary(const CheckResult& result) {
  // Worst first, then by how often.
  struct Kind {
    std::string code;
    Severity severity;
    int64_t count;
    const Finding* first;
  };
  std::vector<Kind> kinds;
  for (const Finding& finding : result.findings) {
    const auto known = std::find_if(kinds.begin(), kinds.end(), [&](const Kind& kind) {
      return kind.code == finding.code && kind.severity == finding.severity;
    });
    if (known != kinds.end()) {
      ++known->count;
    } else {
      kinds.push_back({finding.code, finding.severity, 1, &finding});
    }
  }
  std::stable_sort(kinds.begin(), kinds.end(), [](const Kind& a, const Kind& b) {
    return a.severity != b.severity ? a.severity > b.severity : a.count > b.count;
  });
  if (kinds.empty()) {
    std::cout << "nothing found\n";
    return;
  }
  std::vector<std::vector<std::string>> rows = {{"finding", "means", "count", "for example"}};
  for (const Kind& kind : kinds) {
    const std::string& id = kind.first->id;
    std::string example = (id.empty() ? "" : id + ": ") + kind.first->message;
    const std::string_view start = PrefixOfWidth(example, kExampleWidth);
    if (start.size() < example.size()) example = std::string(start) + "...";
    rows.push_back({kind.code, SeverityName(kind.severity), std::to_string(kind.count), example});
  }
  std::cout << FormatTable(rows);
}

void PrintOverview(const CheckPlan& plan, const CheckResult& result) {
  int64_t checked = 0;
  int64_t seen = 0;
  int64_t outside = 0;
  for (const CheckedClip& clip : result.clips) {
    checked += clip.checked ? 1 : 0;
    seen += clip.seen;
    outside += clip.outside;
  }
  std::cout << plan.config.data.annotations << ": " << result.clips.size() << " annotations, "
            << checked << " checked";
  if (checked < static_cast<int64_t>(result.clips.size())) {
    std::cout << " (the others are in no split of the configuration, or repeat an id)";
  }
  std::cout << "\n"
            << seen << " joints seen, "
            << FormatPercent(seen == 0 ? 0
                                       : static_cast<double>(outside) / static_cast<double>(seen))
            << " of them outside the image\n";
  if (plan.videos) {
    std::cout << result.videos << " videos of "
              << FormatBytes(static_cast<int64_t>(result.video_bytes)) << ", "
              << result.video_frames << " frames decoded\n";
  } else {
    std::cout << "videos not checked\n";
  }
  std::cout << "\n";
}

void PrintRepairs(const std::vector<Repair>& repairs, const std::string& path, int64_t most) {
  std::cout << "\n" << path << ": written with " << repairs.size() << " changes\n";
  for (size_t i = 0; i < repairs.size() && static_cast<int64_t>(i) < most; ++i) {
    const Repair& repair = repairs[i];
    std::string who = repair.id;
    if (who.empty() && repair.annotation >= 0) {
      who = "annotations[" + std::to_string(repair.annotation) + "]";
    }
    if (!repair.split.empty()) who += " [" + repair.split + "]";
    std::cout << "  " << (who.empty() ? "" : who + ": ") << repair.done << "\n";
  }
  if (static_cast<int64_t>(repairs.size()) > most) {
    std::cout << "  and " << static_cast<int64_t>(repairs.size()) - most
              << " more, in the report\n";
  }
}

// A pickle as the configuration or the command line names it, and what to look at in it.
Pickle Open(const CheckArguments& arguments, CheckPlan* plan) {
  const std::string& path = arguments.set.path;
  if (IsPickle(path)) {
    if (!arguments.set.overrides.empty()) {
      throw Error("--set is for configurations", path, "give a configuration, or leave --set out");
    }
    Pickle pickle = Pickle::Load(path);
    const std::string suffix = arguments.video_suffix.empty() ? ".mp4" : arguments.video_suffix;
    *plan = PlanCheck(pickle, path, arguments.videos, suffix);
    return pickle;
  }
  Config config = LoadConfig(path, arguments.set.overrides).config;
  if (!arguments.videos.empty()) config.data.videos = arguments.videos;
  if (!arguments.video_suffix.empty()) config.data.video_suffix = arguments.video_suffix;
  if (config.data.annotations.empty()) {
    const bool parts = HasSeparateAnnotations(config.data);
    throw Error(parts ? "the configuration names a file of annotations for each part"
                      : "no annotations are given",
                path + ": data.annotations",
                parts ? "check one after the other: --set data.annotations=FILE" : "name a pickle");
  }
  *plan = PlanCheck(config);
  return Pickle::Load(config.data.annotations);
}

int CheckSet(const CheckArguments& arguments) {
  CheckPlan plan;
  const Pickle pickle = Open(arguments, &plan);
  plan.everything |= arguments.everything;
  plan.videos &= !arguments.no_videos;
  plan.threads = arguments.threads;
  RequireFolderOf(arguments.fix, "--fix");
  RequireFolderOf(arguments.report, "--report");
  for (const std::string& input : {arguments.set.path, plan.config.data.annotations}) {
    RefuseToOverwrite(input, arguments.fix, "--fix");
    RefuseToOverwrite(input, arguments.report, "--report");
  }

  Progress progress(std::cout, DetectTerminal(STDOUT_FILENO), 1);
  const CheckResult result =
      CheckDataset(pickle, plan, [&](const std::string& what, int64_t done, int64_t total) {
        progress.Note(fmt::format("{} {}/{}", what, done, total));
      });
  progress.Finish();

  PrintOverview(plan, result);
  PrintSplits(result, arguments.labels);
  std::cout << "\n";
  PrintSummary(result);
  PrintLists(result, arguments.list);
  std::vector<Repair> repairs;
  if (!arguments.fix.empty()) {
    repairs = CleanAnnotations(pickle, plan, result, arguments.fix);
    PrintRepairs(repairs, arguments.fix, arguments.list);
  }
  WriteCheckReport(arguments.report, plan, result, repairs);
  const int64_t stops = result.Count(Severity::kStops);
  const int64_t distorts = result.Count(Severity::kDistorts);
  std::cout << "\n"
            << stops << " findings stop clips or runs, " << distorts
            << " distort what is trained or measured, " << result.Count(Severity::kNote)
            << " are notes; all of them: " << arguments.report << "\n";
  return stops + distorts > 0 ? kExitFailed : kExitOk;
}

}  // namespace

void AddDataCheckCommand(CLI::App& data, int* exit_code) {
  auto arguments = std::make_shared<CheckArguments>();
  CLI::App* check =
      data.add_subcommand("check",
                          "read a whole data set, decode every video, and list what is wrong\n"
                          "exit code: 0 nothing that stops or distorts training, 1 something does, "
                          "2 cannot be checked");
  check->add_option("set", arguments->set.path, "a configuration (TOML) or an annotation pickle")
      ->required();
  check->add_option("-s,--set", arguments->set.overrides, "override one option of a configuration")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  check->add_option("--videos", arguments->videos,
                    "folder of the videos (a pickle names none; without it they are not checked)");
  check->add_option("--video-suffix", arguments->video_suffix, "of their names, default .mp4");
  check->add_flag("--no-videos", arguments->no_videos, "check the annotations alone");
  check->add_flag("--all", arguments->everything,
                  "also annotations in none of the configuration's splits");
  check->add_flag("--labels", arguments->labels, "print the clips of every class in every split");
  check->add_option("--list", arguments->list, "clips to name for each kind of finding")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  check->add_option("--threads", arguments->threads, "0: one per core; the result is the same")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  check->add_option("--report", arguments->report, "everything found, as JSON lines")
      ->capture_default_str();
  check->add_option("--fix", arguments->fix,
                    "write the annotations anew here, without what is wrong");
  check->callback([=] { *exit_code = CheckSet(*arguments); });
}

}  // namespace kinefit
