#include "dataset/check.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "dataset/annotation_reader.h"
#include "dataset/check_steps.h"
#include "dataset/worker_threads.h"
#include "files/error.h"

namespace kinefit {

const char* SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kDistorts:
      return "distorts";
    case Severity::kStops:
      return "stops";
  }
  return "";
}

int64_t CheckResult::Count(Severity severity) const {
  return std::count_if(findings.begin(), findings.end(),
                       [severity](const Finding& finding) { return finding.severity == severity; });
}

void ForEach(int threads, int64_t count, const std::function<void(int64_t)>& work,
             const std::function<void(int64_t)>& done) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;  // guards what follows
  int64_t finished = 0;
  int64_t failed = count;
  std::exception_ptr failure;
  const auto run = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      std::exception_ptr thrown;
      try {
        work(i);
      } catch (...) {
        thrown = std::current_exception();
        next = count;  // no more are begun
      }
      const std::lock_guard<std::mutex> lock(mutex);
      if (thrown && i < failed) {
        failed = i;
        failure = thrown;
      }
      done(++finished);
    }
  };
  const auto cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const int64_t wanted = threads > 0 ? threads : cores;
  std::vector<std::thread> workers;
  StartThreads(std::min(wanted, count) - 1, run, &workers);  // this one works in any case
  run();
  for (std::thread& worker : workers) worker.join();
  if (failure) std::rethrow_exception(failure);
}

namespace {

// "x_train" -> "x_test"; "" if there is no "train" in the name.
std::string Counterpart(std::string name, const std::string& word) {
  const size_t at = name.rfind("train");
  return at == std::string::npos ? "" : name.replace(at, 5, word);
}

void RequireVideoFolder(const CheckPlan& plan) {
  const std::string& folder = plan.config.data.videos;
  std::error_code error;
  if (std::filesystem::is_directory(folder, error)) return;
  throw Error("the folder of videos cannot be found", folder,
              "correct data.videos, or check the annotations alone with --no-videos");
}

// Annotations by their ids; of those that share one, the first.
using ById = std::unordered_map<std::string, int64_t>;

void ReadSplits(const Pickle& pickle, const CheckPlan& plan, const ById& by_id,
                CheckResult* result) {
  std::vector<bool> wanted(result->clips.size(), plan.everything || plan.splits.empty());
  for (const std::string& name : plan.splits) {
    CheckedSplit split{name, {}, {}, 0};
    if (name.empty()) {
      for (const auto& [id, index] : by_id) split.clips.push_back(index);
      wanted.assign(wanted.size(), true);
    } else {
      std::unordered_map<std::string, int> times;
      const std::vector<std::string> ids =
          ReadSplit(pickle.root(), name, plan.config.data.annotations);
      if (ids.empty()) {
        result->findings.push_back(
            {"split_empty", Severity::kNote, -1, "", name, "names no clip", {}});
      }
      for (const std::string& id : ids) {
        const auto found = by_id.find(id);
        if (++times[id] == 2) {
          result->findings.push_back({"split_repeats",
                                      Severity::kNote,
                                      -1,
                                      id,
                                      name,
                                      "is named more than once in the split; it counts once",
                                      {}});
        }
        if (times[id] > 1) continue;
        if (found != by_id.end()) {
          split.clips.push_back(found->second);
        } else {
          result->findings.push_back({"split_unknown",
                                      Severity::kStops,
                                      -1,
                                      id,
                                      name,
                                      "is in the split but not annotated",
                                      {}});
        }
      }
    }
    std::sort(split.clips.begin(), split.clips.end());
    for (const int64_t clip : split.clips) wanted[static_cast<size_t>(clip)] = true;
    result->splits.push_back(std::move(split));
  }
  for (size_t i = 0; i < result->clips.size(); ++i) {
    CheckedClip& clip = result->clips[i];
    const auto first = by_id.find(clip.id);
    // Of those with one id the first counts; those without have been found already.
    clip.checked = wanted[i] && first != by_id.end() && first->second == static_cast<int64_t>(i);
  }
}

void FillHistograms(const CheckPlan& plan, CheckResult* result) {
  int64_t classes = plan.any_label ? 0 : plan.config.model.num_classes;
  for (const CheckedClip& clip : result->clips) {
    if (clip.usable && plan.any_label) classes = std::max(classes, clip.label + 1);
  }
  if (plan.any_label) {
    for (int64_t i = 0; i < classes; ++i) result->class_names.push_back(std::to_string(i));
  }
  if (result->splits.empty()) {
    CheckedSplit all;
    for (size_t i = 0; i < result->clips.size(); ++i) {
      if (result->clips[i].checked) all.clips.push_back(static_cast<int64_t>(i));
    }
    result->splits.push_back(std::move(all));
  }
  for (CheckedSplit& split : result->splits) {
    split.labels.assign(static_cast<size_t>(classes), 0);
    for (const int64_t index : split.clips) {
      const CheckedClip& clip = result->clips[static_cast<size_t>(index)];
      if (!clip.usable) continue;
      ++split.labels[static_cast<size_t>(clip.label)];
      split.frames += clip.total_frames;
    }
  }
}

}  // namespace

