#include <nlohmann/json.hpp>

#include "dataset/check.h"
#include "files/publish.h"

namespace kinefit {
namespace {

using Json = nlohmann::ordered_json;

// Whole numbers without ".0".
Json Number(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

Json SetRecord(const CheckPlan& plan, const CheckResult& result) {
  int64_t checked = 0;
  int64_t usable = 0;
  int64_t seen = 0;
  int64_t outside = 0;
  for (const CheckedClip& clip : result.clips) {
    checked += clip.checked ? 1 : 0;
    usable += clip.usable ? 1 : 0;
    seen += clip.seen;
    outside += clip.outside;
  }
  return {{"record", "set"},
          {"format", 1},
          {"annotations", plan.config.data.annotations},
          {"videos", plan.videos ? Json(plan.config.data.videos) : Json()},
          {"clips", result.clips.size()},
          {"checked", checked},
          {"usable", usable},
          {"joints_seen", seen},
          {"joints_outside", outside},
          {"video_files", result.videos},
          {"video_frames", result.video_frames},
          {"video_bytes", result.video_bytes},
          {"stops", result.Count(Severity::kStops)},
          {"distorts", result.Count(Severity::kDistorts)},
          {"notes", result.Count(Severity::kNote)}};
}

Json SplitRecord(const CheckedSplit& split, const CheckResult& result) {
  Json labels = Json::array();
  for (size_t i = 0; i < split.labels.size(); ++i) {
    labels.push_back({{"label", i}, {"name", result.class_names[i]}, {"clips", split.labels[i]}});
  }
  return {{"record", "split"},
          {"name", split.name},
          {"clips", split.clips.size()},
          {"frames", split.frames},
          {"labels", labels}};
}

Json FindingRecord(const Finding& finding) {
  Json record = {
      {"record", "finding"}, {"severity", SeverityName(finding.severity)}, {"code", finding.code}};
  if (finding.annotation >= 0) record["annotation"] = finding.annotation;
  if (!finding.id.empty()) record["id"] = finding.id;
  if (!finding.split.empty()) record["split"] = finding.split;
  record["message"] = finding.message;
  for (const auto& [name, value] : finding.numbers) record["numbers"][name] = Number(value);
  return record;
}

Json RepairRecord(const Repair& repair) {
  Json record = {{"record", "repair"}};
  if (repair.annotation >= 0) record["annotation"] = repair.annotation;
  if (!repair.id.empty()) record["id"] = repair.id;
  if (!repair.split.empty()) record["split"] = repair.split;
  record["done"] = repair.done;
  return record;
}

}  // namespace

void WriteCheckReport(const std::string& path, const CheckPlan& plan, const CheckResult& result,
                      const std::vector<Repair>& repairs) {
  std::string text;
  const auto add = [&text](const Json& record) {
    // Ids come from files of any origin: bytes that are no UTF-8 become U+FFFD.
    text += record.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  add(SetRecord(plan, result));
  for (const CheckedSplit& split : result.splits) add(SplitRecord(split, result));
  for (const Finding& finding : result.findings) add(FindingRecord(finding));
  for (const Repair& repair : repairs) add(RepairRecord(repair));
  PublishFile(path, text);
}

}  // namespace kinefit
