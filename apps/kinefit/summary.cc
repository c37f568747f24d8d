#include "apps/kinefit/summary.h"

#include <nlohmann/json.hpp>

#include "files/error.h"
#include "files/publish.h"

namespace kinefit {
namespace {

using Json = nlohmann::ordered_json;

Json WithJson(const TestedWith& with) {
  Json json = {{"checkpoint", with.checkpoint},
               {"config", with.config},
               {"annotations", with.annotations},
               {"split", with.split},
               {"clips", with.clips},
               {"flip", with.flip},
               {"label_offset", with.label_offset}};
  for (const auto& [stream, weight] : with.weights) json["weights"][stream] = weight;
  json["version"] = with.version;
  return json;
}

Json StreamJson(const StreamSummary& stream) {
  return {{"top1", stream.top1},
          {"top5", stream.top5},
          {"mean_class", stream.mean_class},
          {"macro_f1", stream.f1.macro},
          {"micro_f1", stream.f1.micro}};
}

Json GroupsJson(const Summary& summary) {
  Json json = {{"from", summary.coarse_from_fine ? "fine" : "classifier"}};
  for (size_t i = 0; i < summary.coarse.size(); ++i) {
    const StreamSummary& stream = summary.coarse[i];
    Json values = StreamJson(stream);
    values.erase("top5");
    values["mean_f1"] = MeanF1(summary.streams.at(i), stream);
    json["streams"][stream.stream] = values;
  }
  return json;
}

StreamSummary ReadStream(const std::string& name, const Json& values) {
  return {name,
          values.at("top1").get<double>(),
          values.value("top5", 0.0),
          values.at("mean_class").get<double>(),
          {values.value("macro_f1", 0.0), values.value("micro_f1", 0.0)}};
}

TestedWith ReadWith(const Json& json) {
  TestedWith with;
  with.checkpoint = json.value("checkpoint", "");
  with.config = json.value("config", "");
  with.annotations = json.value("annotations", "");
  with.split = json.value("split", "");
  with.clips = json.value("clips", int64_t{0});
  with.flip = json.value("flip", false);
  with.label_offset = json.value("label_offset", int64_t{0});
  if (json.contains("weights")) {
    for (const auto& [stream, weight] : json.at("weights").items()) {
      with.weights.emplace_back(stream, weight.get<double>());
    }
  }
  with.version = json.value("version", "");
  return with;
}

}  // namespace

Summary MakeSummary(const EvaluationResult& result, const TestedWith& with) {
  return {result.ids.size(), with, Summarise(result), SummariseCoarse(result),
          result.coarse_from_fine};
}

void WriteSummary(const std::string& path, const Summary& summary) {
  Json json = {{"samples", summary.samples}};
  json.update(WithJson(summary.with));
  for (const StreamSummary& stream : summary.streams) {
    json["streams"][stream.stream] = StreamJson(stream);
  }
  if (!summary.coarse.empty()) json["groups"] = GroupsJson(summary);
  PublishFile(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Summary ReadSummary(const std::string& path) {
  const std::string text = ReadFile(path);
  try {
    const auto json = Json::parse(text);
    Summary summary;
    summary.samples = json.at("samples").get<size_t>();
    summary.with = ReadWith(json);
    for (const auto& [name, values] : json.at("streams").items()) {
      summary.streams.push_back(ReadStream(name, values));
    }
    if (json.contains("groups")) {
      const Json& groups = json.at("groups");
      summary.coarse_from_fine = groups.value("from", "") == "fine";
      for (const auto& [name, values] : groups.at("streams").items()) {
        summary.coarse.push_back(ReadStream(name, values));
      }
    }
    return summary;
  } catch (const nlohmann::json::exception& error) {
    throw Error(std::string("not a summary of `kinefit test`: ") + error.what(), path,
                "run `kinefit test ... --out DIR` again");
  }
}

std::vector<std::pair<std::string, double>> StreamWeights(const EvaluationResult& result,
                                                          const EvalConfig& eval) {
  std::vector<std::pair<std::string, double>> weights;
  for (const auto& stream : result.streams) {
    const std::string& name = stream.first;
    if (name == "rgb") weights.emplace_back(name, eval.rgb_weight);
    if (name == "pose") weights.emplace_back(name, eval.pose_weight);
    if (name == "fused_head") weights.emplace_back(name, eval.fused_weight);
  }
  return weights;
}

}  // namespace kinefit