CheckPlan PlanCheck(const Config& config) {
  const DataConfig& data = config.data;
  CheckPlan plan;
  plan.config = config;
  plan.videos = !data.videos.empty();
  plan.splits = {data.train_split};
  for (const std::string& name :
       {data.val_split, data.test_split.empty() ? data.val_split : data.test_split}) {
    if (std::find(plan.splits.begin(), plan.splits.end(), name) != plan.splits.end()) continue;
    plan.splits.push_back(name);
    plan.held_out.emplace_back(data.train_split, name);
  }
  return plan;
}

CheckPlan PlanCheck(const Pickle& pickle, const std::string& annotations, const std::string& videos,
                    const std::string& video_suffix) {
  CheckPlan plan;
  plan.config.data.annotations = annotations;
  plan.config.data.videos = videos;
  plan.config.data.video_suffix = video_suffix;
  plan.any_label = true;
  plan.everything = true;
  plan.videos = !videos.empty();
  const PickleValue splits =
      pickle.root().is(PickleKind::kDict) ? pickle.root().Find("split") : PickleValue();
  for (size_t i = 0; splits.is(PickleKind::kDict) && i < splits.size(); ++i) {
    plan.splits.emplace_back(splits.key(i).AsString(annotations + ": name of a split"));
  }
  for (const std::string& name : plan.splits) {
    for (const char* word : {"val", "test"}) {
      const std::string other = Counterpart(name, word);
      const bool exists =
          std::find(plan.splits.begin(), plan.splits.end(), other) != plan.splits.end();
      if (!other.empty() && exists) plan.held_out.emplace_back(name, other);
    }
  }
  return plan;
}

CheckResult CheckDataset(const Pickle& pickle, const CheckPlan& plan,
                         const CheckProgress& progress) {
  if (plan.videos) RequireVideoFolder(plan);
  const std::string& path = plan.config.data.annotations;
  const PickleValue list = FindAnnotations(pickle.root(), path);
  CheckResult result;
  if (!plan.any_label) result.class_names = ReadClassNames(plan.config);
  result.clips.resize(list.size());
  ById by_id;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = path + ": annotations[" + std::to_string(i) + "]";
    const auto index = static_cast<int64_t>(i);
    try {
      result.clips[i].id = ReadId(list[i], where);
    } catch (const Error& error) {
      result.findings.push_back(
          {"annotation_invalid", Severity::kStops, index, "", "", error.problem(), {}});
      continue;
    }
    const auto [first, added] = by_id.emplace(result.clips[i].id, index);
    if (added) continue;
    result.findings.push_back({"id_repeats",
                               Severity::kStops,
                               index,
                               result.clips[i].id,
                               "",
                               "is annotated again; annotation " + std::to_string(first->second) +
                                   " has the same id and counts",
                               {{"first", static_cast<double>(first->second)}}});
  }
  ReadSplits(pickle, plan, by_id, &result);
  CheckAnnotations(pickle, plan, progress, &result);
  if (plan.videos) CheckVideos(plan, progress, &result);
  FillHistograms(plan, &result);
  CheckSplits(plan, &result);
  std::stable_sort(result.findings.begin(), result.findings.end(),
                   [](const Finding& a, const Finding& b) { return a.annotation < b.annotation; });
  return result;
}

}  // namespace kinefit
